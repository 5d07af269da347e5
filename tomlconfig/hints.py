# SPDX-License-Identifier: Apache-2.0
"""The way out that an error offers: the word that was perhaps meant, or those that are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tomlconfig.grammar import Key, Table


def nearest_entry(name: str, known: Sequence[Key] | Sequence[Table]) -> str:
    """Which known key or table `name` may stand for, by its own names and by those it is not."""
    if not known:
        return "this table has no keys"
    words = {word: entry.name for entry in known for word in entry.also_called}
    words |= {entry.name: entry.name for entry in known}
    hint = nearest_word(name, words)
    return hint or "known here: " + ", ".join(entry.name for entry in known if entry.supported)


def nearest_word(word: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """`did you mean "…"?`, or nothing. A mapping leads from what is written to what is meant."""
    # Only a file with errors pays for this import.
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    if not close:
        return ""
    meant = known[close[0]] if isinstance(known, Mapping) else close[0]
    return f'did you mean "{meant}"?'


def one_of(words: Iterable[str], quote: str = '"') -> str:
    """`"a", "b" or "c"`."""
    quoted = [f"{quote}{word}{quote}" for word in words]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
