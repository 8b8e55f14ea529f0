"""Find the pixels of a section that are no data: padding, void, and strips with a scale bar.

A microscope writes a strip below its image, with a scale bar and text; alignment leaves padding of
one value where sections do not overlap. Such pixels must not decide how grey values are scaled.

Legend: H height, W width of a section; N lines of M pixels, which are its rows or its columns.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.intake.findings import Findings, listed
from models.data.intake.mask_values import IGNORE_ID
from models.data.readers.limits import Array
from models.data.sections import Section

_BLOCK_PX = 8
_MIN_VOID_SHARE = 0.01
_MIN_CONNECTED = 0.8
_MAX_SWEEPS = 8
_MIN_MARGIN_PX = 2
_MIN_LINE_PX = 16  # a few pixels of one value are no sign of padding
_MAX_STRIP_SHARE = 0.3
_MIN_FLAT = 0.6
"""The least share of a line's pixels that equal the next one, for a line of text or a scale bar.

In tissue the noise of the detector keeps this share far below."""

_MIN_GROUND = 0.4
"""The least share of a line's pixels that have the value of the strip's ground."""

_NOISE = 0.015
"""The share of the range of grey values by which JPEG changes a ground of one value."""

_NEARLY_ALL = 0.99
_MIN_NOISY_GROUND = 0.2  # JPEG changes the ground between letters by more than its noise
_CLEAR_WRITING = 0.3
"""The share of the range of grey values by which writing differs from its ground, at least."""

_JPEG_BLOCK_PX = 8


@dataclass(frozen=True)
class DataField:
    """The rectangle of a section that holds data: rows ``y0`` to ``y1``, columns ``x0`` to ``x1``.

    ``strip`` tells that a part outside holds more than one value, as a scale bar or text does.
    """

    y0: int
    y1: int
    x0: int
    x1: int
    strip: bool = False

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def num_pixels(self) -> int:
        return (self.y1 - self.y0) * (self.x1 - self.x0)

    def touches(self, y0: int, x0: int, height: int, width: int) -> bool:
        """Tell whether a tile has a pixel in the field."""
        rows, cols = y0 < self.y1 and y0 + height > self.y0, x0 < self.x1 and x0 + width > self.x0
        return rows and cols


@dataclass(frozen=True)
class NoData:
    """The pixels of a section that are no data.

    They are those outside ``field``, those inside it that have a value of ``void``, and those that
    the mask ignores and that have a value of ``ignored``. ``num_void`` and ``num_ignored`` count
    the last two.
    """

    field: DataField
    void: tuple[float, ...] = ()
    num_void: int = 0
    ignored: tuple[float, ...] = ()
    num_ignored: int = 0

    def data(self, section: Array, mask: NDArray[np.uint8] | None, rows: slice) -> Array:
        """Return the values of the pixels in some rows of the section that are data: (P,)."""
        inside = slice(max(rows.start, self.field.y0), min(rows.stop, self.field.y1))
        cols = slice(self.field.x0, self.field.x1)
        values = section[inside, cols]
        if not self.void and not self.ignored:
            return values.ravel()
        return values[self.kept(values, None if mask is None else mask[inside, cols])]

    def kept(self, values: Array, mask: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
        """Tell which pixels of a part of the field (H, W) are data; ``mask`` is of that part."""
        kept: NDArray[np.bool_] = ~np.isin(values, self.void)
        if mask is not None and self.ignored:
            kept &= ~(np.isin(values, self.ignored) & (mask == IGNORE_ID))
        return kept


def whole(section: Array) -> NoData:
    """Return that every pixel of a section is data."""
    return NoData(DataField(0, section.shape[0], 0, section.shape[1]))


def is_blank(section: Array) -> bool:
    """Tell whether all pixels have one value, as where a section was lost."""
    first = section[0, 0]
    return bool((section[0] == first).all() and (section == first).all())


def no_data(section: Array, mask: NDArray[np.uint8] | None) -> NoData:
    """Find the pixels of a section (H, W) that are no data; ``mask`` holds 255 where it ignores."""
    field = _data_field(section)
    inside = section[field.window]
    void = _void(inside)
    num_void = int(np.isin(inside, void).sum()) if void else 0
    if mask is None:
        return NoData(field, void, num_void)
    ignored = inside[(mask[field.window] == IGNORE_ID) & ~np.isin(inside, void)]
    if ignored.size < _MIN_VOID_SHARE * inside.size:
        return NoData(field, void, num_void)
    # A value that more than half of them have is the median, too.
    middle = np.partition(ignored, ignored.size // 2)[ignored.size // 2]
    num_ignored = int((ignored == middle).sum())
    if 2 * num_ignored <= ignored.size:
        return NoData(field, void, num_void)
    return NoData(field, void, num_void, (middle.item(),), num_ignored)


def _data_field(section: Array) -> DataField:
    """Return what is left without margins; each side has one, and others may hide it at first."""
    height, width = section.shape
    sampled = section[::_BLOCK_PX, ::_BLOCK_PX]
    grey_range = float(sampled.max()) - float(sampled.min())
    edges, strip = {"top": 0, "bottom": 0, "left": 0, "right": 0}, False
    for _ in range(2):
        for side in edges:
            if edges[side]:
                continue
            rows = slice(edges["top"], height - edges["bottom"])
            cols = slice(edges["left"], width - edges["right"])
            inside = section[rows, cols]
            lines = inside if side in ("top", "bottom") else inside.T
            lines = lines if side in ("top", "left") else lines[::-1]
            edges[side], written = _margin(lines)
            noisy = _noisy_strip(lines, grey_range)
            if noisy > edges[side]:
                edges[side], written = noisy, True
            strip |= written
    return DataField(
        edges["top"], height - edges["bottom"], edges["left"], width - edges["right"], strip
    )


def _margin(lines: Array) -> tuple[int, bool]:
    """Count the lines (N, M) from the first on that are no data; tell if there is writing on them.

    A margin begins and ends with lines that have one value throughout, its ground.
    """
    if lines.shape[1] < _MIN_LINE_PX:
        return 0, False
    ground = lines[0, 0]
    most = int(_MAX_STRIP_SHARE * len(lines))
    end, written = 0, False
    for number, line in enumerate(lines):
        if (line == ground).all():
            written |= end < number
            end = number + 1
        elif number >= most or end < _MIN_MARGIN_PX or not _is_writing(line, ground):
            break
    if end < _MIN_MARGIN_PX or end == len(lines):
        return 0, False
    return end, written


def _noisy_strip(lines: Array, grey_range: float) -> int:
    """Count the lines (N, M) from the first on of a strip whose ground JPEG left nearly flat.

    Resin may be as flat, and hold a piece of tissue as a strip holds writing. A strip has clear
    writing, and ends over its whole width at once.
    """
    if lines.shape[1] < _MIN_LINE_PX:
        return 0
    noise, ground = _NOISE * grey_range, float(np.median(lines[0]))
    end, writing, clear = 0, False, False
    for number in range(int(_MAX_STRIP_SHARE * len(lines))):
        line = lines[number].astype(np.float64) - ground
        on_ground = float(np.mean(np.abs(line) <= noise))
        if on_ground >= _NEARLY_ALL:
            clear |= writing
            end = number + 1
            continue
        if end < _MIN_MARGIN_PX or on_ground < _MIN_NOISY_GROUND:
            break
        writing |= bool(np.abs(line).max() > _CLEAR_WRITING * grey_range)
    if not clear:
        return 0
    # JPEG smears the end of the strip over a block.
    for number in range(end, min(end + _JPEG_BLOCK_PX, len(lines))):
        line = lines[number].astype(np.float64) - ground
        if np.mean(np.abs(line) <= 4 * noise) < 0.5:
            return number
    return 0


def _is_writing(line: Array, ground: np.generic) -> bool:
    if (line == line[0]).all():
        return True
    flat = np.mean(line[1:] == line[:-1])
    return bool(flat >= _MIN_FLAT and np.mean(line == ground) >= _MIN_GROUND)


def _void(inside: Array) -> tuple[float, ...]:
    """Return the values of void that reaches the border: of blocks there that have one value."""
    if min(inside.shape) < 2 * _BLOCK_PX:
        return ()
    found: set[float] = set()
    for edge in (
        inside[:_BLOCK_PX],
        inside[-_BLOCK_PX:],
        inside.T[:_BLOCK_PX],
        inside.T[-_BLOCK_PX:],
    ):
        blocks = edge[:, : edge.shape[1] // _BLOCK_PX * _BLOCK_PX]
        blocks = blocks.reshape(_BLOCK_PX, -1, _BLOCK_PX)  # (8, blocks, 8)
        firsts = blocks[0, :, 0]
        constant = (blocks == firsts[None, :, None]).all(axis=(0, 2))
        found |= set(firsts[constant].tolist())
    return tuple(value for value in sorted(found) if _is_void(inside, value))


def _is_void(inside: Array, value: float) -> bool:
    """Tell whether blocks of one value are many, and nearly all are connected with the border.

    Black axons have one value too, where a detector was set so; but most of them lie inside.
    """
    height, width = (side // _BLOCK_PX * _BLOCK_PX for side in inside.shape)
    shape = (height // _BLOCK_PX, _BLOCK_PX, width // _BLOCK_PX, _BLOCK_PX)
    blocks = (inside[:height, :width] == value).reshape(shape).all(axis=(1, 3))
    num_blocks = int(blocks.sum())
    if num_blocks * _BLOCK_PX**2 < _MIN_VOID_SHARE * inside.size:
        return False
    return int(_from_border(blocks).sum()) >= _MIN_CONNECTED * num_blocks


def _from_border(blocks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the true elements (H, W) that neighbours connect with the border."""
    reached = np.zeros_like(blocks)
    reached[[0, -1]], reached[:, [0, -1]] = blocks[[0, -1]], blocks[:, [0, -1]]
    for _ in range(_MAX_SWEEPS):
        before = int(reached.sum())
        for grid, allowed in ((reached, blocks), (reached.T, blocks.T)):
            for lines, open_ in ((grid, allowed), (grid[::-1], allowed[::-1])):
                for number in range(1, len(lines)):
                    lines[number] |= lines[number - 1] & open_[number]
        if int(reached.sum()) == before:
            break
    return reached


