"""Images a scene by a microscope: its staining, and the faults of the microscope.

Legend: H, W are pixels; *signed distance* is in nm, negative inside a shape; grey is 0 to 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.cli.synthetic.scene import FAR_NM, MEMBRANE_NM, Canvas, Field, Scene

_CRISTAE_NM = 62.0  # period of the cristae
_EDGE_NM = 8.5  # a lipid bilayer with its stain; about a pixel, so that edges do not alias


@dataclass(frozen=True)
class Microscope:
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


def stain(scene: Scene, canvas: Canvas, microscope: Microscope, rng: np.random.Generator) -> Field:
    """Return the grey level of the stained specimen, without the microscope's faults: (H, W)."""
    tint = microscope
    ribosomes, patches, reticulum = (canvas.noise(rng, scale) for scale in (22.0, 420.0, 260.0))
    faint = (tint.cytosol + tint.membrane) / 2
    image: Field = tint.cytosol + tint.granularity * (ribosomes + 0.4 * patches)
    # The endoplasmic reticulum has no class: it is drawn in places, along the zero line of a noise.
    image = _line(image, faint, 150 * reticulum + FAR_NM * (patches < 0.5))

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
    image = _fill(image, tint.cytosol, scene.cell_border - MEMBRANE_NM)
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


def expose(
    stained: Field, canvas: Canvas, microscope: Microscope, rng: np.random.Generator
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
