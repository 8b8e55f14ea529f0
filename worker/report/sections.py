"""Put the sections of a report in order; ``markdown.py`` and ``html.py`` only render them."""

from models.table1.results import BenchmarkReport
from worker.report import (
    annotation_section,
    cost_sections,
    score_sections,
    terms,
    verdict_section,
)
from worker.report.content import Section, folds_in_words
from worker.report.numbers import listed

_FIGURE = Section(
    "In pictures",
    notes=("You see a test image of the target, its segmentation by each row, and its mask.",),
    figure=True,
)
_FIRST = (terms.how_to_read, score_sections.table)
_THEN = (
    score_sections.failed,
    score_sections.words,
    score_sections.differences,
    score_sections.seeds,
    verdict_section.verdicts,
    score_sections.classes,
    cost_sections.label_values,
    cost_sections.annotation,
    annotation_section.annotation_values,
    cost_sections.curves,
    cost_sections.styles,
    cost_sections.chosen,
    cost_sections.cost,
)


def sections(report: BenchmarkReport, *, figure: bool = False) -> list[Section]:
    """Return the sections that have contents; ``figure`` adds the picture of segmentations."""
    first, then = ([part(report) for part in parts] for parts in (_FIRST, _THEN))
    said = [*first, _FIGURE if figure else None, *then, _made(report)]
    return [section for section in said if section is not None]


def _made(report: BenchmarkReport) -> Section:
    config = report.config
    items = (
        ("Source and target", f"{report.source} → {report.target}"),
        ("Folds", folds_in_words(report.folds)),
        ("Preset", report.preset),
        ("Seed" if len(report.seeds) == 1 else "Seeds", listed(tuple(map(str, report.seeds)))),
        ("Device", config.device),
        *report.versions.items(),
        *(("Note", note) for note in report.notes),
    )
    return Section("How it was made", items=items)
