"""Draws a synthetic source and target, so that the demo runs on any computer without a download.

Both domains show the same biology: cells side by side, some with a nucleus, mitochondria or a cloud
of vesicles. The geometry is in nanometres and does not depend on the microscope; then each domain
is imaged by a microscope of its own. The target is a fast scan: noisy, less sharp, striped and
unevenly lit, and with another pixel size. No brightness curve turns its images into source images.
The target also lacks a class: it has no vesicles, only bright granules in the cytosol that look
like vesicles.

Legend: H, W are pixels; *signed distance* is in nm, negative inside a shape; grey is 0 to 1.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.data.domain import IGNORE

CLASSES = ("cytosol", "membrane", "mitochondrion", "nucleus", "vesicle")
CYTOSOL, MEMBRANE, MITOCHONDRION, NUCLEUS, VESICLE = range(len(CLASSES))

DomainName = Literal["source", "target"]
Field = NDArray[np.floating]

_MIN_SIZE_PX = 64  # below this a section may hold no organelle at all
_CELL_NM = 1650.0  # mean distance between cell centres
_MEMBRANE_NM = 23.0  # half the width of two apposed plasma membranes and the gap between them
_GAP_NM = 25.0  # organelles keep this distance, so that no two classes compete for a pixel
_WARP_NM = 85.0  # amplitude of the warp that bends straight cell borders and perfect ellipses
_CRISTAE_NM = 62.0  # period of the cristae
_EDGE_NM = 8.5  # a lipid bilayer with its stain; about a pixel, so that edges do not alias
_FAR_NM = 1e4


@dataclass(frozen=True)
class SyntheticSection:
    """One micrograph and its mask.

    ``image``: uint8 (H, W). ``mask``: uint8 (H, W), index into ``CLASSES``, or 255 to ignore.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class _Microscope:
    """The staining of a domain, in grey levels from 0 to 1, and the faults of its microscope.

    Fields that end in ``_nm`` are in nanometres, those in ``_px`` in pixels.
    """

    pixel_nm: float
    cytosol: float
    membrane: float
    matrix: float
    cristae: float
    nucleoplasm: float
    chromatin: float
    dot: float
    dot_rim: float
    dot_radius_nm: tuple[float, float]
    dots_are_vesicles: bool
    granularity: float
    blur_px: float
    noise: float
    stripes: float
    shading: float


_MICROSCOPES: dict[DomainName, _Microscope] = {
    "source": _Microscope(
        pixel_nm=8.0,
        cytosol=0.70,
        membrane=0.20,
        matrix=0.42,
        cristae=0.66,
        nucleoplasm=0.60,
        chromatin=0.34,
        dot=0.90,
        dot_rim=0.30,
        dot_radius_nm=(32.0, 44.0),
        dots_are_vesicles=True,
        granularity=0.020,
        blur_px=0.6,
        noise=0.010,
        stripes=0.0,
        shading=0.01,
    ),
    "target": _Microscope(
        pixel_nm=10.0,
        cytosol=0.52,
        membrane=0.26,
        matrix=0.44,
        cristae=0.36,
        nucleoplasm=0.42,
        chromatin=0.30,
        dot=0.86,
        dot_rim=0.54,
        dot_radius_nm=(26.0, 36.0),
        dots_are_vesicles=False,
        granularity=0.020,
        blur_px=0.9,
        noise=0.055,
        stripes=0.006,
        shading=0.008,
    ),
}


class _Ellipse(NamedTuple):
    """An ellipse: its centre and semi-axes in nm, and the angle of its long axis in radians."""

    y: float
    x: float
    long: float
    short: float
    angle: float


@dataclass(frozen=True)
class _Scene:
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


