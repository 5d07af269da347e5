# SPDX-License-Identifier: Apache-2.0
"""The package says the same thing in all the places where it has to say it."""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import haoperator
from haoperator.cli.__main__ import _parser

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
CLUSTER = "org.haoperator1.Cluster"


def launchers() -> dict[str, str]:
    """Installed program → module whose `main` it calls."""
    text = (PACKAGING / "install-launchers").read_text()
    return dict(re.findall(r"^(/\S+) (haoperator\.\S+)$", text, re.MULTILINE))


def hactl_options() -> dict[str, set[str]]:
    """Verb of `hactl` → its options, `--help` apart, and the words that it takes."""
    verbs = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {verb: words_of(parser) - {"-h", "--help"} for verb, parser in verbs.choices.items()}


def words_of(parser: argparse.ArgumentParser) -> set[str]:
    words: set[str] = set()
    for action in parser._actions:
        words |= {*action.option_strings, *(action.choices or ())}
        if isinstance(action, argparse._SubParsersAction):
            words = words.union(*map(words_of, action.choices.values()))
    return words


def source_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-coz", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_changelogs_and_manual_pages_name_the_version_of_the_code() -> None:
    version = haoperator.__version__
    debian = (PACKAGING / "debian/changelog").read_text().splitlines()[0]
    assert re.match(rf"haoperator \({re.escape(version)}-\d+\) ", debian)
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
    for page in (PACKAGING / "man").iterdir():
        assert f'"haoperator {version}"' in page.read_text(), page.name


@pytest.mark.parametrize("program", launchers())
def test_every_installed_program_has_a_main(program: str) -> None:
    module = ROOT / (launchers()[program].replace(".", "/") + ".py")
    functions = {
        node.name
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert "main" in functions, module


def test_units_call_only_programs_that_are_installed() -> None:
    called = set()
    for unit in (ROOT / "units").iterdir():
        called |= set(re.findall(r"^Exec\w+=\S*?(/\S+)", unit.read_text(), re.MULTILINE))
    ours = {program for program in called if "haoperator" in program or "hactl" in program}
    assert ours <= launchers().keys()
    assert ours, "no unit calls any of our programs"


def test_there_is_a_polkit_action_for_each_method_and_no_other() -> None:
    interface = ET.parse(ROOT / "haoperator/api/org.haoperator1.xml").find(
        f".//interface[@name='{CLUSTER}']"
    )
    assert interface is not None
    verbs = {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "-", method.attrib["name"]).lower()
        for method in interface.iter("method")
    }
    policy = ET.parse(PACKAGING / "polkit/org.haoperator1.policy")
    actions = {action.attrib["id"] for action in policy.iter("action")}
    assert actions == {f"org.haoperator1.{verb}" for verb in verbs}


def test_changing_anything_needs_an_administrator() -> None:
    for action in ET.parse(PACKAGING / "polkit/org.haoperator1.policy").iter("action"):
        granted = [
            action.findtext(f"defaults/allow_{who}") for who in ("any", "inactive", "active")
        ]
        assert granted == ["auth_admin_keep"] * 3, action.attrib["id"]


def test_every_source_file_names_its_licence() -> None:
    code = {".py", ".pyi", ".c", ".h", ".xml", ".conf", ".policy", ".service", ".target"}
    nameless = [
        str(path.relative_to(ROOT))
        for path in source_files()
        if path.suffix in code
        and "SPDX-License-Identifier: Apache-2.0" not in path.read_text()[:400]
    ]
    assert not nameless


def test_manual_page_and_completion_name_every_verb_and_option_of_hactl() -> None:
    verbs = hactl_options()
    page = (PACKAGING / "man/hactl.1").read_text().replace("\\-", "-")
    described = re.search(r"^\.SH COMMANDS$(.*)^\.SH EXIT STATUS$", page, re.MULTILINE | re.DOTALL)
    assert described is not None
    headings = re.findall(r"^\.TP\n\.BR? (.+)$", described[1], re.MULTILINE)
    words = {word for heading in headings for word in re.findall(r"[-\w]+", heading)}
    assert words == verbs.keys() | set().union(*verbs.values())

    completion = (PACKAGING / "bash-completion/hactl").read_text()
    offered = set(re.findall(r"[-\w]+", " ".join(re.findall(r'-W "([^"]+)"', completion))))
    assert offered == {word for word in words if word not in ("-q",)}
