"""Classes of a dataset as a job has them: renamed, reordered, merged, left out, missing."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from models.data.class_map import ClassMap, mapped
from models.data.domain import Tile
from models.data.labels import ABSENT as A
from models.data.labels import PRESENT as P
from models.data.labels import UNKNOWN as U
from models.data.tiles import relabelled
from tests.models.domains import write_domain

WANTED = ("background", "mitochondrion", "vesicle")


@pytest.mark.parametrize(
    ("own", "meanings", "ids", "missing"),
    [
        (WANTED, None, (0, 1, 2), ()),
        (("vesicle", "background", "mitochondrion"), None, (2, 0, 1), ()),
        (("background", "Mito"), {"Mito": "mitochondrion"}, (0, 1), ("vesicle",)),
        (
            ("Mito", "cristae", "cell", "vesicle", "dirt"),
            {
                "Mito": "mitochondrion",
                "cristae": "mitochondrion",
                "cell": "background",
                "dirt": "ignore",
            },
            (1, 1, 0, 2, 255),
            (),
        ),
        # A name may be given another meaning than itself.
        (
            ("background", "vesicle"),
            {"vesicle": "mitochondrion"},
            (0, 1),
            ("vesicle",),
        ),
    ],
)
def test_classes_are_mapped_by_name_and_by_meaning(
    own: tuple[str, ...],
    meanings: Mapping[str, str] | None,
    ids: tuple[int, ...],
    missing: tuple[str, ...],
) -> None:
    found = ClassMap.between(own, WANTED, meanings)
    assert (found.ids, found.missing) == (ids, missing)
    assert found.is_identity is (own == WANTED)


@pytest.mark.parametrize(
    ("own", "meanings", "words"),
    [
        (("background", "Mito"), None, "say what Mito is"),
        (("background",), {"Mito": "mitochondrion"}, "'Mito' is none of its classes"),
        (("Mito",), {"Mito": "mitochondria"}, "cannot be 'mitochondria'"),
        (("a", "b"), {"a": "ignore", "b": "ignore"}, "all of its classes are ignored"),
    ],
)
def test_classes_without_a_meaning_are_refused(
    own: tuple[str, ...], meanings: Mapping[str, str] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ClassMap.between(own, WANTED, meanings)


def test_labels_follow_the_classes() -> None:
    merged = ClassMap(WANTED, (1, 1, 0, 255))
    for codes, wanted in (
        ((P, A, U, P), (U, P, U)),
        ((A, A, P, P), (P, A, U)),
        ((A, U, A, P), (A, U, U)),
        ((U, P, U, P), (U, P, U)),
    ):
        assert merged.labels(codes) == wanted


def test_a_class_of_which_a_part_was_not_annotated_was_not_annotated() -> None:
    merged = ClassMap(WANTED, (1, 1, 0, 255))
    assert merged.unannotated(()) == (2,)
    assert merged.unannotated((1,)) == (1, 2)
    assert merged.unannotated((2, 3)) == (0, 2)


def test_masks_labels_and_names_of_a_domain_follow(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    tiles = [Tile(0, 0, 0, 1, 4, (P, A, U))]
    names = ("vesicle", "background", "dirt")
    image = np.array([[1, 2, 3, 4]], np.uint8)
    domain = write_domain(tmp_path / "d", [image], [mask], ["test"], tiles, class_names=names)
    classes = ClassMap.between(names, WANTED, {"dirt": "ignore"})
    found = mapped(domain, classes)
    (section,) = found.sections
    assert found.info.class_names == WANTED
    np.testing.assert_array_equal(found.native_mask(section), [[2, 0, 255, 255]])
    np.testing.assert_array_equal(found.mask(section), [[2, 0, 255, 255]])
    assert [tile.labels for tile in found.tiles] == [(A, U, P)]
    # No class of the masks is the second one, so derived labels cannot call it absent.
    assert section.unannotated == (1,)
    (tile,) = relabelled(found, 4).tiles
    assert tile.labels == (P, U, P)
    assert found.allowed(section)[:, 0, 0].tolist() == [False, True, True]
    assert found.info.digest != domain.info.digest
    assert mapped(domain, ClassMap.between(names, names)) is domain
    renamed = mapped(domain, ClassMap.between(names, WANTED, dict(zip(names, WANTED, strict=True))))
    assert (renamed.info.class_names, renamed.info.digest) == (WANTED, domain.info.digest)
    assert renamed.tiles == domain.tiles
