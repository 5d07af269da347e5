# SPDX-License-Identifier: Apache-2.0
"""The line of a key, however it is written."""

from __future__ import annotations

import tomli
from hypothesis import given
from hypothesis import strategies as st

from tomlconfig.locate import Lines

TEXT = '''\
# [not.a.table]
top = 1
[app.web] # comment with ] and "
image = "a # b = ["
"quoted key" = 'c:\\'
text = """
[not.a.table]
fake = 1
"""
list = [ # [
  "one", 'two]',
  { a = 1, "b.c" = [2,
    3] },
]
dotted.key.here = 1
dotted.key.there = 2
[ app . "db\\u0041" ]
x = 1
[[many]]
x = 1
[[many]]
x = 2
[many.sub]
y = 1
[app]
late = 1
'''


def test_lines_of_keys_in_every_notation() -> None:
    lines = Lines(TEXT)
    expected = {
        ("top",): 2,
        ("app", "web"): 3,
        ("app", "web", "image"): 4,
        ("app", "web", "quoted key"): 5,
        ("app", "web", "text"): 6,
        ("app", "web", "list"): 10,
        ("app", "web", "list", 0): 11,
        ("app", "web", "list", 1): 11,
        ("app", "web", "list", 2, "b.c", 1): 13,
        ("app", "web", "dotted"): 15,
        ("app", "web", "dotted", "key", "there"): 16,
        ("app", "dbA", "x"): 18,
        ("many", 0, "x"): 20,
        ("many", 1, "x"): 22,
        ("many", 1, "sub", "y"): 24,
        ("app",): 25,
        ("app", "late"): 26,
    }
    assert {path: lines.of(path) for path in expected} == expected


def test_what_is_not_there_falls_back_to_its_table() -> None:
    lines = Lines(TEXT)
    assert lines.of(("app", "web", "nothing", 3)) == 3
    assert lines.of(("nothing",)) == 0


def test_windows_line_ends_count_once() -> None:
    assert Lines('a = 1\r\n[t]\r\nb = """x\r\ny"""\r\nc = 2\r\n').of(("t", "c")) == 5


_KEYS = st.text(st.sampled_from("ab.\"' #=[]"), min_size=1, max_size=4)
_STRINGS = st.text(st.sampled_from("ab\"'\\ #=[]{},\n"), max_size=6)


def _basic(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@given(st.lists(st.tuples(_KEYS, st.lists(_STRINGS, max_size=3)), unique_by=lambda pair: pair[0]))
def test_each_pair_is_found_on_the_line_it_was_written_on(
    pairs: list[tuple[str, list[str]]],
) -> None:
    text, written = "", {}
    for key, items in pairs:
        written[key] = text.count("\n") + 1
        text += f"{_basic(key)} = [\n" + ",\n".join(map(_basic, items)) + "]\n"
    assert tomli.loads(text) == dict(pairs)
    lines = Lines(text)
    assert {key: lines.of((key,)) for key in written} == written
