# SPDX-License-Identifier: Apache-2.0
"""Names of units, against what systemd itself says."""

from __future__ import annotations

import subprocess
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haoperator.systemd import names

_CHARACTERS = st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\n")
_ODD = st.text(st.sampled_from("ab09-_.:\\ /%é@\"'"), min_size=1, max_size=12)
_TEXTS = st.lists(st.one_of(_ODD, st.text(_CHARACTERS, min_size=1)), min_size=1, max_size=30)


def systemd_escape(*arguments: str) -> list[str]:
    done = subprocess.run(
        ["systemd-escape", *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.removesuffix("\n").split(" ")


@given(_TEXTS)
@settings(max_examples=30, deadline=None)
def test_text_is_escaped_as_systemd_does(texts: list[str]) -> None:
    assert [names.escape(text) for text in texts] == systemd_escape("--", *texts)


@given(st.lists(st.lists(_ODD.filter(lambda part: set(part) - set("./")), max_size=4), min_size=1))
@settings(max_examples=30, deadline=None)
def test_path_is_escaped_as_systemd_does(paths: list[list[str]]) -> None:
    texts = ["/" + "/".join(part.replace("/", "x") for part in parts) for parts in paths]
    escaped = [names.escape_path(PurePosixPath(text)) for text in texts]
    assert escaped == systemd_escape("--path", "--", *texts)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/", "-.mount"),
        ("/srv/shop/data", "srv-shop-data.mount"),
        ("/srv/da ta-100%", r"srv-da\x20ta\x2d100\x25.mount"),
        ("/.hidden", r"\x2ehidden.mount"),
    ],
)
def test_mount_units(path: str, unit: str) -> None:
    assert names.mount(PurePosixPath(path)) == unit


def test_instance_is_the_name_as_it_is_typed() -> None:
    assert names.app("my-web_2") == "ha-app@my-web_2.service"
    assert names.template_of(names.app("my-web_2")) == "ha-app@.service"
    assert names.template_of(names.OPERATOR) == names.OPERATOR


def test_objects_on_the_bus_lead_back_to_their_units() -> None:
    for unit in (names.vip("front"), names.mount(PurePosixPath("/a b-ü")), "0.mount", "a_b.target"):
        assert names.unit_of_bus_path(names.bus_path(unit)) == unit
    path = "/org/freedesktop/systemd1/unit/ha_2dapp_40my_2dweb_2eservice"
    assert names.bus_path(names.app("my-web")) == path


def test_other_objects_are_no_units() -> None:
    assert names.unit_of_bus_path("/org/freedesktop/systemd1/job/7") is None
    assert names.unit_of_bus_path("/org/freedesktop/systemd1/unit/a_zz") is None
