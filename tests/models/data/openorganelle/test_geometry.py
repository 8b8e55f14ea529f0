"""Labels on micrographs: the published geometry of crops to the voxel, and what does not fit."""

from dataclasses import replace

import pytest

from models.data.openorganelle.geometry import Box, GeometryError, Grid, factors, place

EM = Grid((6368, 1600, 12000), (5.24, 4.0, 4.0), (0.0, 0.0, 0.0))
# Crop 1 of jrc_hela-2, as it is published: labels at half the voxel size of the micrographs.
CROP = Grid((200, 1000, 1000), (2.62, 2.0, 2.0), (3132.21, 899.0, 25863.0))


def test_labels_at_half_the_voxel_size_lie_on_the_micrographs() -> None:
    assert factors(CROP, EM) == (2, 2, 2)
    assert place(CROP, EM) == Box((598, 225, 6466), (100, 500, 500))


def test_the_coarser_level_of_the_same_labels_lies_on_the_same_voxels() -> None:
    # Its first voxel is centred half a voxel of the finer level further in.
    coarser = Grid((100, 500, 500), (5.24, 4.0, 4.0), (3133.52, 900.0, 25864.0))
    assert factors(coarser, EM) == (1, 1, 1)
    assert place(coarser, EM) == place(CROP, EM)


@pytest.mark.parametrize("voxel_z", [5.24, 3.24, 3.36])
def test_no_start_is_cut_off(voxel_z: float) -> None:
    """Quotients such as 597.9999... would lose a voxel if they were cut off."""
    em = Grid((12000, 20, 20), (voxel_z, 4.0, 4.0), (0.0, 0.0, 0.0))
    for start in range(0, 11990):
        centre = start * voxel_z - voxel_z / 4
        labels = Grid((4, 4, 4), (voxel_z / 2, 2.0, 2.0), (centre, -1.0, 3.0))
        assert place(labels, em) == Box((start, 0, 1), (2, 2, 2))


def test_the_volume_may_begin_anywhere() -> None:
    em = replace(EM, centre_nm=(100.0, 8.0, -4.0))
    moved = replace(CROP, centre_nm=(3232.21, 907.0, 25859.0))
    assert place(moved, em) == place(CROP, EM)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        # Off by one label voxel, which is half a voxel of the micrographs.
        (replace(CROP, centre_nm=(3132.21, 901.0, 25863.0)), ["along y", "225.500"]),
        (replace(CROP, centre_nm=(3133.52, 899.0, 25863.0)), ["along z", "598.250"]),
        (replace(CROP, shape=(200, 1000, 999)), ["along x", "999"]),
        (replace(CROP, shape=(200, 0, 1000)), ["along y", "0"]),
        (replace(CROP, voxel_nm=(2.62, 3.0, 2.0)), ["along y", "3 nm", "4 nm"]),
        (replace(CROP, voxel_nm=(2.62, 2.0, 8.0)), ["along x", "8 nm"]),
        (replace(CROP, voxel_nm=(2.62, 2.002, 2.0)), ["along y", "2.002 nm"]),
        (replace(CROP, centre_nm=(-1.31 - 5.24, 899.0, 25863.0)), ["along z", "-1"]),
        (replace(CROP, centre_nm=(3132.21, 4399.0, 25863.0)), ["along y", "1100", "1600"]),
    ],
)
def test_what_does_not_fit_is_refused_with_its_axis(labels: Grid, said: list[str]) -> None:
    if labels.centre_nm[1] == 4399.0:
        labels = replace(labels, shape=(200, 1002, 1000))
    with pytest.raises(GeometryError) as refused:
        place(labels, EM)
    assert all(word in str(refused.value) for word in said)


def test_boxes_overlap_where_they_share_a_voxel() -> None:
    box = Box((10, 10, 10), (5, 5, 5))
    assert box.overlaps(Box((14, 14, 14), (5, 5, 5)))
    assert not box.overlaps(Box((15, 10, 10), (5, 5, 5)))
    assert not Box((10, 10, 0), (5, 5, 10)).overlaps(box)
