# SPDX-License-Identifier: Apache-2.0
"""Two diverged copies: nothing is overwritten until one yields, and then it is kept aside first."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haoperator.replica import branch
from haoperator.replica.branch import Branch, NotKept, copy_content
from haoperator.replica.manifest import About, Entry, What, entries
from tests.replica.images import MIB, Disk, fill
from tests.replica.pair import Node, Pair, wait_for
from tests.replica.spawner import Spawner
from tests.replica.test_roles import fresh
from tests.replica.test_snapshot import run
from tests.replica.trees import Tree, assert_equal_trees, tree_of

Write = Callable[[Path], None]


def kept_place(node: Node) -> Path:
    return node.path.parent / ".haoperator-data-splitbrain"


def branch_of(node: Node) -> Path:
    """The one branch that this node keeps, once it was compared with the data that won."""
    place = kept_place(node)

    def compared() -> list[Path]:
        done = [each for each in place.glob("*") if (each / "differences").exists()]
        return [each for each in done if not (each / "manifest").exists()]

    wait_for(compared, "the branch is compared")
    (one,) = place.iterdir()
    return one


def diverge(pair: Pair, on_a: Write, on_b: Write) -> Tree:
    """a and b hold the same; each loses sight of the other and writes alone. Returns b's tree."""
    a, b = pair.a, pair.b
    a.power_cut()
    b.wait_stream("lost", "disconnected")
    b.begin()
    on_b(b.path)
    b.power_cut()
    a.boot()
    a.begin()
    on_a(a.path)
    b.boot()
    wait_for(lambda: "diverged" in a.state["refusal"], "a is refused")
    return tree_of(b.backing)


def give_way(pair: Pair) -> None:
    pair.b.call("yield_branch", to=pair.a.record["generation"])


def settle(pair: Pair, seconds: float = 40.0) -> None:
    pair.a.wait_stream("synced", seconds=seconds)
    pair.b.wait_stream("synced", seconds=seconds)


def assert_kept(before: Tree, node: Node) -> list[Entry]:
    """What was in `before` is in the tree now, or kept; and no more is kept than differs."""
    place = branch_of(node)
    listed = {os.fsdecode(each.path): each for each in entries(place / "differences")}
    now = tree_of(node.backing)
    for path, was in before.items():
        kept = listed.get(path)
        if kept is None:
            assert path in now, f"{path} is lost"
            assert comparable(now[path]) == comparable(was), f"{path} was overwritten"
            continue
        assert comparable(was) == comparable(of_entry(place, kept, now)), path
        if kept.what is What.ONLY_KEPT:
            assert path not in now
        else:
            assert comparable(now[path]) != comparable(was), f"{path} is kept for nothing"
    for path in now.keys() - before.keys():
        above = [str(each) for each in [Path(path), *Path(path).parents]]
        marked = [listed[each].what for each in above if each in listed]
        assert What.ONLY_LIVE in marked, f"{path} was not there, and nothing says so"
    assert all(each.what is not What.UNCOMPARED for each in listed.values())
    assert not list((place / "files").glob("*.new"))
    return list(listed.values())


def comparable(of: tuple[object, ...]) -> tuple[object, ...]:
    """Without hard links, and without the time of a directory."""
    return of[:6] if of[0] == stat.S_IFDIR else of[:7]


def of_entry(place: Path, entry: Entry, now: Tree) -> tuple[object, ...]:
    content: object = None
    if entry.what is What.ATTRIBUTES:
        content = now[os.fsdecode(entry.path)][4]
    elif entry.regular:
        data = (place / "files" / str(entry.inode)).read_bytes()
        content = (len(data), hashlib.sha256(data).hexdigest())
    elif stat.S_ISLNK(entry.mode):
        content = os.fsdecode(entry.target)
    elif entry.kind in (stat.S_IFBLK, stat.S_IFCHR):
        content = entry.device
    of = (entry.kind, entry.mode, entry.uid, entry.gid, content, entry.xattrs, entry.mtime_ns)
    return of


