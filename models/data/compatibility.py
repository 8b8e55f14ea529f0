"""Compare two domains before anything is trained: grey values, contrast, sizes of structures.

Both domains are seen at one working pixel size. A few sections of each are read, a square from the
middle of each, so that the cost does not grow with the domains. Pixels that are no data, such as
padding and strips with scale bars, do not count: the grey window leaves them out, too.

Legend: C classes, H height, W width, B bands of structure size.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.data.domain import IGNORE, Domain, resample_mask
from models.data.intake.padding import is_blank, no_data, whole
from models.data.sections import Section

_SECTIONS = 8
_SIDE_PX = 512
_SIGMAS_PX = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_MIN_SIDE_PX = 64
_MIN_CLASS_PIXELS = 200

_CLEAR_SKEWNESS = 0.2
_CLEAR_ERRORS = 5.0
OPPOSITE_COSINE = -0.6
_OPPOSITE_CORRELATION = -0.5


@dataclass(frozen=True)
class Square:
    """A part of a section: ``image`` (H, W) in [0, 1], ``mask`` (H, W) if there is one.

    ``data`` (H, W) is False where a pixel is no data. There the image has its mean, and the mask
    ignores the pixel.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    data: NDArray[np.bool_]


@dataclass(frozen=True)
class Contrast:
    """Tells whether dark structures of one domain are bright in the other.

    ``inverted`` is None where nothing can be said. ``evidence`` is ``masks`` or ``images``:
    ``masks`` compares the mean grey value of each class; ``images`` compares the skewness of
    structures of each size, which is negative where dark structures stand out.
    """

    inverted: bool | None
    evidence: Literal["masks", "images"]


@dataclass(frozen=True)
class ClassFacts:
    """Describes one class by the sampled masks.

    ``grey`` is its mean grey value in [0, 1], and ``thickness_nm`` is twice its area over the
    length of its outline: the width of a strip, or half the diameter of a disc.
    """

    grey: float
    thickness_nm: float


@dataclass(frozen=True)
class DomainFacts:
    """Describes one domain by the sampled sections, at the working pixel size.

    ``grey_mean`` and ``grey_std`` are of grey values in [0, 1]. ``skewness`` and its standard
    ``error`` over sections are (B,). ``classes`` has the classes with enough pixels in the masks.
    """

    grey_mean: float
    grey_std: float
    skewness: NDArray[np.float64]
    error: NDArray[np.float64]
    classes: dict[str, ClassFacts]


def facts(domain: Domain) -> DomainFacts:
    """Return the facts of a domain from at most eight sections; masks of test sections stay unseen.

    Raises:
        ValueError: no section has 64 pixels a side at the working pixel size.
    """
    squares = [_unscored(domain, section) for section in sample(domain, _SECTIONS)]
    if not squares:
        raise ValueError(
            f"no section of {domain.info.name!r} has {_MIN_SIDE_PX} pixels a side at "
            f"{domain.working_nm:g} nm per pixel"
        )
    pixels = np.concatenate([each.image[each.data] for each in squares])
    skewness = np.array([band_skewness(each.image) for each in squares])
    return DomainFacts(
        grey_mean=float(pixels.mean()),
        grey_std=float(pixels.std()),
        skewness=skewness.mean(0),
        error=skewness.std(0) / np.sqrt(len(squares)),
        classes=_class_facts(domain, squares),
    )


def _unscored(domain: Domain, section: Section) -> Square:
    found = square(domain, section)
    # What is found here decides how the target is registered, so it must not come from its scores.
    return replace(found, mask=None) if section.split == "test" else found


def contrast(source: DomainFacts, target: DomainFacts) -> Contrast:
    """Compare the contrast of two domains by their masks, or else by their images."""
    shared = [name for name in source.classes if name in target.classes]
    if len(shared) >= 2:
        inverted = _classes_inverted(source, target, shared)
        if inverted is not None:
            return Contrast(inverted, "masks")
    clear = [
        np.any((np.abs(each.skewness) > _CLEAR_SKEWNESS) & _significant(each))
        for each in (source, target)
    ]
    if not all(clear):
        return Contrast(None, "images")
    norms = np.linalg.norm(source.skewness) * np.linalg.norm(target.skewness)
    cosine = float(source.skewness @ target.skewness / norms)
    # Of five real pairs of equal contrast the lowest cosine was -0.38; of inverted ones that of
    # scanning against transmission microscopy of axons was -0.88.
    if cosine < OPPOSITE_COSINE:
        return Contrast(True, "images")
    return Contrast(False if cosine > -OPPOSITE_COSINE else None, "images")


def thickness_ratios(source: DomainFacts, target: DomainFacts) -> dict[str, float]:
    """Return the thickness in the target over that in the source, of each class with both."""
    return {
        name: target.classes[name].thickness_nm / of_source.thickness_nm
        for name, of_source in source.classes.items()
        if name in target.classes
    }


