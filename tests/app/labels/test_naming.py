"""The images that numbers and names mean."""

import unicodedata

import pytest

from app.labels.naming import Extent, ImageNames
from models.data.sections import Section


def names(*sections: str, tiles: int = 1) -> ImageNames:
    """The images of sections that have this many tiles each."""
    return ImageNames(
        [Section(n, name, "train", 64, 64, False) for n, name in enumerate(sections)],
        {n: Extent(n * tiles, tiles) for n in range(len(sections))},
    )


def test_a_section_is_named_with_and_without_the_suffix_of_its_file() -> None:
    found = names("s00", "s01.v2", "stack/0003")
    spellings = ("s00", "s00.png", " s00 ", "s00.TIF", "images/s00.png", "s00.zarr.zip")
    assert {found.tile(name, None) for name in spellings} == {0}
    assert found.tile("s01.v2.tif", None) == 1
    assert {found.tile(f"stack{end}/0003", 0) for end in ("", ".tif")} == {2}
    for other in ("s01", "s00.v2", "S00", "0003", ""):
        with pytest.raises(ValueError, match="s00"):
            found.tile(other, None)


def test_accents_may_be_written_either_way() -> None:
    composed, decomposed = (unicodedata.normalize(form, "zelle_ä") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for stored in (composed, decomposed):
        for written in (composed, decomposed):
            assert names("a", stored).tile(f"{written}.png", None) == 1
    both = names(composed, decomposed)
    assert (both.tile(composed, None), both.tile(decomposed, None)) == (0, 1)


def test_a_tile_counts_within_its_section() -> None:
    found = names("a", "b", tiles=6)
    assert [found.tile("b", tile) for tile in (0, 5)] == [6, 11]
    assert found.number(11) == 11
    for tile in (None, 6):
        with pytest.raises(ValueError, match="6"):
            found.tile("b", tile)
    with pytest.raises(ValueError, match="0 to 11"):
        found.number(12)


def test_a_section_without_tiles_has_no_image() -> None:
    section = Section(0, "a", "train", 64, 64, False)
    for tile in (None, 0):
        with pytest.raises(ValueError, match="tile 0"):
            ImageNames([section], {}).tile("a", tile)


def test_a_number_that_is_the_name_of_another_section_is_refused() -> None:
    assert names("s0", "s1").either("1") == 1
    assert names("s0", "s1").either("s1.tif") == 1
    assert names("0", "1").either("1") == 1  # both mean the same image
    # A spreadsheet turns 001 into 1.
    for sections in (("001", "002"), ("1", "2")):
        found = names(*sections)
        with pytest.raises(ValueError, match=f"image 1 .*{sections[0]}"):
            found.either("1")
        assert found.number(1) == 1
        assert found.tile("1", None) == 0
    assert names("001", "002").either("002") == 1
    assert names("a", "0002").tile("2", None) == 1
    with pytest.raises(ValueError, match="1"):
        names("1", "01", "a").tile("001", None)
    with pytest.raises(ValueError, match="1"):
        names("1", "2", tiles=4).either("1")


def test_long_numbers_are_no_numbers() -> None:
    for text in ("9" * 5000, "\u0663", "-1", "1.0"):
        with pytest.raises(ValueError, match="no section"):
            names("a").either(text)