def base(root: Path) -> None:
    for name in ("same", "edited", "shortened", "gone", "moved", "mode", "kind", "both"):
        (root / name).write_bytes(os.urandom(200_000))
    os.link(root / "both", root / "both-again")
    (root / "dir" / "below").mkdir(parents=True)
    for number in range(5):
        (root / "dir" / "below" / f"file-{number}").write_bytes(os.urandom(5_000))
    (root / "removed-dir").mkdir()
    (root / "removed-dir" / "file").write_text("in it")
    os.symlink("same", root / "link")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "mode", "user.colour", b"blue")


def write_a(root: Path) -> None:
    with (root / "edited").open("r+b") as file:
        file.seek(70_000)
        file.write(b"of a")
    (root / "gone").unlink()
    (root / "new-on-a").mkdir()
    (root / "new-on-a" / "file").write_text("of a")
    (root / "moved").rename(root / "moved-by-a")
    (root / "kind").unlink()
    (root / "kind").mkdir()
    (root / "dir" / "below" / "file-0").write_text("of a, too")


def write_b(root: Path) -> None:
    with (root / "edited").open("r+b") as file:
        file.write(b"of b")
    os.truncate(root / "shortened", 10)
    (root / "only-on-b").write_bytes(os.urandom(100_000))
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "file").write_text("of b")
    os.chmod(root / "mode", 0o600)
    os.setxattr(root / "mode", "user.colour", b"red")
    (root / "link").unlink()
    os.symlink("elsewhere", root / "link")
    with (root / "both").open("ab") as file:
        file.write(b"and more on b")
    (root / "removed-dir" / "file").unlink()
    (root / "removed-dir").rmdir()
    (root / "fifo").unlink()
    os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    (root / "dir" / "below" / "file-1").unlink()
    (root / "name \udcff of bytes").write_text("strange")


def test_diverged_copies_stay_as_they_are_until_one_yields(pair: Pair) -> None:
    pair.replicate()
    base(pair.a.path)
    before = diverge(pair, write_a, write_b)
    time.sleep(1.5)  # a few attempts
    assert tree_of(pair.b.backing) == before
    assert not kept_place(pair.b).exists()
    assert pair.a.stream == "alone"
    with pytest.raises(RuntimeError, match="is primary"):
        pair.a.call("yield_branch", to=pair.b.record["generation"])
    with pytest.raises(RuntimeError, match="has not diverged"):
        pair.b.call("yield_branch", to=pair.b.record["generation"])


def test_everything_that_differs_is_kept_and_nothing_else(pair: Pair) -> None:
    pair.replicate()
    base(pair.a.path)
    before = diverge(pair, write_a, write_b)
    untouched = os.stat(pair.b.backing / "same").st_ino
    give_way(pair)
    settle(pair)
    assert_equal_trees(pair.a.backing, pair.b.backing)
    assert os.stat(pair.b.backing / "same").st_ino == untouched, "copied for nothing"
    listed = {os.fsdecode(e.path): e.what for e in assert_kept(before, pair.b)}
    assert listed["edited"] is listed["shortened"] is listed["kind"] is What.CONTENT
    assert listed["mode"] is What.ATTRIBUTES
    assert listed["only-on-b"] is listed["gone"] is What.ONLY_KEPT
    assert listed["removed-dir"] is listed["new-on-a"] is What.ONLY_LIVE
    assert "same" not in listed and "new-on-a/file" not in listed
    record = pair.b.record
    assert record["yielded_to"] == "" and record["up_to_date"] and record["consistent"]
    assert record["origins"] == pair.a.record["origins"]
    assert {os.stat(pair.b.backing / name).st_nlink for name in ("same", "edited")} == {1}


def test_yield_counts_for_what_the_winner_begins_later_too(pair: Pair) -> None:
    pair.replicate()
    base(pair.a.path)
    before = diverge(pair, write_a, write_b)
    generation = pair.a.record["generation"]
    pair.a.power_cut()
    pair.b.call("yield_branch", to=generation)
    pair.b.power_cut()
    pair.b.boot()
    assert pair.b.record["yielded_to"] == generation
    pair.a.boot()
    pair.a.begin()
    settle(pair)
    assert_kept(before, pair.b)


