# SPDX-License-Identifier: Apache-2.0
"""The one secret that the two nodes share, and the keys that derive from it.

The file holds 64 hexadecimal digits and a newline, belongs to root and is
readable by nobody else. No key is used for two purposes: every part derives its
own (`derive(secret, "heartbeat")`).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import stat
from pathlib import Path

PATH = Path("/etc/haoperator/cluster.key")
SECRET_BYTES = 32

_TEXT = re.compile(rb"[0-9a-f]{64}\n", re.IGNORECASE)
_SALT = b"org.haoperator1"


class SecretError(Exception):
    """The secret cannot be used. `hint` is the way out."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.message = message
        self.hint = hint


def read(path: Path = PATH, owner: int = 0) -> bytes:
    """The 32 secret bytes. Raises SecretError if the file is missing, unsafe or malformed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise SecretError(
            f"{path}: there is no such file",
            "make it with 'hactl keygen' on one node and copy it to the other",
        ) from None
    except OSError as err:
        raise SecretError(
            f"{path}: cannot be read: {err.strerror}", "it must be a plain file that root can read"
        ) from err
    with open(descriptor, "rb") as file:
        # The checks are on the open file, so that it cannot be exchanged in between.
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise SecretError(f"{path}: is not a plain file", "remove it and run 'hactl keygen'")
        if state.st_uid != owner:
            raise SecretError(
                f"{path}: belongs to uid {state.st_uid}, expected {owner}",
                f"run 'chown {owner} {path}' if you trust its content",
            )
        if mode := stat.S_IMODE(state.st_mode) & 0o177:
            raise SecretError(
                f"{path}: mode {stat.S_IMODE(state.st_mode):04o} lets others in"
                if mode & 0o077
                else f"{path}: mode {stat.S_IMODE(state.st_mode):04o}, expected 0600",
                f"run 'chmod 0600 {path}' and, if others could read it, make a new one",
            )
        text = file.read(SECRET_BYTES * 2 + 2)
    if not _TEXT.fullmatch(text):
        raise SecretError(
            f"{path}: expected {SECRET_BYTES * 2} hexadecimal digits and a newline, nothing else",
            "copy it again from the other node, or make a new one for both with 'hactl keygen'",
        )
    return bytes.fromhex(text.decode("ascii"))


def generate(path: Path = PATH) -> None:
    """Make a new secret. It appears whole and durable, or not at all.

    Never replaces one: raises SecretError if the file exists.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = os.urandom(SECRET_BYTES).hex().encode("ascii") + b"\n"
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, stat.S_IRUSR
        )
        try:
            os.fchmod(descriptor, 0o600)
            os.write(descriptor, text)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(temporary, path)
        _sync_directory(path.parent)
    except FileExistsError:
        raise SecretError(
            f"{path}: exists already",
            "both nodes must have the same; remove it first if you really want a new one",
        ) from None
    except OSError as err:
        raise SecretError(
            f"{path}: cannot be made: {err.strerror}",
            f"{path.parent} must exist and you must be root",
        ) from err
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def derive(secret: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose: HKDF-SHA256 (RFC 5869) with `purpose` as its info."""
    pseudorandom = hmac.digest(_SALT, secret, hashlib.sha256)
    return hmac.digest(pseudorandom, purpose.encode() + b"\x01", hashlib.sha256)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
