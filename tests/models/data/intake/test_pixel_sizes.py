"""The pixel size of each section: the request's, compared with what the files say."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from models.data.description import Description
from models.data.intake.findings import Findings
from models.data.intake.pixel_sizes import PixelNm, PixelSizes
from models.data.sections import Section


def settled(
    said: Sequence[PixelNm | None], **facts: Any
) -> tuple[list[PixelNm | None], float, str, Findings]:
    """Return each section's own size, the dataset's, who gave it, and what was found."""
    sizes = PixelSizes(Description(class_names=["a", "b"], **facts))
    for number, of_file in enumerate(said):
        sizes.add(f"{number}.tif", of_file)
    sections = [Section(n, f"{n}", "train", 8, 8, has_mask=False) for n in range(len(said))]
    findings = Findings()
    sized, of_dataset, source = sizes.settled(sections, findings)
    return [section.pixel_size_nm for section in sized], of_dataset, source, findings


def test_a_given_size_is_that_of_files_which_say_none_or_nearly_the_same() -> None:
    own, size, source, findings = settled([None, (4.03, 3.98)], pixel_size_nm=4.0)
    assert (own, size, source) == ([None, None], 4.0, "request")
    assert (findings.problems, findings.notes) == ([], [])


@pytest.mark.parametrize("said", [(4.0, 4.05), (40.0, 40.0)])
def test_a_file_that_says_another_size_is_named_with_both(said: PixelNm) -> None:
    *_, findings = settled([None, said, said], pixel_size_nm=4.0)
    (problem,) = findings.problems
    assert problem.where == "pixel_size_nm"
    assert "1.tif, 2.tif" in problem.message
    assert f"{said[1]:g} nm" in problem.message
    own, size, _, quiet = settled([said], pixel_size_nm=4.0, ignore_file_pixel_size=True)
    assert (own, size, quiet.problems) == ([None], 4.0, [])


def test_without_a_given_size_every_file_has_to_say_its_own() -> None:
    own, size, source, findings = settled([(4.0, 4.0)] * 3)
    assert (own, size, source) == ([None] * 3, 4.0, "file")
    assert [note.code for note in findings.notes] == ["pixel_size_of_files"]
    *_, findings = settled([(4.0, 4.0), None, None])
    (problem,) = findings.problems
    assert problem.where == "pixel_size_nm"
    assert "2 files" in problem.message
    assert "1.tif, 2.tif" in problem.message


def test_sections_may_have_sizes_of_their_own() -> None:
    own, size, source, findings = settled([(70.0, 70.0), (180.0, 180.0), (93.0, 93.0)])
    assert size == 93.0
    assert own == [(70.0, 70.0), (180.0, 180.0), None]
    assert source == "file"
    assert "70 nm to 180 nm" in findings.notes[0].message
    named = {"0": 70.0, "1": 180.0}
    own, size, source, _ = settled([None] * 3, pixel_sizes_nm=named, pixel_size_nm=93.0)
    assert own == [(70.0, 70.0), (180.0, 180.0), None]
    assert (size, source) == (93.0, "request")


def test_named_sections_have_to_exist_and_the_others_need_a_size() -> None:
    *_, findings = settled([None, None], pixel_sizes_nm={"0": 4.0, "9": 4.0})
    said = {problem.where: problem.message for problem in findings.problems}
    assert said.keys() == {"pixel_sizes_nm", "pixel_size_nm"}
    assert "9" in said["pixel_sizes_nm"]
    assert "1.tif" in said["pixel_size_nm"]


def test_pixels_need_not_be_square() -> None:
    own, size, _, findings = settled([(8.0, 4.0), (8.0, 4.0)])
    assert (own, size) == ([(8.0, 4.0)] * 2, 4.0)
    assert [note.code for note in findings.notes] == ["pixel_size_of_files", "pixels_not_square"]
    assert "4 nm wide and 8 nm high" in findings.notes[0].message


@pytest.mark.parametrize("size", [0.004, 0.0, -1.0, 2e6, float("nan")])
def test_sizes_that_no_microscope_has_are_refused(size: float) -> None:
    with pytest.raises(ValidationError, match="pixel_size_nm"):
        Description(class_names=["a", "b"], pixel_size_nm=size)
    with pytest.raises(ValidationError, match="pixel_sizes_nm"):
        Description(class_names=["a", "b"], pixel_sizes_nm={"a": size})
