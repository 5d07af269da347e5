# SPDX-License-Identifier: Apache-2.0
"""What the lab needs of the machine it runs on, looked at before anything is made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .command import LabError, run

PACKAGES = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "mount",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "dpkg-deb": "dpkg",
}
MODULES = ("fuse", "overlay", "loop", "veth", "bridge", "br_netfilter", "nf_tables", "ip_tables")
BIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_packages() -> list[str]:
    """Debian packages that have to be installed before a lab can be set up."""
    absent = {
        package for command, package in PACKAGES.items() if not shutil.which(command, path=BIN)
    }
    return sorted(absent)


def install(packages: list[str]) -> None:
    """Installs Debian packages on this machine, as an administrator would."""
    if not packages:
        return
    print(f"installing on this machine: {' '.join(packages)}", flush=True)
    command = ("apt-get", "install", "--yes", "--no-install-recommends", *packages)
    if run(*command, check=False, timeout=900).returncode != 0:
        run("apt-get", "update", timeout=300)
        run(*command, timeout=900)


def cgroup2() -> Path:
    """Where the unified cgroup tree is: all of it, or beside the old ones on a hybrid host."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2":
            return Path(fields.split()[4])
    raise LabError("no cgroup2 tree is mounted", "mount -t cgroup2; the kernel's command line")


def check() -> None:
    """Tries everything that the lab is built from. Raises LabError with all that is missing."""
    if os.geteuid() != 0:
        raise LabError("the lab must be run by root", "sudo make …")
    install(missing_packages())
    if modprobe := shutil.which("modprobe", path=BIN):
        run(modprobe, "--all", "--quiet", *MODULES, check=False)
    problems = []
    for what, probe in PROBES.items():
        try:
            probe()
        except (LabError, OSError) as err:
            problems.append(f"{what}: {err}")
    if problems:
        raise LabError(
            "this machine lacks what the lab needs:\n  " + "\n  ".join(problems),
            "is this a container without privileges? The lab needs a machine or a virtual one",
        )


def _fuse() -> None:
    os.close(os.open("/dev/fuse", os.O_RDWR))


def _in_private_namespaces(script: str) -> Callable[[], None]:
    def probe() -> None:
        run("unshare", "--mount", "--net", "sh", "-ec", script)

    return probe


def _loop() -> None:
    run("losetup", "--find")


def _cgroup() -> None:
    probe = cgroup2() / f"haoperator-probe-{os.getpid()}"
    probe.mkdir()
    try:
        (probe / "cgroup.kill").write_text("1")
    finally:
        probe.rmdir()


PROBES: dict[str, Callable[[], None]] = {
    "FUSE (/dev/fuse)": _fuse,
    "loop devices": _loop,
    "a cgroup of its own (cgroup2 with cgroup.kill, kernel 5.14)": _cgroup,
    "overlay mounts": _in_private_namespaces(
        "mount -t tmpfs tmpfs /mnt; cd /mnt; mkdir l u w m; "
        "mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m"
    ),
    "veth pairs and bridges": _in_private_namespaces(
        "ip link add v0 type veth peer name v1; ip link add b0 type bridge; "
        "ip link set v0 master b0"
    ),
    "nftables for bridges": _in_private_namespaces(
        "nft 'table bridge t { chain c { type filter hook forward priority 0; }; }'"
    ),
}
