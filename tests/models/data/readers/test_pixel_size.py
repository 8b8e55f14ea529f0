"""Units of length, and sizes that say nothing."""

import pytest

from models.data.readers.pixel_size import pixel_nm, printed_nm, unit_nm


@pytest.mark.parametrize(
    ("unit", "nm"),
    [
        ("nm", 1),
        ("Nanometers", 1),
        ("nanometre", 1),
        ("um", 1000),
        ("\N{MICRO SIGN}m", 1000),
        ("\N{GREEK SMALL LETTER MU}m", 1000),
        ("micron", 1000),
        ("microns", 1000),
        ("\N{ANGSTROM SIGN}", 0.1),
        ("\N{LATIN CAPITAL LETTER A WITH RING ABOVE}", 0.1),
        ("A", 0.1),
        ("angstroms", 0.1),
        ("mm", 1e6),
        ("inches", 2.54e7),
        ("pixel", None),
        ("", None),
        ("1/nm", None),
        ("nmxx", None),
    ],
)
def test_units(unit: str, nm: float | None) -> None:
    assert unit_nm(unit) == nm


def test_absurd_sizes_are_no_statement() -> None:
    assert pixel_nm(0.004, "um") == pytest.approx(4)
    for value in (0, -4, float("nan"), float("inf"), 1e-4, 1.1e6):
        assert pixel_nm(value, "nm") is None


def test_a_resolution_for_printers_is_no_statement() -> None:
    for dots in (0, 1, 72, 96, 300, 2400, 25400):
        assert printed_nm(dots, "inch") is None
    assert printed_nm(2.5e6, "cm") == pytest.approx(4)
