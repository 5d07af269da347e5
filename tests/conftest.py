# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests: a test that cannot run here fails and says why. None is skipped."""

from __future__ import annotations

import os

import pytest
from _pytest.terminal import TerminalReporter


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: mounts, namespaces, nodes. Fails without root.")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say plainly that root is missing, instead of an EPERM somewhere inside."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail("this test needs root: run `sudo make test`", pytrace=False)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    if terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("A skipped test counts as a failed one here.", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
