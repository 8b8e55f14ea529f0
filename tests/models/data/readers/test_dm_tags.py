"""The tree of tags in a DM3 or DM4 file."""

import io
from typing import Any

import numpy as np
import pytest

from models.data.readers.dm_tags import Block, Tags, read_tags
from models.data.readers.limits import ImageError
from tests.models.data.readers.dm_files import DmWriter
from tests.models.data.readers.files import little_memory


def read(data: bytes) -> Tags:
    return read_tags(io.BytesIO(data), len(data))[0]


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_values_by_their_paths(version: int, order: str) -> None:
    array = np.arange(300, dtype=np.int16)
    tree = {
        "a": {"0": {"b": 7}, "1": {"b": 0.5}},
        "Units": "nm",
        "rectangle": (1, 2, 3, 4),
        "array": array,
        "end": 9,
    }
    data = DmWriter(version, order).file(tree)
    tags = read(data)
    found = tags.pop(("array",))
    assert isinstance(found, Block)
    values = np.frombuffer(data[found.offset :][: found.num_bytes], order + "i2")
    np.testing.assert_array_equal(values, array)
    assert isinstance(tags.pop(("rectangle",)), Block)
    assert tags == {("a", "0", "b"): 7, ("a", "1", "b"): 0.5, ("Units",): "nm", ("end",): 9}


def test_arrays_are_not_read() -> None:
    data = DmWriter(4).file({"array": np.zeros(32 << 20, np.uint16)})
    with little_memory(1 << 20):
        assert read(data)[("array",)]


def test_a_tree_that_is_too_deep_or_cut_off_is_refused() -> None:
    tree: Any = {"a": 1}
    for _ in range(40):
        tree = {"g": tree}
    with pytest.raises(ImageError, match="deep"):
        read(DmWriter(3).file(tree))
    data = DmWriter(3).file({"array": np.zeros(1000, np.int16)})
    for length in (10, 30, 60, 1000):
        with pytest.raises(ImageError, match="cut off"):
            read(data[:length])
