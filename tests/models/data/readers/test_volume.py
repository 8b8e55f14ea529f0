"""A volume is cut along each axis, each chunk decoded as few times as memory allows."""

import numpy as np
import pytest

from models.data.readers import volume as module
from models.data.readers.limits import Array, ImageError
from models.data.readers.stack import Ask, ReadOptions
from models.data.readers.volume import Slices, Volume, stack_of

PIXELS = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)


class Counting:
    """A volume whose chunks count how often they are decoded."""

    def __init__(self, chunks: tuple[int, int, int], pixels: np.ndarray = PIXELS) -> None:
        self.pixels = pixels
        self.chunks = chunks
        self.decoded: dict[tuple[int, ...], int] = {}

    def read(self, window: Slices) -> Array:
        ranges = [
            range(side.start // chunk, -(-side.stop // chunk))
            for side, chunk in zip(window, self.chunks, strict=True)
        ]
        for z in ranges[0]:
            for y in ranges[1]:
                for x in ranges[2]:
                    self.decoded[z, y, x] = self.decoded.get((z, y, x), 0) + 1
        return self.pixels[window]

    def volume(self) -> Volume:
        depth, height, width = self.pixels.shape
        return Volume(
            (depth, height, width), self.pixels.dtype, self.chunks, self.read, (40.0, 4.0, 5.0)
        )


def ask(max_pixels: int = 100, **options: object) -> Ask:
    return Ask(max_pixels, "image", ReadOptions.model_validate(options))


@pytest.mark.parametrize("axis", ["z", "y", "x"])
@pytest.mark.parametrize("chunks", [(1, 4, 5), (4, 3, 2), (6, 4, 5)])
def test_every_chunk_is_decoded_once(axis: str, chunks: tuple[int, int, int]) -> None:
    counting = Counting(chunks)
    stack = stack_of(counting.volume(), ask(axis=axis))
    number = "zyx".index(axis)
    np.testing.assert_array_equal(list(stack.sections), np.moveaxis(PIXELS, number, 0))
    assert stack.num_sections == PIXELS.shape[number]
    assert set(counting.decoded.values()) == {1}


def test_sections_are_read_when_they_are_asked_for() -> None:
    counting = Counting((2, 4, 5))
    stack = stack_of(counting.volume(), ask())
    assert not counting.decoded
    next(stack.sections)
    next(stack.sections)
    assert list(counting.decoded) == [(0, 0, 0)]


def test_a_range_of_sections_decodes_no_others() -> None:
    counting = Counting((1, 4, 5))
    stack = stack_of(counting.volume(), ask(start=1, stop=6, step=2))
    assert stack.num_sections == 3
    np.testing.assert_array_equal(list(stack.sections), PIXELS[1:6:2])
    assert [z for z, _, _ in counting.decoded] == [1, 3, 5]
    with pytest.raises(ImageError, match="6 sections.* none .* 6 to 9"):
        stack_of(counting.volume(), ask(start=6, stop=9))


def test_a_slab_takes_no_more_memory_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB_BYTES", 2 * 4 * 5)
    counting = Counting((6, 4, 5))
    stack = stack_of(counting.volume(), ask())
    np.testing.assert_array_equal(list(stack.sections), PIXELS)
    assert counting.decoded == {(0, 0, 0): 3}


@pytest.mark.parametrize(("axis", "size"), [("z", (4, 5)), ("y", (40, 5)), ("x", (40, 4))])
def test_the_size_of_a_pixel_is_that_of_the_axes_shown(
    axis: str, size: tuple[float, float]
) -> None:
    assert stack_of(Counting((1, 4, 5)).volume(), ask(axis=axis)).pixel_size_nm == size


def test_a_volume_of_unknown_depth_has_no_size_along_it() -> None:
    volume = Volume((6, 4, 5), np.uint8, (1, 4, 5), PIXELS.__getitem__, (None, 4.0, 5.0))
    assert stack_of(volume, ask()).pixel_size_nm == (4.0, 5.0)
    assert stack_of(volume, ask(axis="x")).pixel_size_nm is None


def test_sections_along_any_axis_have_a_limit_of_pixels() -> None:
    volume = Counting((1, 4, 5)).volume()
    stack_of(volume, ask(20))
    with pytest.raises(ImageError, match="6 x 5 px.* 29 pixels"):
        stack_of(volume, ask(29, axis="y"))


def test_one_section_is_not_cut_along_another_axis() -> None:
    volume = Counting((1, 4, 5), PIXELS[:1]).volume()
    with pytest.raises(ImageError, match="one section"):
        stack_of(volume, ask(axis="x"))