def test_branch_that_was_half_taken_when_the_power_went_is_taken_anew(pair: Pair) -> None:
    pair.replicate()
    base(pair.a.path)
    before = diverge(pair, write_a, write_b)
    generation = pair.b.record["generation"]
    for half in (f"{time.strftime('%Y-%m-%d')}-{generation}", f"2020-01-01-{generation}"):
        files = kept_place(pair.b) / half / "files"
        files.mkdir(parents=True)
        inode = os.stat(pair.b.backing / "edited").st_ino
        (files / str(inode)).write_text("not what it was")
    give_way(pair)
    settle(pair)
    wait_for(lambda: len(os.listdir(kept_place(pair.b))) == 1, "the other one goes")
    assert_kept(before, pair.b)


class Writer:
    """The application of the winner, which goes on while the loser is brought up."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stop = threading.Event()
        self.longest = 0.0
        self.writes = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        chance = random.Random(1)
        while not self._stop.wait(0.002):
            began = time.monotonic()
            with (self._root / f"busy-{chance.randrange(4)}").open("ab") as file:
                file.write(os.urandom(chance.randrange(1, 3_000)))
            if chance.random() < 0.1:
                name = f"busy-{chance.randrange(4)}"
                os.rename(self._root / name, self._root / f"{name}-moved") if (
                    self._root / name
                ).exists() else None
            self.writes += 1
            self.longest = max(self.longest, time.monotonic() - began)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_winner_goes_on_writing_meanwhile(pair: Pair) -> None:
    pair.a.settings["resync_rate"] = 4 * MIB
    pair.replicate()
    base(pair.a.path)
    for number in range(4):
        (pair.a.path / f"busy-{number}").write_bytes(os.urandom(100_000))

    def on_b(root: Path) -> None:
        write_b(root)
        for number in range(4):
            (root / f"busy-{number}").write_bytes(os.urandom(300_000))
        (root / "large").write_bytes(os.urandom(8 * MIB))

    def on_a(root: Path) -> None:
        write_a(root)
        (root / "large").write_bytes(os.urandom(8 * MIB))

    before = diverge(pair, on_a, on_b)
    writer = Writer(pair.a.path)
    try:
        give_way(pair)
        pair.a.wait_stream("resync")
        began = writer.writes
        time.sleep(1.0)
        assert pair.a.stream == "resync"
        assert writer.writes > began + 20
    finally:
        writer.stop()
    settle(pair)
    assert_equal_trees(pair.a.backing, pair.b.backing)
    assert_kept(before, pair.b)


def test_large_files_are_copied_beside_the_stream_and_nobody_waits_for_them(pair: Pair) -> None:
    pair.b.settings["large"] = MIB
    pair.b.settings["outdated_seconds"] = pair.a.settings["outdated_seconds"] = 0.2
    pair.replicate()
    for number in range(3):
        (pair.a.path / f"large-{number}").write_bytes(os.urandom(6 * MIB))

    def change(who: bytes) -> Write:
        def write(root: Path) -> None:
            for number in range(3):
                with (root / f"large-{number}").open("r+b") as file:
                    file.seek(number * MIB)
                    file.write(who)
            os.truncate(root / "large-2", 5 * MIB + len(who))

        return write

    before = diverge(pair, change(b"of a"), change(b"of b!"))
    give_way(pair)
    with (pair.a.path / "large-0").open("r+b") as file:
        while pair.a.stream != "synced":
            file.seek(0)
            file.write(os.urandom(1000))
            file.flush()
    settle(pair)
    assert_equal_trees(pair.a.backing, pair.b.backing)
    assert_kept(before, pair.b)
    told = pair.a.log_text().count("large files of the losing data are set aside first")
    assert told == 1, "one walk finds all of them"


def scribble(chance: random.Random, name: str) -> Write:
    """Random changes, the same for a seed."""

    def write(root: Path) -> None:
        for _ in range(60):
            files = [p for p in sorted(root.rglob("*")) if p.is_file() and not p.is_symlink()]
            dirs = [root, *(p for p in sorted(root.rglob("*")) if p.is_dir())]
            chosen, where = chance.choice(files), chance.choice(dirs)
            new = where / f"{name}-{chance.randrange(30)}"
            match chance.randrange(9):
                case 0 if not new.exists():
                    new.write_bytes(chance.randbytes(chance.randrange(200_000)))
                case 1:
                    with chosen.open("r+b") as file:
                        file.seek(chance.randrange(150_000))
                        file.write(chance.randbytes(chance.randrange(1, 90_000)))
                case 2:
                    os.truncate(chosen, chance.randrange(100_000))
                case 3 if len(files) > 5:
                    chosen.unlink()
                case 4 if not new.exists():
                    chosen.rename(new)
                case 5 if not new.exists():
                    new.mkdir()
                case 6 if not new.exists():
                    os.link(chosen, new)
                case 7:
                    os.chmod(chosen, chance.choice((0o600, 0o640, 0o755)))
                case 8 if not new.exists():
                    chance.choice(dirs[1:] or [new]).rename(new) if len(dirs) > 1 and (
                        dirs[-1] not in new.parents
                    ) else None

    def safely(root: Path) -> None:
        for _ in range(3):
            try:
                write(root)
            except OSError:  # a directory into itself
                continue

    return safely


@pytest.mark.parametrize("seed", range(6))
def test_crash_of_either_at_any_moment_loses_nothing_of_the_branch(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    pair.a.settings["resync_rate"] = 2 * MIB
    pair.replicate()
    base(pair.a.path)
    before = diverge(pair, scribble(chance, "a"), scribble(chance, "b"))
    give_way(pair)
    for _ in range(5):
        time.sleep(chance.random() * 0.4)
        node = chance.choice((pair.a, pair.b))
        node.power_cut()
        if node is pair.a:
            node.boot()
            node.begin()
            with (node.path / "same").open("ab") as file:
                file.write(b"later on a")
        else:
            node.boot()
    pair.a.settings["resync_rate"] = 0
    settle(pair, seconds=50)
    assert_equal_trees(pair.a.backing, pair.b.backing)
    assert_kept(before, pair.b)


def test_loser_that_is_promoted_by_force_half_way_keeps_what_was_replaced(pair: Pair) -> None:
    pair.a.settings["resync_rate"] = MIB
    pair.replicate()
    base(pair.a.path)

    def on_a(root: Path) -> None:
        write_a(root)
        (root / "zz-large").write_bytes(os.urandom(4 * MIB))

    before = diverge(pair, on_a, write_b)
    give_way(pair)
    pair.b.wait_stream("resync")
    wait_for(lambda: (pair.b.backing / "new-on-a").exists(), "something was brought over")
    pair.a.power_cut()
    pair.b.wait_stream("disconnected")
    pair.b.call("become_primary", generation=fresh(), force=True)
    assert_kept(before, pair.b)
    (pair.b.path / "same").write_text("it can be written")
    pair.a.boot()
    wait_for(lambda: pair.b.state["refusal"], "a is not overwritten in silence")
    assert "diverged" in pair.b.state["refusal"]


@pytest.fixture
def disk_of_b(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own for everything of b."""
    disk = Disk(tmp_path / "pool-b", 40 * MIB)
    try:
        disk.mount(tmp_path / "b")
        yield tmp_path / "b"
    finally:
        disk.unmount()


