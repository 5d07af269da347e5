# SPDX-License-Identifier: Apache-2.0
"""`hactl splitbrain` on a branch that was really set aside, without a cluster."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

import tomlconfig
from haoperator.cli.client import Failed
from haoperator.cli.kept import find, kept_here
from haoperator.cli.restoring import restore
from haoperator.cli.show import text, without_operator
from haoperator.cli.splitbrain import confirm, differing, dropped, foretold, listed
from haoperator.replica.branch import Branch
from haoperator.replica.manifest import About
from tomlconfig import Config

ID = "2026-11-25-0123456789abcdef"
ABOUT = About(ID, "0123456789abcdef", "fedcba9876543210", "node-b", "node-a", 1_795_600_000.0)
CONFIG = """\
[cluster]
name = "shop"
[node.node-a]
[node.node-b]
[link.lan]
node-a = "10.0.0.1"
node-b = "10.0.0.2"
[replicate.data]
path = "{path}"
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A branch is kept of a directory that has other data since."""
    live = tmp_path / "data"
    (live / "notes").mkdir(parents=True)
    (live / "notes" / "text").write_text("one\ntwo\nthree\n")
    (live / "notes" / "gone").write_text("kept\n")
    (live / "mode").write_text("the same")
    (live / "same").write_text("the same")
    (live / "binary").write_bytes(b"\0\1\2")
    os.symlink("text", live / "notes" / "link")
    os.chmod(live / "notes" / "gone", 0o640)
    os.utime(live / "notes" / "gone", ns=(5, 1_000_000_007))
    top = os.open(live, os.O_RDONLY)
    branch = Branch("data", top, ID)
    branch.take(ABOUT)
    text = os.open(live / "notes" / "text", os.O_RDWR)
    branch.release(text)
    os.ftruncate(text, 0)
    os.write(text, b"one\n2\nthree\n")
    os.close(text)
    (live / "binary").unlink()
    (live / "binary").write_bytes(b"\0\1\3")
    (live / "notes" / "gone").unlink()
    (live / "notes" / "link").unlink()
    (live / "new").mkdir()
    (live / "new" / "below").write_text("new")
    os.chmod(live / "mode", 0o600)
    branch.compare()
    branch.close()
    os.close(top)
    return tomlconfig.parse(CONFIG.format(path=live).encode(), tmp_path / "cluster.toml")


def test_list_tells_what_is_kept_and_how_much(config: Config) -> None:
    (line,) = listed(config)
    assert ID in line and "6 names differ" in line and "written on node-b" in line
    live = config.replicate[0].path
    assert (live / "same").stat().st_nlink == 1, "what is the same is not kept"


def test_diff_tells_each_kind_of_difference_and_text_line_by_line(config: Config) -> None:
    lines = list(differing(config, ID, None))
    assert "content     data: notes/text  (14 bytes kept, 12 here)" in lines
    assert "attributes  data: mode  (mode 644, here 600)" in lines
    assert "only kept   data: notes/gone" in lines
    assert "only here   data: new  (removed on node-b, or made on node-a)" in lines
    assert not any("same" in line or "below" in line for line in lines)
    path = str(config.replicate[0].path / "notes/text")
    by_absolute_path = list(differing(config, ID, path))
    assert {"-two", "+2"} <= set(by_absolute_path)
    assert by_absolute_path == list(differing(config, ID, "notes/text"))
    assert len(list(differing(config, ID, "binary"))) == 1, "no lines of what is no text"
    below = list(differing(config, ID, "notes"))
    assert len(below) == 3
    with pytest.raises(Failed, match="does not differ"):
        list(differing(config, ID, "same"))
    with pytest.raises(Failed, match="is in none of the replicated"):
        list(differing(config, ID, "/etc/passwd"))


def test_names_cannot_drive_the_terminal(config: Config) -> None:
    kept, _ = find(config, ID, "notes/text")
    evil = kept.place / "differences"
    evil.write_text(evil.read_text().replace('"binary"', '"bin\\u001b[31mary"'))
    assert not any("\x1b" in line for line in differing(config, ID, None))


def restored(config: Config, path: str, to: str | None = None) -> Path:
    return Path(restore(*find(config, ID, path), to))


def test_restore_puts_it_beside_what_is_there_now(config: Config, tmp_path: Path) -> None:
    live = config.replicate[0].path
    place = restored(config, "notes/text")
    assert place == live / "notes" / f"text.splitbrain-{ID}"
    assert place.read_text() == "one\ntwo\nthree\n"
    assert (live / "notes" / "text").read_text() == "one\n2\nthree\n"
    with pytest.raises(Failed, match="exists already"):
        restored(config, "notes/text")
    gone = restored(config, str(live / "notes" / "gone"), str(tmp_path / "elsewhere"))
    st = gone.stat()
    assert (gone.read_text(), stat.S_IMODE(st.st_mode)) == ("kept\n", 0o640)
    assert st.st_mtime_ns == 1_000_000_007
    assert os.readlink(restored(config, "notes/link")) == "text"


def test_restore_of_a_directory_brings_all_that_was_kept_in_it(
    config: Config, tmp_path: Path
) -> None:
    place = restored(config, "notes", str(tmp_path / "out" / "notes"))
    assert sorted(os.listdir(place)) == ["gone", "link", "text"]


def test_restore_to_standard_output(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    restored(config, "binary", "-")
    assert out.buffer.getvalue() == b"\0\1\2"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("same", "is the same in"),
        ("new", "node-b did not have it"),
        ("mode", "was not kept; mode 644, here 600"),
        (".", "name what is to be restored"),
    ],
)
def test_restore_says_why_there_is_nothing_to_restore(config: Config, path: str, why: str) -> None:
    with pytest.raises(Failed, match=why):
        restored(config, path)


def test_restore_on_a_standby_says_what_to_do(config: Config, tmp_path: Path) -> None:
    kept, path = find(config, ID, "notes/text")
    read_only = tmp_path / "read-only"
    read_only.mkdir()
    with mounted_read_only(read_only), pytest.raises(Failed) as failed:
        restore(kept, path, str(read_only / "text"))
    assert "'hactl swap' first" in str(failed.value)
    assert f"ssh node-b hactl splitbrain restore {ID} notes/text --to - >" in str(failed.value)


@contextlib.contextmanager
def mounted_read_only(point: Path) -> Any:
    from haoperator.replica._hotpath import mount, umount2

    mount(b"tmpfs", os.fsencode(point), b"tmpfs", 1, b"")
    try:
        yield
    finally:
        umount2(os.fsencode(point), 0)


def test_drop_asks_and_removes_it(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failed, match="say --yes"):
        dropped(config, ID, yes=False)
    assert kept_here(config)
    assert dropped(config, ID, yes=True) == 0
    assert "6 names differ" in capsys.readouterr().out
    assert not kept_here(config)
    assert os.listdir(config.replicate[0].path.parent) == ["data"]
    with pytest.raises(Failed, match="nothing is set aside on this node"):
        dropped(config, ID, yes=True)


def test_branch_that_is_being_overwritten_cannot_be_dropped(config: Config) -> None:
    (kept,) = kept_here(config)
    (kept.place / "differences").rename(kept.place / "manifest")
    (line,) = listed(config)
    assert "under way" in line
    for call in (lambda: dropped(config, ID, yes=True), lambda: list(differing(config, ID, None))):
        with pytest.raises(Failed, match="under way"):
            call()


def report(role: str, **split: Any) -> dict[str, Any]:
    return {
        "node": "node-b",
        "role": role,
        "peer": {"name": "node-a", "reachable": True},
        "replication": [{"name": "data", "path": "/srv/shop/data"}],
        **split,
    }


def test_yield_shows_first_what_it_does() -> None:
    sides = [["node-b", "took over"], ["node-a", "went on as the primary"]]
    lines = list(foretold(report("primary", splitbrain={"sides": sides})))
    assert "The data of node-b loses, that of node-a is served from now on" in lines[2]
    assert "its applications stop, and start on node-a" in lines[3]
    assert lines[4].endswith(": /srv/shop/.haoperator-data-splitbrain")
    with pytest.raises(Failed, match="there is no split brain"):
        list(foretold(report("secondary", splitbrain=None)))


def test_status_shows_both_sides_the_command_and_what_keeps_it_from_going_on() -> None:
    told = {
        "sides": [["node-b", "took over"], ["node-a", "went on as the primary"]],
        "loser": "",
        "ways": ["'hactl splitbrain yield' on node-a"],
        "problem": "no room",
    }
    shown = text(without_operator("node-b", True) | {"splitbrain": told}, colour=False).splitlines()
    assert "split brain      node-b took over" in shown
    assert "                 'hactl splitbrain yield' on node-a" in shown
    assert "                 does not go on: no room" in shown


def test_only_the_name_of_the_node_confirms(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("node-b\n"))
    confirm("node-b", "?")
    for said in ("y\n", "yes\n", "node-a\n", ""):
        monkeypatch.setattr(sys, "stdin", Terminal(said))
        with pytest.raises(Failed, match="nothing was done"):
            confirm("node-b", "?")
