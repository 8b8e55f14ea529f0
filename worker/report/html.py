"""Write the report as one page that loads nothing, so that a browser shows the file alone."""

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models.table1.methods import RowName
from models.table1.results import BenchmarkReport
from worker.report.charts import draw
from worker.report.content import TableCell, mean_of, title_of
from worker.report.drawing import PALETTE
from worker.report.groups import WORDS, group_of
from worker.report.numbers import percent
from worker.report.sections import sections
from worker.report.sentences import headline
from worker.report.terms import warning

# autoescape: names are data, and a name may hold markup.
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LANDMARKS: tuple[RowName, ...] = ("source-only", "cut", "stylefilter", "target-only")


def render(report: BenchmarkReport, figure: bytes | None = None) -> str:
    """Write the page; ``figure`` is a PNG of segmentations."""
    said = sections(report, figure=figure is not None)
    charts = {
        section.chart: _base64(draw(section.chart, report).encode())
        for section in said
        if section.chart is not None
    }
    return _PAGES.get_template("report.html").render(
        report=report,
        warning=warning(report),
        headline=headline(report),
        landmarks=_landmarks(report),
        sections=said,
        charts=charts,
        figure=None if figure is None else _base64(figure),
        palette=PALETTE,
        groups=WORDS,
        config=report.config.model_dump_json(indent=2),
    )


def _landmarks(report: BenchmarkReport) -> list[TableCell]:
    """Pick the rows that tell the story, four at most."""
    return [
        TableCell(percent(mean_of(row)), note=title_of(row), group=group_of(row))
        for name in _LANDMARKS
        for row in report.rows
        if row.row == name and mean_of(row) is not None
    ]


def _base64(file: bytes) -> str:
    return b64encode(file).decode()