@pytest.mark.usefixtures("disk_of_b")
def test_no_room_to_keep_it_overwrites_nothing_and_says_why(
    tmp_path: Path, spawner: Spawner
) -> None:
    pair = Pair(tmp_path, spawner)
    for node in (pair.a, pair.b):
        node.settings["outdated_seconds"] = 0.5
    try:
        pair.replicate()
        (pair.a.path / "large").write_bytes(os.urandom(8 * MIB))

        def on_b(root: Path) -> None:
            with (root / "large").open("r+b") as file:
                file.write(b"of b")
            (root / "small").write_text("of b")

        before = diverge(pair, write_nothing, on_b)
        ballast = tmp_path / "b"
        fill(ballast, leave=2 * MIB)
        give_way(pair)
        told = wait_for(lambda: pair.b.call("yielded")["problem"], "it says why")
        assert "large differs and cannot be kept aside: No space left" in told
        assert tree_of(pair.b.backing)["large"][4] == before["large"][4]
        assert "cannot be kept aside" in pair.a.log_text()
        assert not pair.b.record["up_to_date"]
        (ballast / "filler").unlink()
        settle(pair)
        assert_equal_trees(pair.a.backing, pair.b.backing)
        assert_kept(before, pair.b)
        assert pair.b.call("yielded")["problem"] == ""
    finally:
        pair.stop()