def _classes_inverted(source: DomainFacts, target: DomainFacts, shared: list[str]) -> bool | None:
    greys = np.array([[each.classes[name].grey for name in shared] for each in (source, target)])
    if greys.std(axis=1).min() < 0.02:  # the classes do not differ by grey value
        return None
    correlation = float(np.corrcoef(greys)[0, 1])
    if correlation < _OPPOSITE_CORRELATION:
        return True
    return False if correlation > -_OPPOSITE_CORRELATION else None


def _significant(each: DomainFacts) -> NDArray[np.bool_]:
    significant: NDArray[np.bool_] = np.abs(each.skewness) > _CLEAR_ERRORS * each.error
    return significant


def sample(domain: Domain, most: int) -> list[Section]:
    """Return up to ``most`` sections, evenly over the domain; those with masks if any has one."""
    usable = [
        section
        for section in domain.sections
        if section.split != "unused" and min(domain.working_shape(section)) >= _MIN_SIDE_PX
    ]
    usable = [section for section in usable if section.has_mask] or usable
    chosen = np.linspace(0, len(usable) - 1, min(most, len(usable))).astype(int)
    return [usable[index] for index in chosen]


def square(domain: Domain, section: Section) -> Square:
    """Return the middle of a section's data at the working size, up to 512 pixels a side."""
    shape = domain.working_shape(section)
    is_data = resample_mask(_is_data(domain, section).astype(np.uint8), shape) == 1
    if not is_data.any():
        is_data[:] = True
    window = tuple(_middle(np.flatnonzero(is_data.any(axis=1 - axis))) for axis in (0, 1))
    data, image = is_data[window], domain.image(section)[window]
    if not data.any():  # void reaches over the whole middle
        data = np.ones_like(data)
    image = np.where(data, image, image[data].mean(dtype=np.float64)).astype(np.float32)
    mask = np.where(data, domain.mask(section)[window], IGNORE) if section.has_mask else None
    return Square(image, None if mask is None else mask.astype(np.uint8), data)


def _is_data(domain: Domain, section: Section) -> NDArray[np.bool_]:
    """Tell of each pixel of a stored section (H, W) whether it is data; all are in a blank one."""
    native = domain.native_image(section)
    mask = domain.native_mask(section) if section.has_mask else None
    found = whole(native) if is_blank(native) else no_data(native, mask)
    inside = found.field.window
    data = np.zeros(native.shape, bool)
    data[inside] = found.kept(native[inside], None if mask is None else mask[inside])
    return data


def _middle(lines: NDArray[np.intp]) -> slice:
    """Return the middle of the range that some lines span, up to 512 lines."""
    first, end = int(lines[0]), int(lines[-1]) + 1
    middle = (first + end) // 2
    return slice(max(first, middle - _SIDE_PX // 2), min(end, middle + _SIDE_PX // 2))


def band_skewness(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the skewness of differences of Gaussians, from small structures to large: (B,)."""
    height, width = image.shape
    centred = image.astype(np.float64) - image.mean()
    # Mirrored, so that no edge stands out where the image ends.
    padded = np.pad(centred, ((0, height), (0, width)), mode="symmetric")
    spectrum = np.fft.rfft2(padded)
    y, x = np.fft.fftfreq(2 * height)[:, None], np.fft.rfftfreq(2 * width)[None]
    radius = y * y + x * x
    smooth = [
        np.fft.irfft2(
            spectrum * np.exp(-2 * np.pi**2 * sigma**2 * radius), s=(2 * height, 2 * width)
        )[:height, :width]
        for sigma in _SIGMAS_PX
    ]
    bands = [fine - coarse for fine, coarse in zip(smooth, smooth[1:], strict=False)]
    return np.array([_skewness(band) for band in bands])


def _skewness(band: NDArray[np.float64]) -> float:
    std = band.std()
    return float((band**3).mean() / std**3) if std > 1e-6 else 0.0


def _class_facts(domain: Domain, squares: list[Square]) -> dict[str, ClassFacts]:
    found = {}
    for number, name in enumerate(domain.info.class_names):
        greys, area, outline = 0.0, 0, 0
        for each in squares:
            if each.mask is not None:
                inside = each.mask == number
                area += int(inside.sum())
                greys += float(each.image[inside].sum())
                outline += _outline(inside, each.mask != IGNORE)
        if area >= _MIN_CLASS_PIXELS and outline:
            found[name] = ClassFacts(greys / area, 2 * area / outline * domain.working_nm)
    return found


def _outline(inside: NDArray[np.bool_], known: NDArray[np.bool_]) -> int:
    """Count the pixel edges between a class and others; edges to ignored pixels are none."""
    rows = (inside[1:] != inside[:-1]) & known[1:] & known[:-1]
    cols = (inside[:, 1:] != inside[:, :-1]) & known[:, 1:] & known[:, :-1]
    return int(rows.sum() + cols.sum())