class _Canvas:
    """Holds warped coordinates of each pixel, and its distance from all placed shapes, in nm."""

    def __init__(self, size_px: int, pixel_nm: float, rng: np.random.Generator) -> None:
        self.shape = (size_px, size_px)
        self.pixel_nm = pixel_nm
        self.extent_nm = size_px * pixel_nm
        axis = (np.arange(size_px, dtype=np.float32) + 0.5) * pixel_nm
        self.y = axis[:, None] + _WARP_NM / 2 * self.noise(rng, 450.0)
        self.x = axis[None, :] + _WARP_NM / 2 * self.noise(rng, 450.0)
        self.free = np.full(self.shape, _FAR_NM, np.float32)

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

    def window(self, shape: _Ellipse) -> tuple[slice, slice]:
        """Return the rows and columns that can hold the ellipse and the gap around it."""
        reach = shape.long + 2 * _GAP_NM + 2 * _WARP_NM

        def span(centre: float) -> slice:
            low, high = (centre - reach) / self.pixel_nm, (centre + reach) / self.pixel_nm
            return slice(max(0, int(low)), max(0, int(high) + 1))

        return span(shape.y), span(shape.x)

    def distance(self, shape: _Ellipse) -> tuple[Field, Field]:
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

    def place(self, shape: _Ellipse) -> bool:
        """Reserve the pixels of an ellipse; return False if another shape is too near."""
        window = self.window(shape)
        distance, _ = self.distance(shape)
        room = self.free[window]
        inside = distance < 0
        if not inside.any() or room[inside].min() < _GAP_NM:
            return False
        np.minimum(room, distance, out=room)
        return True

    def nearest(self, shapes: Iterable[_Ellipse]) -> tuple[Field, Field]:
        """Return the signed distance to the nearest shape and the position along it: (H, W)."""
        distance = np.full(self.shape, _FAR_NM, np.float32)
        along = np.zeros(self.shape, np.float32)
        for shape in shapes:
            window = self.window(shape)
            here, position = self.distance(shape)
            along[window] = np.where(here < distance[window], position, along[window])
            np.minimum(distance[window], here, out=distance[window])
        return distance, along


def make_section(domain: DomainName, seed: int, size_px: int) -> SyntheticSection:
    """Draw one square section of ``size_px`` pixels; equal arguments give equal bytes.

    The two domains never show the same scene, not even with the same seed, so they are unpaired.
    """
    if size_px < _MIN_SIZE_PX:
        raise ValueError(f"size_px is {size_px}, and must be at least {_MIN_SIZE_PX}")
    microscope = _MICROSCOPES[domain]
    rng = np.random.default_rng([seed, list(_MICROSCOPES).index(domain)])
    canvas = _Canvas(size_px, microscope.pixel_nm, rng)
    scene = _grow(canvas, microscope, rng)
    stained = _stain(scene, canvas, microscope, rng)
    image = _expose(stained, canvas, microscope, rng)
    return SyntheticSection(image=image, mask=_label(scene, microscope))


