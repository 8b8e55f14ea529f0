"""The report as Markdown: names stay names."""

import re

from tests.worker.report.reports import hostile
from worker.report import markdown


def test_names_are_never_markup() -> None:
    text = markdown.render(hostile())
    assert "<script>" not in text
    assert r"&lt;script&gt;alert('x')&lt;/script&gt;\|\`\$\\frac" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
