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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.cli.synthetic.microscope import Microscope, expose, stain
from app.cli.synthetic.scene import MEMBRANE_NM, Canvas, Scene, grow
from models.data.domain import IGNORE

CLASSES = ("cytosol", "membrane", "mitochondrion", "nucleus", "vesicle")
CYTOSOL, MEMBRANE, MITOCHONDRION, NUCLEUS, VESICLE = range(len(CLASSES))

DomainName = Literal["source", "target"]

_MIN_SIZE_PX = 64  # below this a section may hold no organelle at all


@dataclass(frozen=True)
class SyntheticSection:
    """One micrograph and its mask.

    ``image``: uint8 (H, W). ``mask``: uint8 (H, W), index into ``CLASSES``, or 255 to ignore.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


_MICROSCOPES: dict[DomainName, Microscope] = {
    "source": Microscope(
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
    "target": Microscope(
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


def make_section(domain: DomainName, seed: int, size_px: int) -> SyntheticSection:
    """Draw one square section of ``size_px`` pixels; equal arguments give equal bytes.

    The two domains never show the same scene, not even with the same seed, so they are unpaired.
    """
    if size_px < _MIN_SIZE_PX:
        raise ValueError(f"size_px is {size_px}, and must be at least {_MIN_SIZE_PX}")
    microscope = _MICROSCOPES[domain]
    rng = np.random.default_rng([seed, list(_MICROSCOPES).index(domain)])
    canvas = Canvas(size_px, microscope.pixel_nm, rng)
    scene = grow(canvas, microscope.dot_radius_nm, rng)
    stained = stain(scene, canvas, microscope, rng)
    image = expose(stained, canvas, microscope, rng)
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


def _label(scene: Scene, microscope: Microscope) -> NDArray[np.uint8]:
    """Return the class of each pixel: uint8 (H, W).

    The pixel on the border of a nucleus is ignored, because it could belong to either side.
    """
    mask = np.full(scene.dot.shape, CYTOSOL, np.uint8)
    mask[scene.nucleus < 0] = NUCLEUS
    mask[scene.mitochondrion < 0] = MITOCHONDRION
    if microscope.dots_are_vesicles:
        mask[scene.dot < 0] = VESICLE
    mask[scene.cell_border < MEMBRANE_NM] = MEMBRANE
    mask[np.abs(scene.nucleus) < microscope.pixel_nm / 2] = IGNORE
    mask[scene.ignore] = IGNORE
    return mask
