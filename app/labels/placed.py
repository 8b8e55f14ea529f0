"""Finds the image that holds each point of a request, and reads points from a table of CSV."""

import csv
import io
from collections.abc import Iterable, Iterator

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labels.collected import Collected
from app.labels.naming import ImageNames, composed
from app.labels.points import MOST_POINTS, Place, pointed, stored_points
from app.labels.schemas import PointLabel
from app.labels.sheet import decoded, plain, safe, separated
from app.tables import Dataset, Image
from models.data.labels import LabelState, label_state
from models.data.sections import Section

_COLUMNS = ("section", "y", "x", "class")
_CELLS = {LabelState.PRESENT: "1", LabelState.ABSENT: "0"}


def placed(
    session: Session,
    dataset: Dataset,
    names: ImageNames,
    entries: Iterable[tuple[int, PointLabel]],
    collected: Collected,
) -> dict[int, dict[Place, LabelState]]:
    """Return points by the number of the image that holds each; ``collected`` notes problems."""
    windows: dict[int, dict[tuple[int, int], int]] = {}
    found: dict[int, dict[Place, LabelState]] = {}
    classes = {composed(name): name for name in dataset.class_names}
    for entry, point in entries:
        name = classes.get(composed(point.class_name))
        if name is None:
            listed = ", ".join(dataset.class_names)
            message = f"the dataset has no class {point.class_name!r}: its classes are {listed}"
            collected.problem(entry, message)
            continue
        try:
            section = names.section(point.section)
            _check_inside(section, point)
            if section.index not in windows:
                windows[section.index] = _windows(session, dataset, names, section)
            n = _holding(dataset, section, windows[section.index], point)
        except ValueError as error:
            collected.problem(entry, str(error))
            continue
        place = point.y, point.x, name
        if place in found.setdefault(n, {}):
            message = (
                f"names {name!r} at y {point.y}, x {point.x} of section {section.name!r} twice"
            )
            collected.problem(entry, message + ": name each point once")
        found[n][place] = point.label
    return found


def is_point_sheet(data: bytes) -> bool:
    """Tell whether a table of CSV holds points, by its first line."""
    line = data.split(b"\n", 1)[0][:200].decode("utf-8-sig", "ignore").replace("\0", "")
    cells = [cell.strip(' "\r').casefold() for cell in line.replace(";", ",").split(",")]
    cells = [cell.strip(' "\r').casefold() for cell in line.split("\t")] if "\t" in line else cells
    return tuple(cells[:4]) == _COLUMNS and cells[4:] in ([], ["label"])


def read_points(data: bytes, collected: Collected) -> Iterator[tuple[int, PointLabel]]:
    """Yield the points in a table of CSV, with their lines; ``collected`` notes what is wrong."""
    lines = io.StringIO(decoded(data, collected), newline=None)
    separator, head = separated(next(lines, ""))
    for number, line in enumerate(lines, start=2):
        if number > MOST_POINTS + 1:
            collected.problem(number, f"is too many: send at most {MOST_POINTS} points at once")
            return
        if not line.strip(' \n"' + separator):
            continue
        cells = next(csv.reader([line], delimiter=separator), [])
        cells += [""] * (len(head) - len(cells))
        try:
            yield (
                number,
                PointLabel.model_validate(
                    {
                        "section": plain(cells[0]),
                        "y": cells[1].strip(),
                        "x": cells[2].strip(),
                        "class": plain(cells[3]).strip(),
                        "label": label_state(cells[4]) if len(head) > 4 else LabelState.PRESENT,
                    }
                ),
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            collected.problem(number, f"has a wrong {first['loc'][0]}: {first['msg']}")
        except ValueError as error:
            collected.problem(number, f"label {error}")


def write_points_sheet(session: Session, dataset: Dataset) -> bytes:
    """Return all points of a dataset as a table that ``read_points`` reads."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([*_COLUMNS, "label"])
    for _, number, points in session.execute(pointed(dataset.id)):
        section = safe(dataset.sections[number].name)
        for (y, x, name), word in sorted(stored_points(points).items()):
            writer.writerow([section, y, x, safe(name), _CELLS[word]])
    # Spreadsheets take text for UTF-8 only if it begins with this mark.
    return buffer.getvalue().encode("utf-8-sig")


def _check_inside(section: Section, point: PointLabel) -> None:
    if point.y >= section.height or point.x >= section.width:
        raise ValueError(
            f"y {point.y}, x {point.x} lies outside of section {section.name!r}, which has "
            f"{section.height} rows and {section.width} columns: count from 0, in pixels as stored"
        )


def _windows(
    session: Session, dataset: Dataset, names: ImageNames, section: Section
) -> dict[tuple[int, int], int]:
    """Return the numbers of a section's images by the first row and column of each."""
    extent = names.images(section)
    query = select(Image.y0, Image.x0, Image.n).where(
        Image.dataset_id == dataset.id,
        Image.n.between(extent.first, extent.first + extent.count - 1),
    )
    return {(y0, x0): n for y0, x0, n in session.execute(query)}


def _holding(
    dataset: Dataset, section: Section, windows: dict[tuple[int, int], int], point: PointLabel
) -> int:
    side = dataset.tile_px or max(section.height, section.width)
    corner = point.y // side * side, point.x // side * side
    if corner not in windows:
        raise ValueError(
            f"y {point.y}, x {point.x} of section {section.name!r} lies in no image: the section "
            "has no data there"
        )
    return windows[corner]
