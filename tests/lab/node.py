# SPDX-License-Identifier: Apache-2.0
"""One node: Debian with systemd as process 1, its own network stack, disk and Docker.

What lasts over a power cut is what would last on a server: the system (an
overlay over the base image), Docker's directory, and the data disk, of which
only what had reached it. What is gone is gone: processes, sockets, addresses.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from . import disk, host
from .command import LabError, clean_environment, run
from .ledger import Ledger, Process, kill_cgroup, remove_cgroup, started
from .network import Network
from .place import NODES, Place
from .waiting import until

HOSTS = "127.0.0.1 localhost\n10.0.0.1 node-a\n10.0.0.2 node-b\n"
# The launcher enters the node's cgroup first: two nodes in one cgroup break each other.
LAUNCH = """
procs=$1; log=$2; shift 2
echo $$ >"$procs"
exec unshare --mount --propagation private sh -ec "$0" sh "$@" </dev/null >>"$log" 2>&1
"""
# Mounts are made in the node's own mount namespace: they are gone when its last
# process is, and no other node's nspawn can hold a copy of them.
MOUNT = """
image=$1; storage=$2; run=$3; shift 3
mount -t ext4 -o loop "$storage/disk.img" "$run/disk"
mkdir -p "$run/disk/srv" "$run/disk/haoperator"
mount -t overlay overlay "$run/root" \
    -o "lowerdir=$image,upperdir=$storage/upper,workdir=$storage/work"