def write_domain(
    folder: Path, domain: DomainName, *, num_sections: int, size_px: int, seed: int
) -> None:
    """Write ``images/000.png``, ``masks/000.png`` and so on (8-bit grey), and ``meta.json``."""
    if num_sections < 1:
        raise ValueError(f"num_sections is {num_sections}, and must be at least 1")
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    seeds = np.random.default_rng(seed).integers(2**31, size=num_sections)
    for index, section_seed in enumerate(seeds):
        section = make_section(domain, int(section_seed), size_px)
        Image.fromarray(section.image).save(folder / "images" / f"{index:03d}.png")
        Image.fromarray(section.mask).save(folder / "masks" / f"{index:03d}.png")
    meta = {
        "name": f"synthetic_{domain}",
        "specimen": "generated: cells with nuclei, mitochondria and, in the source, vesicles",
        "modality": "synthetic",
        "pixel_size_nm": _MICROSCOPES[domain].pixel_nm,
        "classes": list(CLASSES),
        "num_images": num_sections,
        "image_size_px": [size_px, size_px],
        "splits": _splits(num_sections),
        "order": "sections are independent of each other",
        "licence": "CC0-1.0",
        "source": "generated",
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _splits(num_sections: int) -> dict[str, list[int]]:
    """Divide sections 60/20/20 % between train, val and test; fewer than three all train."""
    held_out = max(1, round(0.2 * num_sections)) if num_sections >= 3 else 0
    val, test = num_sections - 2 * held_out, num_sections - held_out
    indices = list(range(num_sections))
    return {"train": indices[:val], "val": indices[val:test], "test": indices[test:]}


def _grow(canvas: _Canvas, microscope: _Microscope, rng: np.random.Generator) -> _Scene:
    """Place cells and their organelles; a cell holds some kinds of organelles, not all."""
    centres = _cell_centres(canvas, rng)
    border = _distance_to_border(canvas, centres)
    np.minimum(canvas.free, border - _MEMBRANE_NM, out=canvas.free)

    nuclei: list[_Ellipse] = []
    mitochondria: list[_Ellipse] = []
    dots: list[_Ellipse] = []
    has_nucleus, has_mitochondria, has_dots = rng.random((3, len(centres))) < [[0.4], [0.4], [0.45]]
    for index, centre in enumerate(centres):
        if has_nucleus[index]:
            nuclei += _place_nucleus(canvas, centre, rng)
        if has_mitochondria[index]:
            mitochondria += _place_mitochondria(canvas, centre, rng)
        if has_dots[index]:
            dots += _place_dots(canvas, centre, microscope.dot_radius_nm, rng)

    mitochondrion, along = canvas.nearest(mitochondria)
    return _Scene(
        cell_border=border,
        nucleus=canvas.nearest(nuclei)[0],
        mitochondrion=mitochondrion,
        along=along,
        dot=canvas.nearest(dots)[0],
        ignore=_unannotated_corner(canvas, rng),
    )


def _cell_centres(canvas: _Canvas, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a jittered grid of cell centres (num_cells, 2): y and x in nm.

    The grid reaches one cell beyond the section.
    """
    num = int(np.ceil(canvas.extent_nm / _CELL_NM)) + 3
    rows, columns = np.indices((num, num)).reshape(2, -1)
    # The grid is laid like bricks, because three cells meet in a point; in a square grid four do.
    grid = np.stack([rows, columns + rows % 2 / 2], axis=1)
    return (grid - 1.5 + rng.random(2) + rng.uniform(-0.3, 0.3, grid.shape)) * _CELL_NM


def _distance_to_border(canvas: _Canvas, centres: NDArray[np.float64]) -> Field:
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
    canvas: _Canvas, centre: NDArray[np.float64], rng: np.random.Generator
) -> list[_Ellipse]:
    """Place a nucleus of random size near the middle of the cell, smaller if it does not fit."""
    y, x = centre + rng.normal(0, 60, 2)
    angle, largest, ratio = rng.uniform([0, 380, 0.75], [np.pi, 520, 0.95])
    for scale in (1.0, 0.85, 0.7):
        nucleus = _Ellipse(y, x, scale * largest, scale * ratio * largest, angle)
        if canvas.place(nucleus):
            return [nucleus]
    return []


def _place_mitochondria(
    canvas: _Canvas, centre: NDArray[np.float64], rng: np.random.Generator
) -> list[_Ellipse]:
    """Place up to four mitochondria together at one side of the cell."""
    placed: list[_Ellipse] = []
    side = centre + rng.normal(0, 0.25 * _CELL_NM, 2)
    for _ in range(40):
        y, x = side + rng.normal(0, 0.2 * _CELL_NM, 2)
        angle, long, short = rng.uniform([0, 130, 85], [np.pi, 270, 125])
        mitochondrion = _Ellipse(y, x, long, short, angle)
        if len(placed) < 4 and canvas.place(mitochondrion):
            placed.append(mitochondrion)
    return placed


def _place_dots(
    canvas: _Canvas,
    centre: NDArray[np.float64],
    radius_nm: tuple[float, float],
    rng: np.random.Generator,
) -> list[_Ellipse]:
    """Place a cloud of vesicles or granules at one side of the cell."""
    cloud = centre + rng.normal(0, 0.25 * _CELL_NM, 2)
    placed: list[_Ellipse] = []
    for _ in range(60):
        y, x = cloud + rng.normal(0, 160, 2)
        radius = rng.uniform(*radius_nm)
        dot = _Ellipse(y, x, radius, radius * rng.uniform(0.85, 1.0), rng.uniform(0, np.pi))
        if canvas.place(dot):
            placed.append(dot)
    return placed


def _unannotated_corner(canvas: _Canvas, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a corner that no annotator has labelled, in one section of three: bool (H, W)."""
    size = canvas.shape[0]
    cut, flip_y, flip_x = rng.random(3)
    if cut > 1 / 3:
        return np.zeros(canvas.shape, np.bool_)
    rows, columns = np.ogrid[:size, :size]
    corner = rows + columns < 0.25 * size
    return corner[:: -1 if flip_y < 0.5 else 1, :: -1 if flip_x < 0.5 else 1]


def _label(scene: _Scene, microscope: _Microscope) -> NDArray[np.uint8]:
    """Return the class of each pixel: uint8 (H, W).

    The pixel on the border of a nucleus is ignored, because it could belong to either side.
    """
    mask = np.full(scene.dot.shape, CYTOSOL, np.uint8)
    mask[scene.nucleus < 0] = NUCLEUS
    mask[scene.mitochondrion < 0] = MITOCHONDRION
    if microscope.dots_are_vesicles:
        mask[scene.dot < 0] = VESICLE
    mask[scene.cell_border < _MEMBRANE_NM] = MEMBRANE
    mask[np.abs(scene.nucleus) < microscope.pixel_nm / 2] = IGNORE
    mask[scene.ignore] = IGNORE
    return mask


def _stain(
    scene: _Scene, canvas: _Canvas, microscope: _Microscope, rng: np.random.Generator
) -> Field:
    """Return the grey level of the stained specimen, without the microscope's faults: (H, W)."""
    tint = microscope
    ribosomes, patches, reticulum = (canvas.noise(rng, scale) for scale in (22.0, 420.0, 260.0))
    faint = (tint.cytosol + tint.membrane) / 2
    image: Field = tint.cytosol + tint.granularity * (ribosomes + 0.4 * patches)
    # The endoplasmic reticulum has no class: it is drawn in places, along the zero line of a noise.
    image = _line(image, faint, 150 * reticulum + _FAR_NM * (patches < 0.5))

    # Chromatin is denser near the nuclear envelope.
    clumps = 0.8 * canvas.noise(rng, 75.0) + 0.5 * np.exp(np.minimum(scene.nucleus, 0) / 60)
    nucleus = _mix(tint.nucleoplasm, tint.chromatin, np.clip(0.5 + clumps, 0, 1))
    image = _fill(image, nucleus + 0.6 * tint.granularity * ribosomes, scene.nucleus)
    image = _line(image, tint.cytosol, scene.nucleus + 20)
    image = _line(_line(image, tint.membrane, scene.nucleus + 6), faint, scene.nucleus + 34)

    waves = np.cos(2 * np.pi * (scene.along + 22 * canvas.noise(rng, 130.0)) / _CRISTAE_NM)
    waves = np.clip(1.6 * waves - 0.4, 0, 1) * (scene.mitochondrion < -24)
    matrix = _mix(tint.matrix, tint.cristae, waves) + 0.4 * tint.granularity * ribosomes
    image = _fill(image, matrix, scene.mitochondrion)
    image = _line(image, tint.membrane, scene.mitochondrion + 8)
    image = _line(image, faint, scene.mitochondrion + 26)

    image = _line(_fill(image, tint.dot, scene.dot), tint.dot_rim, scene.dot + 4)
    image = _fill(image, tint.cytosol, scene.cell_border - _MEMBRANE_NM)
    return _line(image, tint.membrane, scene.cell_border - 13)


def _mix(image: Field | float, grey: Field | float, cover: Field) -> Field:
    """Lay ``grey`` over ``image`` as far as ``cover`` (0 to 1) says."""
    mixed: Field = image + cover * (grey - image)
    return mixed


def _fill(image: Field, grey: Field | float, distance: Field) -> Field:
    """Paint the inside of a shape, where its signed distance is negative."""
    return _mix(image, grey, np.clip(0.5 - distance / _EDGE_NM, 0, 1))


def _line(image: Field, grey: float, distance: Field) -> Field:
    """Paint a membrane, where the signed distance is zero."""
    return _mix(image, grey, np.exp(-((distance / _EDGE_NM) ** 2)))


def _expose(
    stained: Field, canvas: _Canvas, microscope: _Microscope, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Image the specimen: blur, uneven light, curtaining (vertical stripes) and shot noise.

    Return uint8 (H, W).
    """
    image = _blur(stained, microscope.blur_px)
    image = image + microscope.shading * canvas.noise(rng, 1500.0)
    curtain = rng.standard_normal((1, canvas.shape[1]), dtype=np.float32)
    image = image + microscope.stripes * curtain * (1 + 0.5 * canvas.noise(rng, 900.0))
    shot = rng.standard_normal(canvas.shape, dtype=np.float32)
    # Shot noise grows with the square root of the signal.
    image = image + microscope.noise * shot * np.sqrt(np.clip(2 * image, 0.1, 2))
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _blur(image: Field, sigma_px: float) -> Field:
    """Blur with a separable Gaussian; edges are replicated."""
    reach = int(np.ceil(3 * sigma_px))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma_px) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    for _ in range(2):
        padded = np.pad(image, ((reach, reach), (0, 0)), mode="edge")
        rows = len(image)
        image = np.sum([k * padded[i : i + rows] for i, k in enumerate(kernel)], axis=0).T
    return image
