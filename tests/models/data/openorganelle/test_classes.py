"""The class table: its facts, and the words for each way to get one wrong."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from models.data.openorganelle.classes import ClassTableError, load_classes, parse_classes

SMALL = """
version: 1
name: small
classes:
  - {name: mito, ids: {mito_mem: 3, mito_lum: 4}}
  - {name: er, ids: {er_mem: 16}}
ignored: {ribo: 34}
groups: {mito: [mito_mem, mito_lum], both: [er_mem, mito_mem]}
"""


def test_the_papers_table_has_its_classes_in_order() -> None:
    table = load_classes("paper")
    assert table.class_names == (
        "ex cell sp", "plas mem", "mito", "vesicle", "mvb", "lyso", "endo ret", "nucleus",
        "nuc env", "micro tub", "cytosol",
    )  # fmt: skip


def test_the_papers_table_gives_each_id_its_class() -> None:
    lookup = load_classes("paper").lookup(range(11))
    ids = {
        0: [1], 1: [2], 2: [3, 4, 5], 3: [8, 9], 4: [10, 11], 5: [12, 13], 6: [16, 17, 18, 19],
        7: [24, 25, 26, 27, 28, 29, 37], 8: [20, 21, 22, 23], 9: [30, 36], 10: [35],
    }  # fmt: skip
    expected = np.full(65536, 255)
    for class_id, numbers in ids.items():
        expected[numbers] = class_id
    np.testing.assert_array_equal(lookup, expected)


def test_a_class_that_is_not_annotated_has_no_ids() -> None:
    lookup = load_classes("paper").lookup([2, 10])
    assert np.flatnonzero(lookup != 255).tolist() == [3, 4, 5, 35]


def test_unlisted_ids_may_become_a_class_and_ignored_ones_may_not() -> None:
    lookup = parse_classes((SMALL + "unlisted: er").encode(), "t").lookup([0, 1])
    assert lookup[[0, 3, 4, 16, 34, 60, 255, 65535]].tolist() == [255, 0, 0, 1, 255, 1, 255, 1]


def test_a_class_is_shown_by_its_structures_and_the_groups_within_it() -> None:
    paper = load_classes("paper")
    assert paper.structures(2) == {"mito_mem", "mito_lum", "mito_ribo", "mito"}
    assert paper.structures(6) == {"er_mem", "er_lum", "eres_mem", "eres_lum", "eres"}  # not er
    assert paper.structures(8) == {"ne_mem", "ne_lum", "np_out", "np_in", "ne", "np"}
    assert parse_classes(SMALL.encode(), "t").structures(0) == {"mito_mem", "mito_lum", "mito"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("er_mem: 16", "er_mem: 4", ["id 4", "class 'mito'", "class 'er'"]),
        ("ribo: 34", "ribo: 3", ["id 3", "class 'mito'", "ignored"]),
        ("er_mem: 16", "mito_lum: 16", ["'mito_lum'", "class 'mito'", "class 'er'"]),
        ("name: er,", "name: mito,", ["name"]),
        ("name: er,", "name: ignore,", ["ignore"]),
        ("er_mem: 16", "er_mem: 0", ["id 0", "not annotated"]),
        ("er_mem: 16", "er_mem: 255", ["id 255", "unknown"]),
        ("er_mem: 16", "er_mem: 70000", ["classes.1.ids.er_mem"]),
        ("er_mem: 16", "er/mem: 16", ["classes.1.ids"]),
        ("{er_mem: 16}", "{}", ["classes.1.ids"]),
        ("ignored:", "forgotten:", ["forgotten"]),
        ("version: 1", "version: 2", ["version"]),
        ("[er_mem, mito_mem]", "[er_mem, er_lum]", ["'both'", "'er_lum'"]),
        ("ignored: {ribo: 34}", "unlisted: cytosol", ["'cytosol'"]),
        ("mito_lum: 4", "mito_mem: 4", ["'mito_mem'", "twice"]),
        ("name: small", "name: &a small\nunlisted: *a", ["alias"]),
        ("name: small", "name: [", ["YAML"]),
        ("name: small", "name: !!python/object:os.system small", ["YAML"]),
    ],
)
def test_a_wrong_table_is_refused_in_words(old: str, new: str, said: list[str]) -> None:
    assert SMALL.count(old) == 1
    with pytest.raises(ClassTableError) as refused:
        parse_classes(SMALL.replace(old, new).encode(), "mine.yaml")
    assert all(word in str(refused.value) for word in ["mine.yaml", *said])


@pytest.mark.parametrize("text", [b"", b"- 1", b"\xff\xfe\x00", b"[" * 5000, b"x" * 300_000])
def test_what_is_no_table_is_refused(text: bytes) -> None:
    with pytest.raises(ClassTableError, match=r"mine\.yaml"):
        parse_classes(text, "mine.yaml")


def test_a_copy_of_the_table_can_be_changed(tmp_path: Path) -> None:
    shipped = (resources.files("models.data") / "classes" / "paper.yaml").read_text()
    copy = tmp_path / "mine.yaml"
    copy.write_text(shipped.replace("name: mvb", "name: endosome"))
    assert load_classes(copy).class_names[4] == "endosome"


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClassTableError, match=r"none\.yaml"):
        load_classes(tmp_path / "none.yaml")
