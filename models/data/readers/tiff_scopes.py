"""The sizes of pixels that electron microscopes write into private facts of a TIFF."""

from collections.abc import Mapping

import tifffile

from models.data.readers.pixel_size import pixel_nm, plausible


def microscope_nm(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return the size of a pixel (y, x) by Thermo Fisher (FEI), Zeiss or Olympus, or None."""
    for find in (_thermo_fisher, _zeiss, _olympus):
        sizes = find(page)
        if sizes is not None:
            return sizes
    return None


def _thermo_fisher(page: tifffile.TiffPage) -> tuple[float, float] | None:
    for code in (34682, 34680):
        facts = page.tags.valueof(code)
        scan = facts.get("Scan") if isinstance(facts, Mapping) else None
        if isinstance(scan, Mapping):
            return _both(scan.get("PixelHeight"), scan.get("PixelWidth"), "m")
    return None


def _zeiss(page: tifffile.TiffPage) -> tuple[float, float] | None:
    facts = page.tags.valueof(34118)
    fact = facts.get("ap_image_pixel_size") if isinstance(facts, Mapping) else None
    if isinstance(fact, tuple) and len(fact) == 3:
        _, value, unit = fact
        return _both(value, value, str(unit))
    return None


def _olympus(page: tifffile.TiffPage) -> tuple[float, float] | None:
    facts = page.tags.valueof(33560)
    if isinstance(facts, Mapping):
        return _both(facts.get("pixelsizey"), facts.get("pixelsizex"), "m")
    return None


def _both(height: object, width: object, unit: str) -> tuple[float, float] | None:
    if not isinstance(height, int | float) or not isinstance(width, int | float):
        return None
    y, x = pixel_nm(height, unit), pixel_nm(width, unit)
    return None if y is None or x is None or plausible(y) is None else (y, x)
