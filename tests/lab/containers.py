# SPDX-License-Identifier: Apache-2.0
"""Container images for the nodes, made without a registry.

They are written in the format that `docker save` writes, with fixed times and a
fixed order, and brought in with `docker load`: an image imported twice with
`docker import` would get two different ids, and the standby could not show that
it has what the primary runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .command import run
from .lock import locked

REDIS = "redis-demo:1"
WEB = "web:1"
EPOCH = "2023-06-10T00:00:00Z"
BUSYBOX = ("sh", "cat", "echo", "httpd", "id", "ls", "sleep", "wget", "sync", "touch", "kill")


def provide(cache: Path, base: Path) -> dict[str, Path]:
    """Image name → archive for `docker load`, made now if it is not there yet."""
    archives = {
        REDIS: cache / f"redis-{base.name.removeprefix('base-')}.tar",
        WEB: cache / f"web-{base.name.removeprefix('base-')}.tar",
    }
    with locked(cache / "containers.lock"):
        if not archives[REDIS].exists():
            pack(archives[REDIS], REDIS, redis_files(base), ["redis-server"])
        if not archives[WEB].exists():
            web = busybox_files(base) | {"www/index.html": b"hello from the lab\n"}
            pack(archives[WEB], WEB, web, ["httpd", "-f", "-p", "80", "-h", "/www"])
        for old in (*cache.glob("redis-*.tar"), *cache.glob("web-*.tar")):
            if old not in archives.values():
                old.unlink()
    return archives


def busybox_files(base: Path) -> dict[str, Path | bytes | str]:
    """Path in the image → a file to copy, its content, or (str) a symlink's target."""
    files: dict[str, Path | bytes | str] = {"bin/busybox": base / "bin/busybox"}
    files |= {f"bin/{name}": "busybox" for name in BUSYBOX}
    files["etc/passwd"] = b"root:x:0:0:root:/:/bin/sh\nredis:x:999:999::/data:/bin/sh\n"
    files["etc/group"] = b"root:x:0:\nredis:x:999:\n"
    return files


def redis_files(base: Path) -> dict[str, Path | bytes | str]:
    """Debian's redis-server and the libraries that it is linked with."""
    files = busybox_files(base)
    # Debian ships one binary that looks at its name to know what it is.
    files["usr/bin/redis-server"] = base / "usr/bin/redis-check-rdb"
    for line in run("chroot", base, "ldd", "/usr/bin/redis-check-rdb").stdout.splitlines():
        wanted, _, found = line.strip().partition(" => ")
        library = (found or wanted).split()[0]
        if library.startswith("/"):
            real = run("chroot", base, "readlink", "--canonicalize", library).stdout.strip()
            files[library.lstrip("/")] = base / real.lstrip("/")
    return files


def pack(
    archive: Path,
    name: str,
    files: Mapping[str, Path | bytes | str],
    command: list[str],
    environment: Sequence[str] = ("PATH=/usr/bin:/bin",),
    stop_signal: str = "SIGTERM",
) -> None:
    """Writes `archive`, an image `name` of one layer; equal input gives equal bytes."""
    layer = layer_of(files)
    config = json.dumps(
        {
            "architecture": run("dpkg", "--print-architecture").stdout.strip(),
            "os": "linux",
            "created": EPOCH,
            "config": {
                "Cmd": command,
                "Env": list(environment),
                "StopSignal": stop_signal,
                "WorkingDir": "/",
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
            "history": [{"created": EPOCH, "created_by": "haoperator lab"}],
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer/layer.tar"]}]
    temporary = archive.with_suffix(f".{os.getpid()}")
    with tarfile.open(temporary, "w") as tar:
        add(tar, config_name, config)
        add(tar, "layer/layer.tar", layer)
        add(tar, "manifest.json", json.dumps(manifest).encode())
    temporary.rename(archive)


def layer_of(files: Mapping[str, Path | bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        directories = {str(p) for path in files for p in Path(path).parents} | {"data", "tmp"}
        for directory in sorted(directories - {"."}):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for path, content in sorted(files.items()):
            if isinstance(content, str):
                member = tarfile.TarInfo(path)
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                data = content if isinstance(content, bytes) else content.read_bytes()
                add(tar, path, data, 0o755 if isinstance(content, Path) else 0o644)
    return buffer.getvalue()


def add(tar: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))
