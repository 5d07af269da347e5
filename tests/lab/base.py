# SPDX-License-Identifier: Apache-2.0
"""The image that all nodes share: Debian bookworm with systemd, D-Bus and Docker.

It is built once, kept outside the work tree, and found again by a hash of its
recipe; a changed list of packages makes a new one. A half-built image is never
seen: it is built under another name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from .command import run
from .lock import locked

SUITE = "bookworm"
BOOTSTRAP = ("systemd", "systemd-sysv", "ca-certificates")
PACKAGES = (
    # what a Debian server has anyway
    *("dbus", "polkitd", "libpam-systemd", "iproute2", "iputils-ping", "nftables", "procps"),
    *("kmod", "less", "python3", "iptables", "docker.io"),
    # the dependencies of our own package, so that installing it is quick
    *("python3-dbus-next", "python3-docker", "python3-pyroute2", "python3-pystemd"),
    *("python3-sdnotify", "python3-tomli", "python3-systemd", "python3-cryptography"),
    # what the scenarios look around with, and what the container images are made from
    *("iputils-arping", "attr", "acl", "redis-tools", "busybox-static", "strace", "sqlite3"),
)
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "getty@.service",
    "systemd-pstore.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
)
RECIPE = 3
"""Raised when this file changes in a way that needs a new image."""
PRIVATE = ("unshare", "--mount", "--propagation", "private")


def key() -> str:
    """Identifies the recipe of the image."""
    recipe = (SUITE, *BOOTSTRAP, *PACKAGES, *MASKED, str(RECIPE))
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]


def provide(cache: Path) -> Path:
    """The directory of the base image, built now if it is not there yet (two minutes)."""
    image = cache / f"base-{key()}"
    with locked(cache / "base.lock"):
        if not image.exists():
            for leftover in cache.glob("base-*.partial"):
                shutil.rmtree(leftover)
            partial = cache / f"{image.name}.partial"
            build(partial)
            partial.rename(image)
        remove_others(cache, image)
    return image


def build(root: Path) -> None:
    """Makes the image in `root`. Mounts made on the way vanish with their namespace."""
    print(f"building the base image in {root.parent} (once, about two minutes)", flush=True)
    root.mkdir(parents=True)
    include = f"--include={','.join(BOOTSTRAP)}"
    run(*PRIVATE, "debootstrap", "--variant=minbase", include, SUITE, root, timeout=1200)

    install(root, PACKAGES)
    for unit in MASKED:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    journald = root / "etc/systemd/journald.conf.d/lab.conf"
    journald.parent.mkdir()
    # A burst of log lines is evidence, not a nuisance.
    journald.write_text("[Journal]\nStorage=persistent\nRateLimitBurst=0\nSystemMaxUse=200M\n")
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    os.sync()


def install(root: Path, packages: Sequence[str], *, before: str = "") -> None:
    """`apt-get install` into a system that does not run. Mounts vanish with their namespace."""
    policy = root / "usr/sbin/policy-rc.d"  # no package starts a service while the image is made
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    script = (
        f'{before}mount -t proc proc "$0/proc"; '
        'exec chroot "$0" apt-get install --yes --no-install-recommends "$@"'
    )
    run(*PRIVATE, "sh", "-ec", script, root, *packages, timeout=1200)
    policy.unlink()


def install_over(image: Path, layer: Path, packages: Sequence[str]) -> None:
    """The same over `image`, with fresh lists: `layer` is new, and holds what is different then.

    The overlay is mounted upon its own upper directory, so that nothing else is left of it.
    """
    work = layer.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    for directory in (layer / "usr/sbin", work):
        directory.mkdir(parents=True)
    options = f"lowerdir={image},upperdir={layer},workdir={work}"
    before = f'mount -t overlay overlay "$0" -o {options}; chroot "$0" apt-get update; '
    install(layer, packages, before=before)
    shutil.rmtree(work)


def remove_others(cache: Path, image: Path) -> None:
    """Removes images of former recipes, unless a lab still stands on one."""
    mounted = Path("/proc/self/mountinfo").read_text()
    for other in cache.glob("base-*"):
        if other.is_dir() and other != image and str(other) not in mounted:
            shutil.rmtree(other)
