"""Terms are explained where they are used, and a trial run says that it is one."""

import pytest

from models.config.presets import PresetName
from models.table1.methods import ROWS
from tests.worker.report.reports import Page, full, made, row
from worker.report import html, markdown
from worker.report.terms import how_to_read, warning

TERMS = {"DICE", "Row", "Fold", "CUT", "Source-only", "Target-only", "Points", "95% interval"}


def test_a_report_explains_its_terms_first() -> None:
    section = how_to_read(full())
    assert section is not None
    assert {term for term, _ in section.items} >= TERMS
    text = markdown.render(full())
    assert text.index(f"## {section.title}") == text.index("## ")


def test_terms_that_a_report_lacks_are_left_out() -> None:
    section = how_to_read(made(row("histogram", mito=(0.5, 0.6))))
    assert section is not None
    left = TERMS - {term for term, _ in section.items}
    assert left == {"CUT", "Source-only", "Target-only", "95% interval"}
    assert how_to_read(made()) is None


def test_each_row_is_described() -> None:
    text = markdown.render(full())
    assert all(f"- **{row.title}**: {ROWS[row.row].about}" in text for row in full().rows)
    assert len({row.about for row in ROWS.values()}) == len(ROWS)


@pytest.mark.parametrize("preset", ["smoke", "quick", "best", "paper"])
def test_only_smoke_warns(preset: PresetName) -> None:
    report = full().model_copy(update={"preset": preset})
    said = warning(report)
    assert (said is not None) == (preset == "smoke")
    if said is not None:
        assert said in " ".join(Page(html.render(report)).texts)
        assert said in markdown.render(report)
