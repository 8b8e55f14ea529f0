"""Shows the table at the end, also when a test failed; STYLEFILTER_CHAOS_OUT takes it as JSON."""

import os
from pathlib import Path

import pytest

from tests.chaos import table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(table.lines())
    if not lines:
        return
    terminalreporter.section("chaos")
    for line in lines:
        terminalreporter.write_line(line)
    if out := os.environ.get("STYLEFILTER_CHAOS_OUT"):
        table.write(Path(out))
