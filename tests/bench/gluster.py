# SPDX-License-Identifier: Apache-2.0
"""Debian's GlusterFS: one glusterd, and of each volume a brick on either disk.

Everything runs in a network namespace of its own, and whatever runs in that namespace is
ended with it. The mounts are seen by the benchmark.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.command import mounted, run

ADDRESS = "10.77.0.1"
SOCKETS = Path("/run/gluster")
"""Compiled in: where its processes talk to each other."""
READY_SECONDS = 30.0

DAEMON = """\
volume management
    type mgmt/glusterd
    option working-directory {home}/work
    option run-directory {home}/run
    option logging-directory {home}/log
    option glusterd-sockfile {home}/run/glusterd.sock
    option transport-type socket
    option transport.address-family inet
    option transport.socket.listen-port 24007
    option ping-timeout 0
    option event-threads 1
    option max-port 60999
end-volume
"""


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    """The pid of a process in a network of its own; all who are in it die in the end."""
    script = f"ip link set lo up && ip addr add {ADDRESS}/32 dev lo && echo && exec cat"
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        try:
            if not holder.stdout.readline():
                raise RuntimeError("no network namespace for GlusterFS")
            yield holder.pid
        finally:
            _end_all(holder.pid)
            holder.stdin.close()


def _inhabitants(holder: int) -> list[int]:
    network = os.stat(f"/proc/{holder}/ns/net")
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.path.samestat(os.stat(f"/proc/{entry}/ns/net"), network):
                found.append(int(entry))
    return [pid for pid in found if pid != holder]


def _end_all(holder: int) -> None:
    while pids := _inhabitants(holder):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], 10)
                os.close(handle)


def _patiently(*command: str | Path) -> None:
    """A command that fails until the daemon behind it has come up."""
    until = time.monotonic() + READY_SECONDS
    while True:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode == 0:
            return
        if time.monotonic() > until:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        time.sleep(0.2)


@contextlib.contextmanager
def gluster(
    base: Path, disks: tuple[Path, Path], volumes: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[str, Path]]:
    """Volumes with two copies each, by name with their options; yields where they are mounted."""
    home = base / "glusterd"
    for name in ("work", "run", "log"):
        (home / name).mkdir(parents=True)
    configuration = home / "glusterd.vol"
    configuration.write_text(DAEMON.format(home=home), encoding="utf-8")
    SOCKETS.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        tmpfs = ("mount", "-t", "tmpfs", "tmpfs", SOCKETS)
        stack.enter_context(mounted(SOCKETS, *tmpfs))
        inside = ("nsenter", f"--net=/proc/{stack.enter_context(_namespace())}/ns/net", "--")
        run(*inside, "glusterd", "-f", configuration, "-p", home / "pid", "-l", home / "log/main")
        ask = (*inside, "gluster", f"--glusterd-sock={home}/run/glusterd.sock",
               f"--log-file={home}/log/cli", "--mode=script")  # fmt: skip
        _patiently(*ask, "volume", "list")
        points = {}
        for name, options in volumes.items():
            bricks = [f"{ADDRESS}:{point / name}" for point in disks]
            run(*ask, "volume", "create", name, "replica", "2", *bricks, "force")
            for option, value in options.items():
                run(*ask, "volume", "set", name, option, value)
            run(*ask, "volume", "start", name)
            points[name] = base / f"mount-{name}"
            points[name].mkdir()
            log = f"log-file={home}/log/{name}"
            command = ("mount", "-t", "glusterfs", "-o", log, f"{ADDRESS}:/{name}", points[name])
            stack.enter_context(mounted(points[name], *inside, *command))
            run("chmod", "755", points[name])
        yield points
