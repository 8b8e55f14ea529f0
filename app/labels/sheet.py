"""Reads labels from a table of CSV, as spreadsheets save it, and writes such a table.

The first line names the columns: ``image`` (a number, or the name of a section), ``number`` or
``section``, after ``section`` perhaps ``tile``, and then classes. Each other line is an image.
"""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from app.labels.collected import Classes, Collected
from app.labels.naming import ImageNames, composed
from models.data.labels import LabelState, label_state

_SEPARATORS = (",", ";", "\t")
_NAMING = ("image", "number", "section")
_MAX_LINES = 1_000_001
_MAX_LINE_CHARS = 1 << 17  # enough for 255 classes with names of 100 characters
_CELLS = {LabelState.PRESENT: "1", LabelState.ABSENT: "0", LabelState.UNKNOWN: ""}
# Spreadsheets compute cells that begin with one of these, except the apostrophe.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


@dataclass(frozen=True)
class _Columns:
    """The columns of a table: ``num_naming`` that name an image, then a class for each cell.

    The class is None above a column that must be empty.
    """

    separator: str
    naming: str
    num_naming: int
    classes: tuple[str | None, ...]

    def image(self, cells: Sequence[str], names: ImageNames) -> int:
        """Return the number of the image that a line is for; ValueError if there is none."""
        name = plain(cells[0])
        if self.naming == "image":
            return names.either(name)
        if self.naming == "number":
            return names.number(_number(name, "number"))
        if self.num_naming == 1:
            return names.tile(name, None)
        return names.tile(name, _number(cells[1] if len(cells) > 1 else "", "tile"))

    def read(self, states: Sequence[str]) -> tuple[Classes, list[str]]:
        """Return the labels in the cells of a line, and what is wrong with them.

        A spreadsheet may leave out empty cells at the end of a line.
        """
        classes = {name: LabelState.UNKNOWN for name in self.classes if name is not None}
        wrong = []
        for place, text in enumerate(states):
            name = self.classes[place] if place < len(self.classes) else None
            if name is None and text.strip():
                wrong.append(f"has {text[:40]!r} in a column that no class stands above")
            elif name is not None:
                try:
                    classes[name] = label_state(text)
                except ValueError as error:
                    wrong.append(f"{name} {error}")
        return classes, wrong


def read_sheet(data: bytes, names: ImageNames, class_names: Sequence[str]) -> dict[int, Classes]:
    """Return the labels in a table of CSV, by the number of the image.

    An empty cell means unknown. A class without a column is not in the labels. The text is UTF-8 or
    UTF-16, its cells are separated by commas, semicolons or tabs, and empty lines are passed over.

    Raises:
        Invalid: names each line that is wrong.
    """
    collected = Collected("line {}")
    lines = io.StringIO(decoded(data, collected), newline=None)
    columns = _columns(next(lines, ""), class_names, collected)
    known: dict[tuple[str, ...], Classes] = {}  # most lines have the same states as another
    for number, line in enumerate(lines, start=2):
        if number > _MAX_LINES:
            collected.problem(number, f"is too many: send at most {_MAX_LINES} lines at once")
            break
        if not line.strip(' \n"' + columns.separator):
            continue
        try:
            cells = _cells(line, columns.separator)
            states = tuple(cells[columns.num_naming :])
            if states not in known:
                classes, wrong = columns.read(states)
                for message in wrong:
                    collected.problem(number, message)
                if not wrong:
                    known[states] = classes
            collected.add(number, columns.image(cells, names), known.get(states, {}))
        except ValueError as error:
            collected.problem(number, str(error))
    labels = collected.labels()
    if not labels:
        collected.problem(2, "is missing: write a line for each image that you label")
        collected.refuse_problems()
    return labels


def write_sheet(
    rows: Iterable[tuple[str, int, Sequence[LabelState]]],
    class_names: Sequence[str],
    *,
    tiles: bool,
) -> Iterator[bytes]:
    """Yield the lines of a table that ``read_sheet`` reads: UTF-8, with commas.

    A row is the name of a section, the number of a tile of the section, and a label for each class.
    ``tiles`` says whether the table has a column for the tile.
    """
    # Otherwise a column of labels would be read as the numbers of tiles.
    tiles = tiles or class_names[0].strip().casefold() == "tile"
    naming = ["section", "tile"] if tiles else ["section"]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([*naming, *map(safe, class_names)])
    # Spreadsheets take text for UTF-8 only if it begins with this mark.
    yield codecs.BOM_UTF8
    for section, tile, states in rows:
        named = [safe(section), tile] if tiles else [safe(section)]
        writer.writerow([*named, *(_CELLS[state] for state in states)])
        if buffer.tell() > 1 << 16:
            yield _taken(buffer)
    yield _taken(buffer)


def safe(text: str) -> str:
    """Return a name as a cell that no spreadsheet computes: after an apostrophe, if it has to be.

    A name that begins with an apostrophe gets another, so that ``plain`` gives each name back.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def plain(cell: str) -> str:
    """Return the name in a cell: the inverse of ``safe``."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def decoded(data: bytes, collected: Collected) -> str:
    """Return the text of a table; Invalid, with its line, if a character cannot be read."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if wide else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].decode(encoding, "replace").count("\n")
        collected.problem(line, "has a character that is not UTF-8: save the table as CSV UTF-8")
        collected.refuse_problems()
        raise


def _columns(line: str, class_names: Sequence[str], collected: Collected) -> _Columns:
    """Read the first line of a table; Invalid if it names no image and class, or a class twice."""
    try:
        separator, cells = separated(line)
    except ValueError as error:
        collected.problem(1, str(error))
        collected.refuse_problems()
        raise
    naming = cells[0].strip().casefold()
    with_tile = naming == "section" and cells[1:] and cells[1].strip().casefold() == "tile"
    num_naming = 2 if with_tile else 1
    by_name = {composed(name): name for name in class_names}
    classes: list[str | None] = []
    for cell in cells[num_naming:]:
        text = composed(plain(cell))
        name = by_name.get(text, by_name.get(text.strip()))
        if name is None and text.strip():
            message = f"the dataset has no class {cell[:100]!r}: its classes are "
            collected.problem(1, message + ", ".join(class_names))
        elif name is not None and name in classes:
            collected.problem(1, f"names the class {name!r} twice: leave one of the columns out")
        classes.append(name)
    collected.refuse_problems()
    if not any(classes):
        message = "names no class: write a column for at least one of "
        collected.problem(1, message + ", ".join(class_names))
        collected.refuse_problems()
    return _Columns(separator, naming, num_naming, tuple(classes))


def separated(line: str) -> tuple[str, list[str]]:
    """Return the separator of the first line, by which its first cell has a known name."""
    for separator in _SEPARATORS:
        cells = _cells(line, separator)
        if cells and cells[0].strip().casefold() in _NAMING:
            return separator, cells
    raise ValueError(
        f"begins with {line.strip()[:40]!r}, but the first line has to name the columns: image, "
        "number or section, and then classes, between commas, semicolons or tabs"
    )


def _cells(line: str, separator: str) -> list[str]:
    if len(line) > _MAX_LINE_CHARS:
        raise ValueError(f"has more than {_MAX_LINE_CHARS} characters: divide the table by classes")
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise ValueError(f"cannot be divided into cells ({error}): close each quotation") from error


def _number(text: str, what: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError(f"has the {what} {text[:40]!r}: write a whole number from 0 on")
    return int(text)


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()
