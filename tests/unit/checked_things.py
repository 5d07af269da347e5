# SPDX-License-Identifier: Apache-2.0
"""Real things that a checker can look at: each can be well, failed, and hanging."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.unit.fake_docker import Engine, Server
from tests.unit.private_host import PrivateHost, until

PORT = 7777
SERVER = f"""
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nall is well")
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(("127.0.0.1", {PORT}), Handler).serve_forever()
"""
UNANSWERED_MOUNT = """
import ctypes, os, sys, time
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"silent", sys.argv[1].encode(), b"fuse", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
time.sleep(1000)
"""
POSTGRES = Path("/usr/lib/postgresql/15/bin")
REDIS = "/usr/bin/redis-check-rdb"
"""Debian ships one binary that looks at its name to know what it is; this one is in
redis-tools, which starts no service."""
SIZE = 1 << 20


def dropping(packets: str) -> str:
    """Commands of nft that let such packets get lost."""
    chain = "add chain inet t c { type filter hook input priority 0; }"
    return f"add table inet t; {chain}; add rule inet t c {packets} drop"


class Thing(Protocol):
    """`hang` may be missing: what asks the kernel alone is answered at once."""

    kind: str
    target: str
    options: dict[str, str]

    def well(self) -> None: ...
    def fail(self) -> None: ...


class Program:
    """A process in the host: it dies, and is started again."""

    def __init__(self, host: PrivateHost, kind: str, target: str, *command: str) -> None:
        self.host, self.kind, self.target = host, kind, target
        self.options: dict[str, str] = {}
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._hangs = False

    def well(self) -> None:
        if self._hangs:
            self._signal(signal.SIGCONT)
        elif self._process is None:
            self._process = subprocess.Popen(
                self.host.command(*self._command),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._hangs = False

    def fail(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._process = None
        self._hangs = False

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)


class Daemon(Program):
    """It hangs when it is stopped by a signal."""

    def hang(self) -> None:
        self._signal(signal.SIGSTOP)
        self._hangs = True


class Port(Program):
    """A port on which packets are dropped where it hangs: a stopped process still accepts."""

    def hang(self) -> None:
        self.host.run("nft", dropping(f"tcp dport {PORT}"))
        self._hangs = True

    def well(self) -> None:
        if self._hangs:
            self.host.run("nft", "flush", "ruleset")
            self._hangs = False
        else:
            super().well()


class Commands:
    """Whatever commands in the host make well and let fail."""

    def __init__(
        self, host: PrivateHost, kind: str, target: str, well: str, fail: str, **options: str
    ) -> None:
        self.host, self.kind, self.target, self.options = host, kind, target, options
        self._well, self._fail = well, fail
        self._is_well: bool | None = None

    def well(self) -> None:
        if self._is_well is not True:
            self.host.run("sh", "-ec", self._well)
        self._is_well = True

    def fail(self) -> None:
        if self._is_well is not False:
            self.host.run("sh", "-ec", self._fail)
        self._is_well = False


class Address(Commands):
    """An address that hangs where its answers get lost."""

    _hangs = False

    def hang(self) -> None:
        self.host.run("nft", dropping("icmp type echo-request"))
        self._hangs = True

    def well(self) -> None:
        if self._hangs:
            self.host.run("nft", "flush", "ruleset")
            self._hangs = False
        super().well()


class Directory(Commands):
    """A directory that hangs where a FUSE file system is mounted that nobody serves."""

    _silent: subprocess.Popen[str] | None = None

    def hang(self) -> None:
        command = self.host.command(sys.executable, "-c", UNANSWERED_MOUNT, self.target)
        self._silent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._silent.stdout is not None
        assert self._silent.stdout.readline() == "mounted\n"

    def well(self) -> None:
        if self._silent is not None:
            self._silent.kill()
            self._silent.communicate()
            self._silent = None
            self.host.run("umount", "-l", self.target)
        super().well()


class Flags:
    """A command that looks at two files."""

    kind = "exec"

    def __init__(self, where: Path) -> None:
        self._well, self._slow = where / "well", where / "slow"
        self.target = f"/bin/sh -c 'test ! -e {self._slow} || sleep 100; test -e {self._well}'"
        self.options: dict[str, str] = {}

    def well(self) -> None:
        self._slow.unlink(missing_ok=True)
        self._well.touch()

    def fail(self) -> None:
        self._well.unlink(missing_ok=True)

    def hang(self) -> None:
        self._slow.touch()


class Dockerd:
    """Of tests/unit/fake_docker.py; the real one is in the lab."""

    kind, target = "docker", ""

    def __init__(self, server: Server) -> None:
        self.engine: Engine = server.engine
        self.options: dict[str, str] = {}

    def well(self) -> None:
        self.engine.stuck = self.engine.broken = False

    def fail(self) -> None:
        self.engine.broken = True

    def hang(self) -> None:
        self.engine.stuck = True


class Contained:
    """A container that turns unhealthy. It lives on while dockerd is away."""

    kind, target = "container", "shop"

    def __init__(self, server: Server) -> None:
        self.engine = server.engine
        self.options: dict[str, str] = {}
        self.container = server.container("shop")
        self.container.start()

    def well(self) -> None:
        self.container.health = "healthy"

    def fail(self) -> None:
        self.container.health = "unhealthy"


def _redis(host: PrivateHost) -> Daemon:
    arguments = f"--port {PORT} --bind 127.0.0.1 --save '' --requirepass secret"
    shell = f"exec -a redis-server {REDIS} {arguments}"
    return Daemon(host, "redis", f"127.0.0.1:{PORT}", "bash", "-c", shell)


def _postgresql(host: PrivateHost) -> Daemon:
    as_user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    host.run("install", "-d", "-o", "postgres", "/run/pg")
    host.run(
        *as_user,
        str(POSTGRES / "initdb"),
        "--no-sync",
        "-D",
        "/run/pg/data",
        "-A",
        "md5",
        "--pwfile=/etc/hostname",
    )
    settings = ("-c", "fsync=off", "-c", "unix_socket_directories=/run/pg", "-p", str(PORT))
    command = (*as_user, str(POSTGRES / "postgres"), "-D", "/run/pg/data", *settings)
    return Daemon(host, "postgresql", f"127.0.0.1:{PORT}", *command)


def mariadb(host: PrivateHost, address: str) -> Daemon:
    """Blocks whoever goes away three times without a word."""
    place = ("--no-defaults", "--user=root", "--datadir=/run/my")
    host.run("mkdir", "/run/my")
    # The script that does this wants the client's programs, and they many others.
    tables = "; ".join(
        f"cat /usr/share/mysql/mysql_system_tables{part}.sql" for part in ("", "_data")
    )
    somebody = "insert into global_priv values ('%', 'somebody', '{}');"
    sql = f"echo 'create database mysql;'; echo 'use mysql;'; {tables}; echo \"{somebody}\""
    host.run("sh", "-c", f"({sql}) | mariadbd {' '.join(place)} --bootstrap")
    settings = ("--socket=/run/my.sock", f"--port={PORT}", "--max-connect-errors=3")
    command = ("mariadbd", *place, *settings, "--innodb-flush-log-at-trx-commit=0")
    return Daemon(host, "mysql", f"{address}:{PORT}", *command)


@contextmanager
def thing(name: str, host: PrivateHost, where: Path) -> Iterator[Thing]:
    """Something to look at, which fails at first."""
    server: Server | None = None
    made: Thing
    fill = f"head -c {SIZE} /dev/zero >/run/disk/full || true"
    tmpfs = f"mount -t tmpfs -o size={SIZE} tmpfs /run/disk"
    vip = "10.9.9.9/24"
    host.run("mkdir", "-p", "/run/disk")
    match name:
        case "tcp":
            made = Port(host, "tcp", f"127.0.0.1:{PORT}", sys.executable, "-c", SERVER)
        case "http":
            url = f"http://127.0.0.1:{PORT}/"
            made = Daemon(host, "http", url, sys.executable, "-c", SERVER)
            made.options = {"body": "all is well", "status": "200"}
        case "exec":
            made = Flags(where)
        case "process":
            own = shutil.copy("/usr/bin/sleep", where / "its-own-sleep")
            made = Program(host, "process", str(own), str(own), "1000")
        case "ping":
            well, fail = f"ip address add {vip} dev lo", f"ip address flush to {vip} dev lo"
            made = Address(host, "ping", "10.9.9.9", well, fail)
        case "link":
            host.run("ip", "link", "add", "v0", "up", "type", "veth", "peer", "name", "v1")
            made = Commands(host, "link", "v0", "ip link set v1 up", "ip link set v1 down")
        case "vip":
            well, fail = f"ip address add {vip} dev lo", f"ip address flush to {vip} dev lo"
            made = Commands(host, "vip", vip, well, fail, interface="lo")
        case "disk":
            host.run("sh", "-c", tmpfs)
            made = Directory(host, "disk", "/run/disk", "rm -f /run/disk/full", fill, free="10%")
        case "mount":
            made = Directory(
                host, "mount", "/run/disk", tmpfs, "! mountpoint -q /run/disk || umount /run/disk"
            )
        case "docker" | "container":
            server = Server(where / "docker.sock", Engine())
            host.run("ln", "-s", str(where / "docker.sock"), "/run/docker.sock")
            made = Dockerd(server) if name == "docker" else Contained(server)
        case "redis":
            made = _redis(host)
        case "postgresql":
            made = _postgresql(host)
        case "mysql":
            made = mariadb(host, "127.0.0.1")
        case _:
            raise AssertionError(name)
    try:
        made.fail()
        yield made
    finally:
        if isinstance(made, Program | Directory):
            made.well()
            made.fail()
        if server is not None:
            server.end()


def listens(host: PrivateHost) -> None:
    """Returns when something listens on the port."""
    until(lambda: f":{PORT} " in host.run("ss", "-Hltn"), "nobody listens")
