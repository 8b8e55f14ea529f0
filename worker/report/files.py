"""Write a report as a folder of files."""

import shutil
from pathlib import Path
from uuid import uuid4

from models.data.files import written_aside
from models.data.splits import Folds
from models.table1.results import BenchmarkReport
from worker.report import html, markdown
from worker.report.charts import write_charts


def write(
    report: BenchmarkReport,
    folder: Path,
    *,
    figure: bytes | None = None,
    folds: Folds | None = None,
) -> None:
    """Write ``report.json``, ``.md``, ``.html`` and ``charts/``.

    If they are given, ``figure`` becomes ``figure.png`` and ``folds`` become ``folds.json``.
    The folder is written aside and takes its name last. A report that is there already is replaced.

    Raises:
        FileExistsError: the folder holds something that is not a report.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "report.json").exists():
        raise FileExistsError(f"{folder} holds something that is not a report: name another folder")
    # A folder can take the place of an empty one only: the old report steps aside first.
    old = folder.with_name(f".{folder.name}-{uuid4().hex}")
    with written_aside(folder) as draft:
        draft.mkdir()
        _fill(draft, report, figure)
        if folds is not None:
            (draft / "folds.json").write_text(folds.model_dump_json(indent=1) + "\n")
        if folder.exists():
            folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _fill(folder: Path, report: BenchmarkReport, figure: bytes | None) -> None:
    texts = {
        "report.json": report.model_dump_json(indent=2) + "\n",
        "report.md": markdown.render(report, figure=figure is not None),
        "report.html": html.render(report, figure),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    if figure is not None:
        (folder / "figure.png").write_bytes(figure)
    write_charts(report, folder / "charts")