def padding_notes(
    no_data: Mapping[int, NoData], sections: Sequence[Section], findings: Findings
) -> None:
    """Note what was left out of the grey window, and how much of each section that is."""
    strips = [s for s in sections if s.index in no_data and no_data[s.index].field.strip]
    if strips:
        field = no_data[strips[0].index].field
        crop = {"y0": field.y0, "x0": field.x0, "height": field.y1 - field.y0}
        crop["width"] = field.x1 - field.x0
        findings.note(
            "images",
            "strip",
            f"{len(strips)} sections have a strip at a border, with a scale bar or text on one "
            f"grey value. It is no part of the grey window, and makes no tiles of its own. To cut "
            f"it off, register with crop {json.dumps(crop)}. Sections: "
            f"{listed([section.name for section in strips])}.",
        )
    void = {
        s.name: s.height * s.width - no_data[s.index].field.num_pixels + no_data[s.index].num_void
        for s in sections
        if s.index in no_data and not no_data[s.index].field.strip
    }
    padded = [name for name, count in void.items() if count]
    if padded:
        total = sum(s.height * s.width for s in sections)
        findings.note(
            "images",
            "padding",
            f"{sum(void.values())} pixels, {100 * sum(void.values()) / total:.2g} % of all, have "
            "one constant value up to the border, as padding has. They are no part of the grey "
            f"window. Sections: {listed(padded)}.",
        )
    ignored = sum(each.num_ignored for each in no_data.values())
    if ignored:
        findings.note(
            "masks",
            "ignored_constant",
            f"{ignored} pixels that the masks ignore have one constant value. They are no part of "
            "the grey window.",
        )
