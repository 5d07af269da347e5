# SPDX-License-Identifier: Apache-2.0
"""Where `mount.haoperator` hands over descriptors: a socket in /run, for root alone."""

from __future__ import annotations

import array
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

Mounted = Callable[[str, str, int, int], None]
"""(name, path, /dev/fuse, directory below); takes the descriptors over, or raises."""

MOST_HEADER = 8192
SECONDS = 5.0


class Reception:
    """Serves the socket in a thread of its own."""

    def __init__(self, path: Path, mounted: Mounted) -> None:
        self._mounted = mounted
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        former = os.umask(0o177)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(former)
        self._socket.listen(8)

    def start(self) -> None:
        threading.Thread(target=self._serve, name="reception", daemon=True).start()

    def _serve(self) -> None:
        while True:
            sock, _ = self._socket.accept()
            with sock:
                sock.settimeout(SECONDS)
                try:
                    answer = self._receive(sock)
                    sock.sendall(answer.encode(errors="backslashreplace") + b"\n")
                except OSError as err:
                    log.warning("mount helper: %s", err)

    def _receive(self, sock: socket.socket) -> str:
        descriptors = array.array("i")
        header, ancillary, _, _ = sock.recvmsg(MOST_HEADER, socket.CMSG_SPACE(2 * 4))
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        try:
            said = json.loads(header)
            fuse_fd, root_fd = descriptors
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            self._mounted(said["name"], said["path"], fuse_fd, root_fd)
        except Exception as err:
            for descriptor in descriptors:
                os.close(descriptor)
            log.error("a mount was not taken over: %s", err)
            return str(err) or type(err).__name__
        return "ok"
