"""The sizes of pixels as files state them, in nanometres."""

from math import isfinite

UNITS_NM = {
    "pm": 1e-3,
    "picometer": 1e-3,
    "a": 0.1,
    "å": 0.1,
    "ångström": 0.1,
    "angstrom": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "m": 1e9,
    "meter": 1e9,
    "inch": 2.54e7,
    "in": 2.54e7,
}
"""The nanometres of a unit of length, by its name in small letters, in the singular."""

_LARGEST_PRINT_NM = 1000.0  # 25400 dots per inch: no printer and no scanner has as many


def unit_nm(unit: str) -> float | None:
    """Return the nanometres of a unit of length, or None for one that is not known."""
    # Greek mu and the micro sign look alike, as do the Angstrom sign and the letter.
    name = unit.strip().replace("\u03bc", "µ").replace("\u212b", "å").replace("\\u00B5", "µ")
    name = name.lower().replace("metre", "meter")
    return UNITS_NM.get(name) or UNITS_NM.get(name.removesuffix("s" if name[-2:] != "es" else "es"))


def pixel_nm(value: float, unit: str) -> float | None:
    """Return a size in nanometres, or None where it states none: no unit, or an absurd number."""
    nm = unit_nm(unit)
    return None if nm is None else plausible(value * nm)


def plausible(nm: float) -> float | None:
    """Return the size of a pixel, or None for one from 1 pm to 1 mm it is not."""
    return nm if isfinite(nm) and 1e-3 <= nm <= 1e6 else None


def printed_nm(pixels_per_unit: float, unit: str) -> float | None:
    """Return the size of a pixel from a resolution such as 300 dots per inch.

    Most programs write one that is meant for a printer, or 72 or 96 by default. A resolution is
    believed to be that of a microscope if no printer has it: where a pixel is less than 1 µm.
    """
    nm = pixel_nm(1 / pixels_per_unit, unit) if pixels_per_unit > 0 else None
    return nm if nm is not None and nm < _LARGEST_PRINT_NM else None
