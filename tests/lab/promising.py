# SPDX-License-Identifier: Apache-2.0
"""A writer that says what fsync has promised it. Sent to a node's python3 as it is.

    write ROOT    writes below ROOT until its input ends, and says each promise on a line
                  of its own *after* the call that made it has returned
    check ROOT    reads such lines, and prints what of them is not kept, a line each

Every content follows from a name and a number, so that nothing but the lines has to
be remembered. The promises, one thread each:

    log N         record N was appended, and fsynced
    file N        a file was written, fsynced, renamed into place, its directory fsynced
    gone N        it was removed again, and the directory fsynced
    replace N     one name got its Nth content by a rename; there is never half of it
    block I N     8 KiB in the middle of a file, fdatasynced
    page I N      4 KiB of a shared mapping, msynced

One more thread changes all sorts of things and asks for no promise. A line `error …`
says what the kernel answered instead; the writer ends then.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator

BLOCK, BLOCKS = 8192, 64
PAGE, PAGES = 4096, 64
KEPT = 40
"""Files that are there at a time; the oldest is removed when one is added."""
CHANCE = (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP)
"""What may be wrong with names that are there by chance, as symlinks or not at all."""
stopping = threading.Event()


def content(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def sized(name: str, most: int) -> bytes:
    """Content whose size follows from the name too."""
    return content(name, random.Random(f"size of {name}").randint(1, most))


def numbered(name: str, number: int, size: int) -> bytes:
    """Content that tells its number in its first eight bytes."""
    return number.to_bytes(8, "big") + content(f"{name} {number}", size - 8)


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def put(path: str, data: bytes, flags: int = 0) -> None:
    """Writes a file and fsyncs it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def numbers() -> Iterator[int]:
    """1, 2, 3, … until the writer is to stop."""
    number = 0
    while not stopping.is_set():
        number += 1
        yield number


def append_to_log(root: str) -> None:
    for number in numbers():
        put(f"{root}/log", sized(f"log {number}", 3000), os.O_APPEND)
        say("log", number)


def come_and_go(root: str) -> None:
    directory = f"{root}/files"
    for number in numbers():
        put(f"{directory}/.new", sized(f"file {number}", 20_000), os.O_TRUNC)
        os.rename(f"{directory}/.new", f"{directory}/{number}")
        sync_directory(directory)
        say("file", number)
        if number > KEPT:
            os.unlink(f"{directory}/{number - KEPT}")
            sync_directory(directory)
            say("gone", number - KEPT)


def replace(root: str) -> None:
    directory = f"{root}/replaced"
    for number in numbers():
        size = random.Random(number).randint(8, 9000)
        put(f"{directory}/new", numbered("replace", number, size), os.O_TRUNC)
        os.rename(f"{directory}/new", f"{directory}/it")
        sync_directory(directory)
        say("replace", number)


def overwrite_blocks(root: str) -> None:
    fd = os.open(f"{root}/blocks", os.O_WRONLY)
    for number in numbers():
        at = random.randrange(BLOCKS)
        os.pwrite(fd, numbered(f"block {at}", number, BLOCK), at * BLOCK)
        os.fdatasync(fd)
        say("block", at, number)


def overwrite_pages(root: str) -> None:
    fd = os.open(f"{root}/pages", os.O_RDWR)
    with mmap.mmap(fd, PAGES * PAGE) as pages:
        for number in numbers():
            at = random.randrange(PAGES)
            pages[at * PAGE : (at + 1) * PAGE] = numbered(f"page {at}", number, PAGE)
            pages.flush(at * PAGE, PAGE)
            say("page", at, number)


def make_noise(root: str) -> None:
    directory = f"{root}/noise"
    names = [f"{directory}/{i}" for i in range(40)]
    for _ in numbers():
        one, two = random.sample(names, 2)
        try:
            random.choice(NOISES)(one, two)
        except OSError as err:
            if err.errno not in CHANCE:
                raise
        time.sleep(0.004)


def scribble(one: str, two: str) -> None:
    fd = os.open(one, os.O_WRONLY | os.O_CREAT)
    os.pwrite(fd, random.randbytes(random.randint(1, 30_000)), random.randint(0, 200_000))
    os.close(fd)


def give_an_attribute(one: str, two: str) -> None:
    os.setxattr(one, f"user.{random.randint(0, 3)}", random.randbytes(random.randint(1, 60)))


def make_subdirectory(one: str, two: str) -> None:
    os.makedirs(f"{os.path.dirname(one)}/below/{os.path.basename(one)}", exist_ok=True)
    os.rename(two, f"{os.path.dirname(one)}/below/{os.path.basename(one)}/it")


def remove_subdirectory(one: str, two: str) -> None:
    shutil.rmtree(f"{os.path.dirname(one)}/below/{os.path.basename(one)}")


