# SPDX-License-Identifier: Apache-2.0
"""What the nodes have here beside the lab's image: the packages of those compared with.

An overlay's upper directory, made once over the base image and laid over it again when
the nodes boot. It is kept beside that image, found by a hash of its own recipe, and the
image stays what it is for every other lab.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tests.lab import base
from tests.lab.lock import locked

PACKAGES = ("corosync", "crmsh", "keepalived", "pacemaker", "resource-agents")
SERVICES = ("corosync", "pacemaker", "keepalived")
"""Not started at boot: only one of them runs at a time here, and none beside haoperator."""
RECIPE = 2
"""Raised when this file changes in a way that needs a new layer."""


def key() -> str:
    """Identifies the recipe of the layer, and of the image below it."""
    recipe = (base.key(), *PACKAGES, *SERVICES, str(RECIPE))
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]


def provide(cache: Path) -> Path:
    """The directory of the layer, made now if it is not there yet (a minute)."""
    image = base.provide(cache)
    layer = cache / f"rivals-{key()}"
    with locked(cache / "rivals.lock"):
        for other in cache.glob("rivals-*"):
            if other.is_dir() and other != layer:
                shutil.rmtree(other)
        if not layer.exists():
            partial = layer.with_suffix(".partial")
            build(image, partial)
            partial.rename(layer)
    return layer


def build(image: Path, layer: Path) -> None:
    """Installs the packages over `image`; what that changes is what `layer` holds."""
    print(f"building the image's layer in {layer.parent} (once, about a minute)", flush=True)
    shutil.rmtree(layer, ignore_errors=True)
    base.install_over(image, layer, PACKAGES)
    for service in SERVICES:
        (layer / f"etc/systemd/system/multi-user.target.wants/{service}.service").unlink()
    for heap in ("var/lib/apt/lists", "var/cache/apt/archives"):
        shutil.rmtree(layer / heap)
    os.sync()
