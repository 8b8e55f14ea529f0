"""Fourier domain adaptation: amplitudes exchanged, phase kept."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.baselines.fourier import FourierMatch
from tests.models.domains import square_domain, write_domain

SHAPES = [(32, 32), (33, 31), (32, 45), (7, 50), (1, 1)]


def noise(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float32]:
    """Around 0.5, so that nothing is clipped."""
    return 0.4 + 0.2 * np.random.default_rng(seed).random(shape, dtype=np.float32)


def matching(beta: float, *images: NDArray[np.float32]) -> FourierMatch:
    return FourierMatch(lambda: images, beta)


def centred(image: NDArray[np.float32]) -> NDArray[np.complex128]:
    return np.fft.fftshift(np.fft.fft2(image.astype(np.float64)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_smallest_square_changes_the_mean_alone(shape: tuple[int, int]) -> None:
    image = noise(shape)
    sources = noise(shape, 1) + 0.1, noise(shape, 2) - 0.1
    matched = matching(0.9 / min(shape) if min(shape) > 1 else 0, *sources)(image)
    expected = image - image.mean() + (sources[0].mean() + sources[1].mean()) / 2
    np.testing.assert_allclose(matched, expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_amplitudes_of_the_centred_square_are_the_sources_and_phases_stay(
    shape: tuple[int, int],
) -> None:
    image, sources = noise(shape), (noise(shape, 1), noise(shape, 2))
    half_side = 2
    beta = (half_side + 0.5) / min(shape)
    before, after = centred(image), centred(matching(beta, *sources)(image))
    rows, cols = (slice(n // 2 - half_side, n // 2 + half_side + 1) for n in shape)
    mean = (np.abs(centred(sources[0])) + np.abs(centred(sources[1]))) / 2
    expected = before.copy()
    expected[rows, cols] *= (mean / np.abs(before))[rows, cols]
    np.testing.assert_allclose(after, expected, atol=1e-3)
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beta", [0, 0.1, 0.5])
def test_the_sources_own_image_stays(shape: tuple[int, int], beta: float) -> None:
    image = noise(shape)
    np.testing.assert_allclose(matching(beta, image)(image), image, atol=1e-6)


def test_twice_is_once() -> None:
    match = matching(0.2, noise((32, 33), 1))
    once = match(noise((32, 33)))
    np.testing.assert_allclose(match(once), once, atol=1e-6)
    assert np.array_equal(match(noise((32, 33))), once)


@pytest.mark.parametrize("shape", SHAPES)
def test_range_and_type(shape: tuple[int, int]) -> None:
    bright, dark = np.ones((20, 20), np.float32), np.zeros((20, 20), np.float32)
    checkers = (np.indices(shape).sum(axis=0) % 2).astype(np.float32)
    for image in (checkers, np.zeros(shape, np.float32), np.ones(shape, np.float32)):
        matched = matching(0.1, bright, bright, dark)(image)
        assert matched.shape == shape
        assert matched.dtype == np.float32
        assert 0 <= matched.min() <= matched.max() <= 1


def test_images_of_other_sizes_are_cropped_or_reflected() -> None:
    ramp = np.tile(np.linspace(0.2, 0.8, 9, dtype=np.float32), (4, 1))
    image = noise((4, 5))
    assert matching(0.0, ramp)(image).mean() == pytest.approx(ramp[:, 2:7].mean(), abs=1e-6)
    small = np.array([[0.2, 0.4, 0.6]], np.float32)
    # Continued on both sides: 0.4, 0.2, 0.4, 0.6, 0.4.
    assert matching(0.0, small)(image).mean() == pytest.approx(0.4, abs=1e-6)
    smaller = np.array([[0.2, 0.6]], np.float32)
    # 0.6, 0.2, 0.6, 0.2, 0.6: the odd pixel is added behind.
    assert matching(0.0, smaller)(image).mean() == pytest.approx(2.2 / 5, abs=1e-6)


def test_of_a_domain_it_reads_the_training_sections(tmp_path: Path) -> None:
    source = square_domain(tmp_path / "s.zarr", side=40)
    image = noise((40, 40))
    match = FourierMatch.of(source, 0.0)
    means = [source.image(section).mean() for section in source.split("train")]
    assert match(image).mean() == pytest.approx(np.mean(means), abs=1e-5)
    with pytest.raises(ValueError, match=r"beta .*0\.6.*0\.5"):
        FourierMatch.of(source, 0.6)
    bare = write_domain(tmp_path / "b.zarr", [np.zeros((8, 8), np.uint8)], [None], ["test"])
    with pytest.raises(ValueError, match="'b' .*no training sections"):
        FourierMatch.of(bare, 0.1)


def test_amplitudes_of_a_shape_are_computed_once() -> None:
    reads = []

    def images() -> list[NDArray[np.float32]]:
        reads.append(None)
        return [noise((16, 16), 1)]

    match = FourierMatch(images, 0.1)
    for shape in [(16, 16), (16, 16), (20, 16), (16, 16)]:
        match(noise(shape))
    assert len(reads) == 2