exec "$@"
"""
DETACH = 'setsid sh -ec "$@" >/dev/null 2>&1 & echo $!'


class Node:
    """A node, by its host name. Any process of the lab's user may hold one of these."""

    def __init__(
        self, place: Place, name: str, image: Sequence[Path], ledger: Ledger, net: Network
    ) -> None:
        assert name in NODES
        self.name = name
        self.image = image
        self.place = place
        self.ledger = ledger
        self.network = net
        self.run = place.run / name
        self.storage = place.disks / name
        self.console = self.run / "console.log"

    @property
    def cgroup(self) -> Path:
        return host.cgroup2() / self.place.name / self.name

    @property
    def leader(self) -> int:
        """Pid, as the machine sees it, of the node's process 1. LabError if it has no power."""
        leader = self.ledger.leader(self.name)
        if leader is None or not leader.alive():
            raise LabError(f"{self.name} has no power", f"make lab-up; {self.console}")
        return leader.pid

    @property
    def root(self) -> Path:
        """The root directory of the running node, with all that is mounted in it."""
        return Path(f"/proc/{self.leader}/root")

    @property
    def powered(self) -> bool:
        leader = self.ledger.leader(self.name)
        return leader is not None and leader.alive()

    def create(self) -> None:
        """Makes a new server: nothing on it but the image."""
        for directory in ("upper", "work", "docker"):
            (self.storage / directory).mkdir(parents=True)
        etc = self.storage / "upper/etc"
        etc.mkdir()
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (etc / "hosts").write_text(HOSTS)
        (self.storage / "upper/var/log/journal").mkdir(parents=True)
        resolver = Path("/etc/resolv.conf")
        if resolver.exists():
            (etc / "resolv.conf").write_text(resolver.read_text())
        disk.create(self.storage / "disk.img")

    def boot(self, *, wait: bool = True) -> None:
        """Gives it power; with `wait`, returns when systemd and the bus serve it."""
        if self.powered:
            raise LabError(f"{self.name} has power already")
        self._off()
        for directory in ("disk", "root"):
            (self.run / directory).mkdir(parents=True, exist_ok=True)
        disk.wait_released(self.storage / "disk.img")
        self.network.plug(self.name)
        self.ledger.note("cgroups", self.cgroup)
        self.cgroup.mkdir(parents=True, exist_ok=True)
        self._launch()
        if wait:
            self.wait_booted()

    def wait_booted(self, within: float = 60.0) -> None:
        """Returns when systemd and the bus serve it. Services may start still: what they
        wait for is the affair of what is tested here."""
        self.wait_active("basic.target", "dbus.service", within=within)

    def wait_active(self, *units: str, within: float = 60.0) -> None:
        """Returns when all of these units are active."""

        def active() -> bool:
            shown = self.exec("systemctl", "is-active", *units, check=False)
            return shown.stdout.split() == ["active"] * len(units)

        until(
            active,
            f"{', '.join(units)} active in {self.name}",
            within=within,
            hint=lambda: self.exec("systemctl", "list-jobs", check=False).stdout,
        )

    def power_cut(self) -> None:
        """Takes the power away: at one stroke, and with nothing told to anybody.

        The cables go first, so that no dying process closes a connection that a
        dead server would have left open; the disk goes last.
        """
        with disk.cut_after(self.root / "srv"):
            self.network.cut(self.name)
            kill_cgroup(self.cgroup)
        self._off()

    def shutdown(self, within: float = 90.0) -> None:
        """An orderly shutdown, as `systemctl poweroff` does it."""
        leader = Process.of(self.leader)
        self.exec("systemctl", "poweroff", check=False)

        def down() -> bool:
            wake_entered(leader.pid)
            return not leader.alive()

        until(
            down,
            f"{self.name} is down",
            within=within,
            every=0.2,
            hint=lambda: "\n".join(self.console.read_text(errors="replace").splitlines()[-20:]),
        )
        self._off()

    def exec(
        self, *argv: str, stdin: str | None = None, timeout: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command as root in the node. Raises LabError as `command.run` does."""
        return run(*self.entering(), *argv, stdin=stdin, timeout=timeout, check=check)

    def entering(self) -> tuple[str, ...]:
        """The words before a command that make it run in the node."""
        return ("nsenter", "-t", str(self.leader), "-a", "-r", "-w")

    def shell(self) -> None:
        """Becomes a shell in the node; returns only if that fails."""
        env = clean_environment() | {"PS1": f"root@{self.name}:\\w# "}
        os.execvpe("nsenter", [*self.entering(), "bash", "--norc"], env)

    def install(self, *packages: str, timeout: float = 300.0) -> str:
        """`apt-get install` in the running node, as its administrator would.

        The segment has no way out, so apt alone uses the machine's network; the
        packages' scripts talk to the node's systemd.
        """
        env = clean_environment() | {k: v for k, v in os.environ.items() if k.endswith("_proxy")}
        inside = ("nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-p", "-C", "-r", "-w")
        apt = ("apt-get", "install", "--yes", "--no-install-recommends")
        return run(*inside, *apt, *packages, timeout=timeout, env=env).stdout

    def put(self, path: str, content: str, mode: int = 0o644) -> None:
        """Writes a file in the node."""
        self.exec("install", "-D", "-m", f"{mode:o}", "/dev/stdin", path, stdin=content)

    def copy_in(self, source: Path, directory: str = "/var/tmp") -> str:
        """Copies a file of the machine into the node, and returns its path there."""
        target = self.root / directory.lstrip("/") / source.name
        shutil.copyfile(source, target)
        return f"{directory}/{source.name}"

    def journal(self, *options: str, timeout: float = 60.0) -> str:
        """The node's journal, of all its boots, as `journalctl` prints it; also without power."""
        logs = self.storage / "upper/var/log/journal"
        return run("journalctl", "--directory", logs, *options, timeout=timeout).stdout

    def _launch(self) -> None:
        namespace = f"/run/netns/{self.place.namespace(self.name)}"
        nspawn = (
            "systemd-nspawn --quiet --keep-unit --register=no --boot --settings=no "
            f"--directory={self.run}/root --machine={self.name} --hostname={self.name} "
            f"--network-namespace-path={namespace} --capability=all "
            "--link-journal=no --resolv-conf=off --timezone=off --bind=/dev/fuse"
        ).split()
        nspawn += [
            "--system-call-filter=@keyring bpf",
            f"--bind={self.storage}/docker:/var/lib/docker",
            f"--bind={self.run}/disk/srv:/srv",
            f"--bind={self.run}/disk/haoperator:/var/lib/haoperator",
        ]
        env = clean_environment() | {
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
        }
        procs = self.cgroup / "cgroup.procs"
        image = ":".join(str(layer) for layer in self.image)
        prepare = (LAUNCH, MOUNT, procs, self.console, image, self.storage, self.run)
        launched = run("sh", "-c", DETACH, "sh", *prepare, *nspawn, env=env)
        launcher = int(launched.stdout)
        pid = until(
            lambda: first_process_under(launcher) or (started(launcher) is None and -1),
            f"process 1 of {self.name}",
            within=20,
            every=0.01,
            hint=str(self.console),
        )
        if pid == -1:
            said = self.console.read_text(errors="replace")[-1000:]
            raise LabError(f"{self.name} did not boot: {said}", str(self.console))
        self.ledger.note_leader(self.name, Process.of(pid))

    def _off(self) -> None:
        """Puts away what a node without power leaves on the machine."""
        kill_cgroup(self.cgroup)
        self.ledger.note_leader(self.name, None)
        self.network.unplug(self.name)
        remove_cgroup(self.cgroup)


def wake_entered(leader: int) -> None:
    """Lets every `nsenter` into a node go on. systemd-shutdown stops all processes for a moment;
    an nsenter stops with its child, and would never see that it has ended."""
    wanted = f"nsenter\0-t\0{leader}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(wanted):
                os.kill(int(process.name), signal.SIGCONT)


def first_process_under(launcher: int) -> int | None:
    """The child of nspawn that is process 1 in its own namespace."""
    try:
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        for child in children:
            for line in Path(f"/proc/{child}/status").read_text().splitlines():
                if line.startswith("NSpid:") and line.split()[-1] == "1":
                    return int(child)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None
