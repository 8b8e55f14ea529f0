"""Write the report as Markdown, for a repository; names are data and never markup."""

import html
import re
from collections.abc import Iterator

from models.table1.results import BenchmarkReport
from worker.report.content import Grid, Section, TableCell
from worker.report.numbers import plain
from worker.report.sections import sections
from worker.report.sentences import headline
from worker.report.terms import warning

_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")


def render(report: BenchmarkReport, *, figure: bool = False) -> str:
    """Write the report; it refers to ``charts/`` and, if there is one, to ``figure.png``."""
    blocks = [f"# {escape(report.source)} → {escape(report.target)}"]
    blocks += [f"**{escape(said)}**" for said in (warning(report), headline(report)) if said]
    for section in sections(report, figure=figure):
        blocks += _section(section)
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Put a text on one line, so that it is shown as it is."""
    return _SPECIAL.sub(r"\\\g<0>", html.escape(plain(text), quote=False))


def _section(section: Section) -> Iterator[str]:
    yield f"## {section.title}"
    # The first table comes before notes and chart, which explain it.
    for grid in section.grids[:1]:
        yield _grid(grid)
    for note in section.notes:
        yield escape(note)
    if section.figure:
        yield f"![{section.title}](figure.png)"
    if section.chart is not None:
        yield f"![{section.title}](charts/{section.chart}.svg)"
    for grid in section.grids[1:]:
        yield _grid(grid)
    if section.items:
        said = (f"- **{escape(term)}**: {escape(words)}" for term, words in section.items)
        yield "\n".join(said)


def _grid(grid: Grid) -> str:
    lines = [
        f"{escape(grid.caption)}:",
        "",
        _line([escape(name) for name in grid.head]),
        _line(["---", *["---:" if grid.numbers else "---"] * (len(grid.head) - 1)]),
        *(_line([_cell(cell) for cell in row]) for row in grid.rows),
    ]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: TableCell) -> str:
    text = escape(cell.text)
    if cell.note:
        text += f" ({escape(cell.note)})"
    if cell.mark == "best":
        return f"**{text}**"
    return f"<u>{text}</u>" if cell.mark == "runner-up" else text