def write_nothing(root: Path) -> None:
    """The winner began a generation, that is all."""


def test_directory_that_is_the_top_of_its_file_system_is_copied(
    tmp_path: Path, spawner: Spawner
) -> None:
    disk = Disk(tmp_path / "pool-b", 40 * MIB)
    disk.mount(tmp_path / "b" / "data")
    pair = Pair(tmp_path, spawner)
    try:
        pair.replicate()
        base(pair.a.path)
        before = diverge(pair, write_a, write_b)
        give_way(pair)
        settle(pair)
        assert_equal_trees(pair.a.backing, pair.b.backing)
        assert_kept(before, pair.b)
    finally:
        pair.stop()
        disk.unmount()


def test_what_does_not_fit_on_the_other_file_system_is_not_begun(tmp_path: Path) -> None:
    above, below = Disk(tmp_path / "pool-1", 16 * MIB), Disk(tmp_path / "pool-2", 40 * MIB)
    try:
        above.mount(tmp_path / "small")
        live = tmp_path / "small" / "data"
        below.mount(live)
        (live / "large").write_bytes(os.urandom(20 * MIB))
        top = os.open(live, os.O_RDONLY)
        kept = Branch("data", top, "id")
        with pytest.raises(NotKept, match=r"all of it has to be copied: 2.* MB, but beside it"):
            kept.take(About("id", "g", "h", "b", "a", 0.0))
        assert os.listdir(live.parent) == ["data"]
        kept.close()
        os.close(top)
    finally:
        below.unmount()
        above.unmount()


def test_two_that_copy_the_same_file_do_not_spoil_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that copies large files, and the one that applies and meets the same file."""
    live = tmp_path / "data"
    live.mkdir()
    (live / "large").write_text("the loser's")
    top, fd = os.open(live, os.O_RDONLY), os.open(live / "large", os.O_RDWR)
    kept = Branch("data", top, "id")
    kept.take(About("id", "g", "h", "b", "a", 0.0))

    def meet() -> None:
        if kept.release(fd):  # reflinks: it has a copy, and may change the file
            os.pwrite(fd, b"the winner's", 0)

    def copy(source: int, target: int, most: int | None = None) -> None:
        copy_content(source, target, most)
        if most is None:
            other = threading.Thread(target=meet)
            other.start()
            other.join()

    monkeypatch.setattr(branch, "copy_content", copy)
    monkeypatch.setattr(branch, "LARGE", 0)
    inode = os.fstat(fd).st_ino
    kept.release_inode(inode)
    assert (kept.place / "files" / str(inode)).read_text() == "the loser's"
    assert os.listdir(kept.place / "files") == [str(inode)]
    assert kept.release(fd)
    kept.close()
    os.close(top)
    os.close(fd)


def test_file_with_holes_is_kept_with_them_and_not_longer(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with one.open("wb") as file:
        file.truncate(50 * MIB)
        file.seek(20 * MIB)
        file.write(b"in the middle")
        file.seek(30 * MIB)
        file.write(os.urandom(2 * MIB))
    run("cp", "/dev/null", other)
    with one.open("rb") as source, other.open("r+b") as target:
        copy_content(source.fileno(), target.fileno())
    assert one.read_bytes() == other.read_bytes()
    assert other.stat().st_blocks <= one.stat().st_blocks
