"""Grows the scene of a synthetic section: cells and their organelles, in nanometres.

Legend: H, W are pixels; *signed distance* is in nm, negative inside a shape.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.floating]

_CELL_NM = 1650.0  # mean distance between cell centres
MEMBRANE_NM = 23.0  # half the width of two apposed plasma membranes and the gap between them
_GAP_NM = 25.0  # organelles keep this distance, so that no two classes compete for a pixel
_WARP_NM = 85.0  # amplitude of the warp that bends straight cell borders and perfect ellipses
FAR_NM = 1e4


class Ellipse(NamedTuple):
    """An ellipse: its centre and semi-axes in nm, and the angle of its long axis in radians."""

    y: float
    x: float
    long: float
    short: float
    angle: float


@dataclass(frozen=True)
class Scene:
    """The distance of every pixel from each kind of structure, in nm: float32 (H, W).

    The distances are signed, except for ``cell_border``. ``along`` is the position along the long
    axis of the nearest mitochondrion, in nm. ``ignore`` is bool (H, W).
    """

    cell_border: Field
    nucleus: Field
    mitochondrion: Field
    along: Field
    dot: Field
    ignore: NDArray[np.bool_]


class Canvas:
    """Holds warped coordinates of each pixel, and its distance from all placed shapes, in nm."""

    def __init__(self, size_px: int, pixel_nm: float, rng: np.random.Generator) -> None:
        self.shape = (size_px, size_px)
        self.pixel_nm = pixel_nm
        self.extent_nm = size_px * pixel_nm
        axis = (np.arange(size_px, dtype=np.float32) + 0.5) * pixel_nm
        self.y = axis[:, None] + _WARP_NM / 2 * self.noise(rng, 450.0)
        self.x = axis[None, :] + _WARP_NM / 2 * self.noise(rng, 450.0)
        self.free = np.full(self.shape, FAR_NM, np.float32)

    def noise(self, rng: np.random.Generator, scale_nm: float) -> Field:
        """Return smooth noise (H, W) of about unit variance and correlation length ``scale_nm``."""
        height, width = self.shape
        num = int(np.ceil(self.extent_nm / scale_nm)) + 2
        coarse = Image.fromarray(rng.standard_normal((num, num), dtype=np.float32))
        # The box keeps the correlation length the same for sections of any size.
        span = self.extent_nm / scale_nm
        fine = coarse.resize(
            (width, height), Image.Resampling.BICUBIC, box=(1, 1, 1 + span, 1 + span)
        )
        return np.asarray(fine, np.float32) * np.float32(1.22)  # interpolation loses variance

    def window(self, shape: Ellipse) -> tuple[slice, slice]:
        """Return the rows and columns that can hold the ellipse and the gap around it."""
        reach = shape.long + 2 * _GAP_NM + 2 * _WARP_NM

        def span(centre: float) -> slice:
            low, high = (centre - reach) / self.pixel_nm, (centre + reach) / self.pixel_nm
            return slice(max(0, int(low)), max(0, int(high) + 1))

        return span(shape.y), span(shape.x)

    def distance(self, shape: Ellipse) -> tuple[Field, Field]:
        """Return the signed distance to the ellipse and the position along its long axis, in nm.

        Both arrays cover the window of the ellipse only.
        """
        window = self.window(shape)
        dy, dx = self.y[window] - shape.y, self.x[window] - shape.x
        cos, sin = np.float32(np.cos(shape.angle)), np.float32(np.sin(shape.angle))
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        radius = np.hypot(along / shape.long, across / shape.short)
        # The distance to an ellipse to first order is its level set over the gradient's length.
        slope = np.hypot(along / shape.long**2, across / shape.short**2) + 1e-6
        return radius * (radius - 1) / slope, along

    def place(self, shape: Ellipse) -> bool:
        """Reserve the pixels of an ellipse; return False if another shape is too near."""
        window = self.window(shape)
        distance, _ = self.distance(shape)
        room = self.free[window]
        inside = distance < 0
        if not inside.any() or room[inside].min() < _GAP_NM:
            return False
        np.minimum(room, distance, out=room)
        return True

    def nearest(self, shapes: Iterable[Ellipse]) -> tuple[Field, Field]:
        """Return the signed distance to the nearest shape and the position along it: (H, W)."""
        distance = np.full(self.shape, FAR_NM, np.float32)
        along = np.zeros(self.shape, np.float32)
        for shape in shapes:
            window = self.window(shape)
            here, position = self.distance(shape)
            along[window] = np.where(here < distance[window], position, along[window])
            np.minimum(distance[window], here, out=distance[window])
        return distance, along


def grow(canvas: Canvas, dot_radius_nm: tuple[float, float], rng: np.random.Generator) -> Scene:
    """Place cells and their organelles; a cell holds some kinds of organelles, not all."""
    centres = _cell_centres(canvas, rng)
    border = _distance_to_border(canvas, centres)
    np.minimum(canvas.free, border - MEMBRANE_NM, out=canvas.free)

    nuclei: list[Ellipse] = []
    mitochondria: list[Ellipse] = []
    dots: list[Ellipse] = []
    has_nucleus, has_mitochondria, has_dots = rng.random((3, len(centres))) < [[0.4], [0.4], [0.45]]
    for index, centre in enumerate(centres):
        if has_nucleus[index]:
            nuclei += _place_nucleus(canvas, centre, rng)
        if has_mitochondria[index]:
            mitochondria += _place_mitochondria(canvas, centre, rng)
        if has_dots[index]:
            dots += _place_dots(canvas, centre, dot_radius_nm, rng)

    mitochondrion, along = canvas.nearest(mitochondria)
    return Scene(
        cell_border=border,
        nucleus=canvas.nearest(nuclei)[0],
        mitochondrion=mitochondrion,
        along=along,
        dot=canvas.nearest(dots)[0],
        ignore=_unannotated_corner(canvas, rng),
    )


def _cell_centres(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a jittered grid of cell centres (num_cells, 2): y and x in nm.

    The grid reaches one cell beyond the section.
    """
    num = int(np.ceil(canvas.extent_nm / _CELL_NM)) + 3
    rows, columns = np.indices((num, num)).reshape(2, -1)
    # The grid is laid like bricks, because three cells meet in a point; in a square grid four do.
    grid = np.stack([rows, columns + rows % 2 / 2], axis=1)
    return (grid - 1.5 + rng.random(2) + rng.uniform(-0.3, 0.3, grid.shape)) * _CELL_NM


