"""Class ids of voxels: unknown never becomes a class, overlapping groups are never stacked."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from models.data.openorganelle.classes import load_classes
from models.data.openorganelle.masks import Presence, majority, merged, stacked

PAPER = load_classes("paper")
MITO, ER, NUCLEUS, ENVELOPE, CYTOSOL, NONE = 2, 6, 7, 8, 10, 255


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int64"])
def test_the_array_of_all_structures_becomes_classes(dtype: str) -> None:
    ids = np.array([0, 1, 3, 5, 16, 20, 23, 34, 35, 37, 60, 254, 255], dtype=dtype)
    expected = [NONE, 0, MITO, MITO, ER, ENVELOPE, ENVELOPE, NONE, CYTOSOL, NUCLEUS] + [NONE] * 3
    assert merged(ids[None, None], PAPER, range(11)).tolist() == [[expected]]


@pytest.mark.parametrize("number", [-1, 256 + 3, 65536 + 3, 2**40])
def test_ids_out_of_range_are_no_structure(number: int) -> None:
    assert merged(np.array([[[number]]]), PAPER, range(11)).tolist() == [[[NONE]]]


def test_classes_that_were_not_annotated_are_ignored() -> None:
    found = merged(np.array([[[3, 16, 35]]]), PAPER, [MITO, CYTOSOL])
    assert found.tolist() == [[[MITO, NONE, CYTOSOL]]]


def arrays(rows: Mapping[str, Sequence[int]]) -> dict[str, Presence]:
    """Return arrays of 0 (absent), 1 (present) and 255 (unknown)."""
    return {name: Presence(np.array(row) == 1, np.array(row) == 255) for name, row in rows.items()}


def classes(**rows: Sequence[int]) -> list[int]:
    return stacked(arrays(rows), PAPER).tolist()


def test_single_structures_make_their_classes() -> None:
    assert classes(mito_mem=[1, 0, 0, 0], mito_lum=[0, 1, 0, 0], cyto=[0, 0, 1, 255]) == [
        MITO, MITO, CYTOSOL, NONE
    ]  # fmt: skip


def test_structures_of_two_classes_in_one_voxel_leave_it_without() -> None:
    assert classes(cyto=[1, 1, 1], er_mem=[0, 1, 0], mito_mem=[0, 1, 0]) == [CYTOSOL, NONE, CYTOSOL]
    assert classes(mito_mem=[1, 1], mito_lum=[0, 1]) == [MITO, MITO]
    assert classes(cyto=[1, 1], ribo=[0, 1]) == [CYTOSOL, NONE]  # ignored structures claim, too


def test_the_group_er_is_not_er_alone() -> None:
    """It holds the nuclear envelope and its pores."""
    er = [1, 1, 1, 0]
    assert classes(er=er) == [NONE] * 4
    apart = {"ne_mem": [0, 1, 0, 0], "ne_lum": [0] * 4, "np_out": [0, 0, 1, 0], "np_in": [0] * 4}
    assert classes(er=er, **apart) == [ER, ENVELOPE, ENVELOPE, NONE]
    lacking = {name: row for name, row in apart.items() if name != "np_in"}
    assert classes(er=er, **lacking) == [NONE, ENVELOPE, ENVELOPE, NONE]


def test_an_unknown_structure_leaves_its_groups_voxel_without_a_class() -> None:
    apart = {"ne_mem": [0, 255], "ne_lum": [0, 0], "np_out": [0, 0], "np_in": [0, 0]}
    assert classes(er=[1, 1], **apart) == [ER, NONE]
    # An unknown part of the same class leaves no doubt.
    assert classes(mito=[1, 1], mito_mem=[0, 255]) == [MITO, MITO]


def test_a_smaller_group_tells_apart_what_a_larger_one_holds() -> None:
    assert classes(er=[1, 1, 0], ne=[0, 1, 0]) == [ER, ENVELOPE, NONE]
    assert classes(er=[1, 1], ne=[0, 255]) == [ER, NONE]
    assert classes(nuc=[1, 1, 1], ne=[0, 1, 0], chrom=[1, 0, 0]) == [NUCLEUS, ENVELOPE, NUCLEUS]
    assert classes(nuc=[1], nucpl=[0], nucleo=[0]) == [NONE]


def test_a_group_does_not_overrule_a_structure() -> None:
    assert classes(mito=[1, 1], cyto=[0, 1]) == [MITO, CYTOSOL]


def test_the_majority_of_a_block_wins() -> None:
    blocks = {
        (3, 3, 3, 3, 3, 1, 1, 1): 3,
        (5, 5, 5, 5, 2, 2, 2, 2): 2,  # a tie goes to the lower id
        (1, 2, 3, 4, 5, 6, 7, 8): 1,
        (255, 255, 255, 255, 9, 9, 9, 9): 255,  # half is enough to be ignored
        (255, 255, 255, 9, 9, 8, 8, 7): 8,  # less than half is not, though no class has more
        (255, 255, 255, 0, 0, 0, 0, 0): 0,
    }
    for order in (slice(None), slice(None, None, -1)):
        for block, expected in blocks.items():
            volume = np.array(block[order], dtype=np.uint8).reshape(2, 2, 2)
            assert majority(volume, (2, 2, 2)).tolist() == [[[expected]]]


@pytest.mark.parametrize("block", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (3, 1, 2)])
def test_the_majority_agrees_with_counting_voxel_by_voxel(block: tuple[int, int, int]) -> None:
    random = np.random.default_rng(1)
    volume = random.choice(np.array([0, 1, 2, 10, 255], np.uint8), size=(6, 8, 12))
    reduced = majority(volume, block)
    assert reduced.dtype == np.uint8
    for place in np.ndindex(reduced.shape):
        voxels = volume[tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, block, strict=True))]
        counts = np.bincount(voxels.ravel(), minlength=256)
        expected = 255 if 2 * counts[255] >= voxels.size else int(counts[:255].argmax())
        assert reduced[place] == expected
