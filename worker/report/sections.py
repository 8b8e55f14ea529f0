"""What a benchmark's report says, in order; ``markdown.py`` and ``html.py`` only render it."""

from models.table1.results import BenchmarkReport
from worker.report import cost_sections, score_sections
from worker.report.content import Section, folds_in_words

_PARTS = (
    score_sections.table,
    score_sections.failed,
    score_sections.words,
    score_sections.differences,
    score_sections.classes,
    cost_sections.label_values,
    cost_sections.annotation,
    cost_sections.curves,
    cost_sections.styles,
    cost_sections.chosen,
    cost_sections.cost,
)


def sections(report: BenchmarkReport) -> list[Section]:
    """Those that have something to say."""
    said = [part(report) for part in _PARTS]
    return [section for section in said if section is not None] + [_made(report)]


def _made(report: BenchmarkReport) -> Section:
    config = report.config
    items = (
        ("Source and target", f"{report.source} → {report.target}"),
        ("Folds", folds_in_words(report.folds)),
        ("Preset", report.preset),
        ("Seed", str(config.seed)),
        ("Device", config.device),
        *report.versions.items(),
        *(("Note", note) for note in report.notes),
    )
    return Section("How it was made", items=items)