def _distance_to_border(canvas: Canvas, centres: NDArray[np.float64]) -> Field:
    """Return the distance to the border between the two nearest cells, in nm: (H, W).

    The border is the perpendicular bisector of the two centres.
    """
    first = np.full(canvas.shape, np.inf, np.float32)
    second = first.copy()
    owner = np.zeros(canvas.shape, np.intp)
    rival = np.zeros(canvas.shape, np.intp)
    for index, (y, x) in enumerate(centres.astype(np.float32)):
        square = (canvas.y - y) ** 2 + (canvas.x - x) ** 2
        wins, places = square < first, square < second
        rival = np.where(wins, owner, np.where(places, index, rival))
        second = np.where(wins, first, np.where(places, square, second))
        owner = np.where(wins, index, owner)
        first = np.minimum(first, square)
    apart = np.hypot(*np.moveaxis(centres[owner] - centres[rival], -1, 0))
    border: Field = ((second - first) / (2 * apart)).astype(np.float32)
    return border


def _place_nucleus(
    canvas: Canvas, centre: NDArray[np.float64], rng: np.random.Generator
) -> list[Ellipse]:
    """Place a nucleus of random size near the middle of the cell, smaller if it does not fit."""
    y, x = centre + rng.normal(0, 60, 2)
    angle, largest, ratio = rng.uniform([0, 380, 0.75], [np.pi, 520, 0.95])
    for scale in (1.0, 0.85, 0.7):
        nucleus = Ellipse(y, x, scale * largest, scale * ratio * largest, angle)
        if canvas.place(nucleus):
            return [nucleus]
    return []


def _place_mitochondria(
    canvas: Canvas, centre: NDArray[np.float64], rng: np.random.Generator
) -> list[Ellipse]:
    """Place up to four mitochondria together at one side of the cell."""
    placed: list[Ellipse] = []
    side = centre + rng.normal(0, 0.25 * _CELL_NM, 2)
    for _ in range(40):
        y, x = side + rng.normal(0, 0.2 * _CELL_NM, 2)
        angle, long, short = rng.uniform([0, 130, 85], [np.pi, 270, 125])
        mitochondrion = Ellipse(y, x, long, short, angle)
        if len(placed) < 4 and canvas.place(mitochondrion):
            placed.append(mitochondrion)
    return placed


def _place_dots(
    canvas: Canvas,
    centre: NDArray[np.float64],
    radius_nm: tuple[float, float],
    rng: np.random.Generator,
) -> list[Ellipse]:
    """Place a cloud of vesicles or granules at one side of the cell."""
    cloud = centre + rng.normal(0, 0.25 * _CELL_NM, 2)
    placed: list[Ellipse] = []
    for _ in range(60):
        y, x = cloud + rng.normal(0, 160, 2)
        radius = rng.uniform(*radius_nm)
        dot = Ellipse(y, x, radius, radius * rng.uniform(0.85, 1.0), rng.uniform(0, np.pi))
        if canvas.place(dot):
            placed.append(dot)
    return placed


def _unannotated_corner(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a corner that no annotator has labelled, in one section of three: bool (H, W)."""
    size = canvas.shape[0]
    cut, flip_y, flip_x = rng.random(3)
    if cut > 1 / 3:
        return np.zeros(canvas.shape, np.bool_)
    rows, columns = np.ogrid[:size, :size]
    corner = rows + columns < 0.25 * size
    return corner[:: -1 if flip_y < 0.5 else 1, :: -1 if flip_x < 0.5 else 1]
