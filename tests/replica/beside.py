# SPDX-License-Identifier: Apache-2.0
"""The same done twice: on the primary's mount, and in a plain directory of the file system below.

Results and errors must be the same, so must be the trees afterwards, and the standby's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.replica.pair import Pair
from tests.replica.trees import assert_equal_trees, differences, tree_of

Result = TypeVar("Result")
MOST_SECONDS = 30


@dataclass(frozen=True, slots=True)
class User:
    """Who does something: a process with these ids, and no capability unless it is root."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ROOT = User(0, 0)
ALICE = User(21_001, 21_001, (21_100, 21_200))
BOB = User(21_002, 21_002, (21_100,))
CAROL = User(21_003, 21_003)
TEAM, STAFF = 21_100, 21_200


class Beside:
    """A directory on the mount, and its plain double."""

    def __init__(self, mounted: Path, plain: Path) -> None:
        self.mounted = mounted
        self.plain = plain

    def same(self, action: Callable[[Path], Result], user: User = ROOT) -> Result:
        """Carry `action` out in both, and return what both gave. It runs in a child."""
        expected = in_child(action, self.plain, user)
        found = in_child(action, self.mounted, user)
        assert found == expected, f"mount: {found!r}\nplain: {expected!r}"
        return found

    def assert_same_trees(self) -> None:
        """Owners, modes, contents, xattrs and links are the same on both."""
        found = differences(tree_of(self.mounted, times=False), tree_of(self.plain, times=False))
        assert not found, "mount and plain directory differ:\n" + "\n".join(found)


@contextlib.contextmanager
def beside(pair: Pair, base: Path, name: str) -> Iterator[Beside]:
    """Two empty directories; at the end all three trees are compared."""
    two = Beside(pair.a.path / name, base / f"plain-{name}")
    for root in (two.mounted, two.plain):
        root.mkdir()
        root.chmod(0o777)
        for above in root.parents:
            if not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o011)
    yield two
    two.assert_same_trees()
    assert_equal_trees(pair.a.backing, pair.b.backing)
    assert (pair.a.stream, pair.b.stream) == ("synced", "synced")


def failure(action: Callable[..., object], *arguments: object, **keywords: object) -> str:
    """The name of the error that a call fails with, or `""`."""
    try:
        action(*arguments, **keywords)
    except OSError as err:
        return errno.errorcode[err.errno or 0]
    return ""


def try_open(name: str, flags: int, mode: int = 0o777) -> None:
    """Open and close. Raises OSError."""
    os.close(os.open(name, flags, mode))


def in_child(action: Callable[[Path], Result], root: Path, user: User = ROOT) -> Result:
    """What `action` returns in a process of `user` that works in `root`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(action, root, user, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    assert answer, f"{root}: the child ended with {status:#x}"
    result, problem = pickle.loads(answer)
    assert not problem, f"{root}:\n{problem}"
    returned: Result = result
    return returned


def _work(action: Callable[[Path], object], root: Path, user: User, writing: int) -> None:
    answer: tuple[Any, str] = (None, "")
    try:
        signal.alarm(MOST_SECONDS)
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        os.umask(0o022)
        os.chdir(root)
        answer = (action(root), "")
    except BaseException:
        answer = (None, traceback.format_exc())
    finally:
        with contextlib.suppress(BaseException):
            os.write(writing, pickle.dumps(answer))
        os._exit(0)
