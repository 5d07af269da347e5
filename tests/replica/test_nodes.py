# SPDX-License-Identifier: Apache-2.0
"""The table of nodes: ids are never used twice, names lead where they should."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from haoperator.replica.nodelog import LoggedName, NodeLog
from haoperator.replica.nodes import Node, NodeIds, NodeTable


class Tree:
    """A table over a plain directory, and the log that the next process would read."""

    def __init__(self, base: Path) -> None:
        self.root = base / "tree"
        self.root.mkdir()
        self.log = NodeLog(base / "nodes")
        self.log.begin(38)
        self.dropped: list[int] = []
        self.ids = NodeIds()
        root_fd = os.open(self.root, os.O_RDONLY)
        self.table = NodeTable(root_fd, self.ids, self.log, lambda n: self.dropped.append(n.id))

    def look(self, path: str) -> Node:
        node = self.table.root
        for name in path.split("/"):
            node, _ = self.table.look(node, os.fsencode(name))
        node.lookups += 1
        return node


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_node_is_its_inode_whatever_it_is_called(tree: Tree) -> None:
    (tree.root / "a").touch()
    os.link(tree.root / "a", tree.root / "b")
    assert tree.look("a") is tree.look("b")
    assert len(tree.look("a").names) == 2


def test_an_id_is_not_used_again_for_a_reused_inode(tree: Tree) -> None:
    seen = set()
    for _ in range(50):
        (tree.root / "a").touch()
        node = tree.look("a")
        seen.add(node.id)
        (tree.root / "a").unlink()
        tree.table.remove_name(node, tree.table.root, b"a")
        tree.table.forget(node, 1)
    assert len(seen) == 50
    assert len(tree.table) == 1


def test_parents_stay_while_a_child_is_known(tree: Tree) -> None:
    (tree.root / "d" / "e").mkdir(parents=True)
    (tree.root / "d" / "e" / "f").touch()
    file = tree.look("d/e/f")
    directory = tree.look("d")
    tree.table.forget(directory, 1)
    assert tree.table.path(file) == b"d/e/f"
    tree.table.forget(file, 1)
    assert len(tree.table) == 1


def test_a_moved_directory_takes_its_paths_along(tree: Tree) -> None:
    (tree.root / "d" / "e").mkdir(parents=True)
    (tree.root / "d" / "e" / "f").touch()
    file, moved, old = tree.look("d/e/f"), tree.look("d/e"), tree.look("d")
    (tree.root / "d" / "e").rename(tree.root / "g")
    tree.table.remove_name(moved, old, b"e")
    tree.table.add_name(moved, tree.table.root, b"g")
    assert tree.table.path(file) == b"g/f"


def test_names_that_lead_elsewhere_are_forgotten(tree: Tree) -> None:
    (tree.root / "a").touch()
    (tree.root / "b").touch()
    a, b = tree.look("a"), tree.look("b")
    (tree.root / "a").rename(tree.root / "b")
    tree.table.revalidate()
    assert tree.table.path(a) is None
    assert tree.table.path(b) is None


def test_the_log_tells_the_next_process_what_this_one_knew(tree: Tree, tmp_path: Path) -> None:
    (tree.root / "d").mkdir()
    (tree.root / "d" / "f").touch()
    (tree.root / "gone").touch()
    file, directory, gone = tree.look("d/f"), tree.look("d"), tree.look("gone")
    tree.table.forget(gone, 1)
    tree.table.will_be_named(file, tree.table.root, b"new")
    former = NodeLog(tmp_path / "nodes").replay()
    assert former is not None
    assert set(former.nodes) == {file.id, directory.id}
    assert [name for _, name, _ in former.nodes[file.id]] == [b"f", b"new"]
    assert former.last == gone.id
    tree.table.will_not_be_named(file, tree.table.root, b"new")
    former = NodeLog(tmp_path / "nodes").replay()
    assert former is not None
    assert [name for _, name, _ in former.nodes[file.id]] == [b"f"]


def test_half_a_record_at_the_end_is_no_harm(tree: Tree, tmp_path: Path) -> None:
    (tree.root / "a").touch()
    node = tree.look("a")
    with open(tmp_path / "nodes", "ab") as log:
        log.write(b"\x01\x02")
    again = NodeLog(tmp_path / "nodes")
    former = again.replay()
    assert former is not None
    assert set(former.nodes) == {node.id}
    again.given(node.id + 1)
    later = NodeLog(tmp_path / "nodes").replay()
    assert later is not None
    assert later.last == node.id + 1


def test_rewritten_log_holds_what_counts(tree: Tree, tmp_path: Path) -> None:
    for number in range(20):
        (tree.root / f"f{number}").touch()
    nodes = [tree.look(f"f{number}") for number in range(20)]
    for node in nodes[5:]:
        tree.table.forget(node, 1)
    before = tree.log.size
    live = [(node.id, LoggedName(*name, node.key[1])) for node in tree.table for name in node.names]
    tree.log.rewrite(tree.ids.last, live)
    assert tree.log.size < before
    (tree.root / "later").touch()
    later = tree.look("later")
    former = NodeLog(tmp_path / "nodes").replay()
    assert former is not None
    assert set(former.nodes) == {node.id for node in nodes[:5]} | {later.id}
    assert former.minor == 38


def test_a_node_that_was_given_up_makes_way_for_another(tree: Tree, tmp_path: Path) -> None:
    (tree.root / "f").touch()
    (tree.root / "g").touch()
    old, dead = tree.look("f"), tree.look("g")
    tree.table.give_up(old)
    tree.table.give_up(dead, dead=True)
    new = tree.look("f")
    assert new.id != old.id
    assert tree.table.get(old.id) is old
    for node, ask in ((old, tree.table.current), (dead, tree.table.get)):
        with pytest.raises(OSError, match=r"given up|unknown"):
            ask(node.id)
    former = NodeLog(tmp_path / "nodes").replay()
    assert former is not None
    assert set(former.nodes) == {old.id, new.id}
    assert former.given_up == {old.id}
    tree.table.forget(old, 1)
    assert tree.look("f") is new
    former = NodeLog(tmp_path / "nodes").replay()
    assert former is not None
    assert former.given_up == set()


def test_the_log_keeps_what_the_mount_agreed_on_and_who_served_it(tmp_path: Path) -> None:
    def told() -> tuple[bool, bool]:
        former = NodeLog(tmp_path / "nodes").replay()
        assert former is not None
        return former.writeback, former.wrote

    node_log = NodeLog(tmp_path / "nodes")
    node_log.begin(38, writeback=True)
    assert told() == (True, False)
    node_log.serves(writes=True)
    assert told() == (True, True)
    node_log.rewrite(9, [], [7])
    assert told() == (True, True)
    node_log.serves(writes=False)
    assert told() == (True, False)
    node_log.begin(38)
    assert told() == (False, False)


def test_what_a_former_process_was_asked_for_does_not_count_for_this_one(tree: Tree) -> None:
    """The kernel forgets all that it held before the restart, and has looked again meanwhile."""
    (tree.root / "a").touch()
    node = tree.look("a")
    node.unknown_lookups = True
    assert tree.look("a") is node
    tree.table.forget(node, 9)
    assert tree.table.known(node.id) is node
    tree.table.forget(node, 1)
    assert tree.table.known(node.id) is None
