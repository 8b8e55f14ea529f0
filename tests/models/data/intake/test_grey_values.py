"""The window and the histogram of grey values: exact for 8 and 16 bits, else by reading again."""

import numpy as np
import pytest

from models.data.intake.grey_values import GreyValues, section_window
from models.data.intake.padding import no_data, whole


def counted(images: list[np.ndarray]) -> GreyValues:
    grey = GreyValues(lambda index: (images[index], None))
    for index, image in enumerate(images):
        grey.add(index, image, None, no_data(image, None))
    return grey


def by_hand(images: list[np.ndarray], percentiles: tuple[float, float]) -> list[float]:
    values = np.concatenate([image.ravel() for image in images])
    found: list[float] = np.percentile(values, percentiles, method="inverted_cdf").tolist()
    return found


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("percentiles", [(0.5, 99.5), (0.0, 100.0), (2.125, 90.0)])
def test_windows_of_small_integers_are_exact(dtype: str, percentiles: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    info = np.iinfo(dtype)
    images = [rng.integers(info.min, info.max, (600, 20 + n), dtype, True) for n in range(3)]
    low, high = by_hand(images, percentiles)
    assert counted(images).window(percentiles) == (low, high)


@pytest.mark.parametrize("dtype", ["uint32", "int32", "float32"])
@pytest.mark.parametrize("outlier", [0, 1e9])
def test_windows_of_other_values_are_found_by_reading_again(dtype: str, outlier: float) -> None:
    rng = np.random.default_rng(2)
    images = [(rng.normal(5000, 300, (300, 70 + n))).astype(dtype) for n in range(3)]
    images[1][0, 0] = outlier
    window = counted(images).window((0.5, 99.5))
    np.testing.assert_allclose(window, by_hand(images, (0.5, 99.5)), atol=2)


def test_a_histogram_counts_every_pixel_that_is_data() -> None:
    image = np.arange(1000, 3000, dtype=np.uint16).reshape(40, 50)
    found = counted([image]).histogram()
    assert (found.low, found.step, len(found.counts)) == (1000, 8, 250)
    assert found.counts == (8,) * 250
    few = np.array([[7, 9, 9]], np.int8)
    assert counted([few]).histogram().counts == (1, 0, 2)
    floats = np.linspace(-1, 1, 512, dtype=np.float32).reshape(16, 32)
    found = counted([floats]).histogram()
    assert (found.low, len(found.counts), sum(found.counts)) == (-1, 256, 512)
    assert set(found.counts) == {2}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_one_value_has_no_window(dtype: str) -> None:
    flat = np.full((30, 30), 7, dtype)
    grey = GreyValues(lambda _: (flat, None))
    grey.add(0, flat, None, whole(flat))
    with pytest.raises(ValueError, match="value 7:"):
        grey.window((0.5, 99.5))
    assert sum(grey.histogram().counts) == 900


def test_the_window_of_one_section() -> None:
    image = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    assert section_window(image, None, whole(image), (0.5, 99.5)) == (49.0, 9949.0)
    flat = np.zeros((20, 20))
    assert section_window(flat, None, whole(flat), (0.5, 99.5)) is None