NOISES: tuple[Callable[[str, str], object], ...] = (
    *(scribble, scribble, give_an_attribute, make_subdirectory, remove_subdirectory),
    lambda one, two: os.rename(one, two),
    lambda one, two: os.link(one, two),
    lambda one, two: os.symlink(two, one),
    lambda one, two: os.unlink(one),
    lambda one, two: os.truncate(one, random.randint(0, 100_000)),
    lambda one, two: os.chmod(one, random.randint(0o400, 0o777)),
    lambda one, two: os.chown(one, random.randint(0, 2000), random.randint(0, 2000)),
    lambda one, two: os.utime(one, ns=(random.getrandbits(60), random.getrandbits(60))),
)
THREADS = (append_to_log, come_and_go, replace, overwrite_blocks, overwrite_pages, make_noise)


def write(root: str) -> None:
    """Begins anew in `root`, and goes on until the input ends."""
    for directory in ("files", "replaced", "noise"):
        os.makedirs(f"{root}/{directory}")
    put(f"{root}/blocks", bytes(BLOCK * BLOCKS))
    put(f"{root}/pages", bytes(PAGE * PAGES))
    put(f"{root}/log", b"")
    path = f"{root}/files"
    while (path := os.path.dirname(path)) != "/":
        sync_directory(path)

    def guarded(work: Callable[[str], None]) -> None:
        try:
            work(root)
        except OSError as err:
            say("error", work.__name__, err)
            stopping.set()

    threads = [threading.Thread(target=guarded, args=(work,)) for work in THREADS]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stopping.set()
    for thread in threads:
        thread.join()


class Promised:
    """What the lines say, taken together: the newest promise of each place."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.newest = dict.fromkeys(("log", "file", "gone", "replace"), 0)
        self.blocks: dict[int, int] = {}
        self.pages: dict[int, int] = {}
        for line in lines:
            match line.split():
                case ["block", at, number]:
                    self.blocks[int(at)] = int(number)
                case ["page", at, number]:
                    self.pages[int(at)] = int(number)
                case [kind, number] if kind in self.newest:
                    self.newest[kind] = int(number)


def check(root: str, promised: Promised) -> Iterator[str]:
    """What of the promises is not kept. What was under way may be there or not."""
    yield from check_log(root, promised.newest["log"])
    yield from check_files(root, promised.newest["file"], promised.newest["gone"])
    if newest := promised.newest["replace"]:
        yield from check_replaced(root, newest)
    yield from check_places(root, "block", BLOCK, promised.blocks)
    yield from check_places(root, "page", PAGE, promised.pages)


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as err:
        return str(err).encode()


def check_log(root: str, newest: int) -> Iterator[str]:
    there = read(f"{root}/log") if newest else b""
    at = 0
    for number in range(1, newest + 1):
        record = sized(f"log {number}", 3000)
        if there[at : at + len(record)] != record:
            yield f"log {number} of {newest}: at {at} of {len(there)} bytes is something else"
            return
        at += len(record)
    following = sized(f"log {newest + 1}", 3000)
    if len(there) - at > len(following):
        yield f"log: {len(there) - at} bytes behind what was asked for"


def check_files(root: str, newest: int, gone: int) -> Iterator[str]:
    going = newest - gone > KEPT  # the next to be removed may be gone already
    for number in range(gone + 1 + going, newest + 1):
        there, wanted = read(f"{root}/files/{number}"), sized(f"file {number}", 20_000)
        if there != wanted:
            yield f"file {number} of {gone + 1}–{newest}: {len(there)} bytes {there[:60]!r}"
    for number in range(1, gone + 1):
        if os.path.lexists(f"{root}/files/{number}"):
            yield f"gone {number} of {gone}: it is there"


def check_replaced(root: str, newest: int) -> Iterator[str]:
    there = read(f"{root}/replaced/it")
    number = int.from_bytes(there[:8], "big")
    if not newest <= number <= newest + 1:
        yield f"replace {newest}: what is there has number {number} ({there[:60]!r})"
    elif there != numbered("replace", number, len(there)):
        yield f"replace {newest}: number {number} is not whole"


def check_places(root: str, kind: str, size: int, newest: dict[int, int]) -> Iterator[str]:
    """The place that was being written when all ended may hold anything; so one may be wrong,
    if it tells the number that came after all promised ones, or is a mixture."""
    there = read(f"{root}/{kind}s") if newest else b""
    wrong = []
    for at, number in sorted(newest.items()):
        found = there[at * size : (at + 1) * size]
        if found != numbered(f"{kind} {at}", number, size):
            told = int.from_bytes(found[:8], "big")
            wrong.append((at, number, told))
    under_way = max(newest.values(), default=0) + 1
    if len(wrong) > 1 or any(told not in (number, under_way) for _, number, told in wrong):
        for at, number, told in wrong:
            yield f"{kind} {at} {number}: what is there tells {told}; {under_way} was under way"


def main() -> None:
    match sys.argv[1:]:
        case ["write", root]:
            write(root)
        case ["check", root]:
            print("\n".join(check(root, Promised(iter(sys.stdin)))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
