"""Make one report of the cells of several benchmarks: ``python -m worker.report DIR ... OUT``."""

import sys
from pathlib import Path

from pydantic import ValidationError

from models.table1.cells import Cell, checked
from worker.report.collect import folds_of, report_of
from worker.report.files import write
from worker.tester import NothingMeasured


def merged(folders: list[Path], out: Path) -> None:
    """Write the report of all cells in ``folders`` to ``out``.

    Raises:
        ValueError: there are no cells, a file is no cell, or the cells do not suit one table.
    """
    paths = [path for folder in folders for path in sorted((folder / "cells").glob("*.json"))]
    if not paths:
        raise ValueError(
            f"{', '.join(map(str, folders))}: no cells in there. Name folders that stylefilter "
            "benchmark has written"
        )
    cells = [_read(path) for path in paths]
    checked(cells)
    cells.sort(key=lambda cell: (cell.part.fold, cell.seed))
    write(report_of(cells), out, folds=folds_of(cells))


def _read(path: Path) -> Cell:
    try:
        return Cell.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(
            f"{path} is damaged, or another version wrote it: {error.errors()[0]['msg']}"
        ) from error


def main() -> int:
    *folders, out = (Path(argument) for argument in sys.argv[1:])
    try:
        merged(folders, out)
    except (ValueError, NothingMeasured, FileExistsError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
