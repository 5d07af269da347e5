# SPDX-License-Identifier: Apache-2.0
"""Does a command succeed, and what does systemd say of a unit?"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

from haoperator.checkers.promise import Answer

OUTPUT_BYTES = 2000
SHOWN_CHARACTERS = 200


def succeeds(target: str, timeout: float) -> Answer:
    """The command line exits with 0. No shell is involved."""
    import shlex

    words = shlex.split(target)
    code, said = run(words, timeout)
    if code == 0:
        return Answer(True, f"{words[0]} succeeds")
    if code is None:
        return Answer(False, f"{words[0]}: {said or f'not done within {timeout:g} s'}")
    how = f"exit code {code}" if code > 0 else f"signal {-code}"
    return Answer(False, f"{words[0]}: {how}" + (f": {said}" if said else ""))


def unit(target: str, timeout: float) -> Answer:
    """The unit is active; one that is still starting or stopping is not."""
    code, said = run(["/usr/bin/systemctl", "is-active", "--", target], timeout)
    if code is None:
        return Answer(False, f"{target}: {said or f'systemd says nothing within {timeout:g} s'}")
    return Answer(code == 0, f"{target} is {said.splitlines()[0] if said else 'unknown'}")


def run(words: list[str], timeout: float) -> tuple[int | None, str]:
    """Exit code, below 0 for a signal, and the end of what it said. None for a command that
    could not be started or was not done in time. What is left of it is killed afterwards."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, write, 1),
            (os.POSIX_SPAWN_DUP2, write, 2),
        ]
        pid = os.posix_spawn(
            words[0],
            words,
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )
    except OSError as err:
        os.close(read)
        return None, err.strerror or "cannot be started"
    finally:
        os.close(write)
    try:
        output, in_time = _watch(pid, read, timeout)
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not in_time:
        return None, ""
    return code, output.decode(errors="replace").strip()[-SHOWN_CHARACTERS:]


def _watch(pid: int, pipe: int, timeout: float) -> tuple[bytes, bool]:
    """What the process wrote last, and whether it ended within `timeout`."""
    output = b""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(pipe, select.POLLIN)
        deadline = time.monotonic() + timeout
        while True:
            ready = {fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
            if pipe in ready:
                data = _read(pipe)
                output = (output + data)[-OUTPUT_BYTES:]
                if not data:
                    poll.unregister(pipe)
            if pidfd in ready:
                return (output + _read(pipe))[-OUTPUT_BYTES:], True
            if time.monotonic() >= deadline:
                return output, False
    finally:
        os.close(pidfd)


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, OUTPUT_BYTES)
    except BlockingIOError:
        return b""
