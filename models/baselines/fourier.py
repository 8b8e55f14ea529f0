"""Fourier domain adaptation (Yang and Soatto 2020): style as the amplitude of low frequencies.

Legend: H height, W width, b half side of the square of low frequencies.
"""

from collections.abc import Callable, Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.data.domain import Domain

Image = NDArray[np.float32]


class FourierMatch:
    """Give an image the low-frequency amplitudes of a source, and leave its phase.

    An instance maps an image (H, W) float32 in [0, 1] to the same shape and range, so it can stand
    where the style transfer model stands. The paper takes the amplitudes of one random source
    image. This class takes their mean over the training sections, so that an image has one
    rendering.

    Frequencies of up to b = floor(beta * min(H, W)) periods in both directions are exchanged. The
    mean is always one of them, and the only one if a side is shorter than 1 / beta pixels.
    """

    def __init__(self, images: Callable[[], Iterable[Image]], beta: float) -> None:
        self._images = images
        self._beta = beta
        self._amplitudes: dict[tuple[int, int], NDArray[np.float64]] = {}

    @classmethod
    def of(cls, source: Domain, beta: float) -> Self:
        """Take the training sections of ``source`` at its working pixel size.

        Raises:
            ValueError: ``beta`` is not in [0, 0.5], or the source has no training sections.
        """
        if not 0 <= beta <= 0.5:
            raise ValueError(f"fourier_beta is {beta}: it must be in [0, 0.5]")
        sections = source.training_sections()
        return cls(lambda: map(source.image, sections), beta)

    def __call__(self, image: Image) -> Image:
        """Return the image (H, W) float32 with the source's amplitudes, clipped to [0, 1]."""
        shape = (image.shape[0], image.shape[1])
        spectrum = np.fft.rfft2(image.astype(np.float64))
        low = self._low(shape)
        phase = np.exp(1j * np.angle(spectrum[low]))
        spectrum[low] = self._amplitude(shape) * phase
        return np.fft.irfft2(spectrum, s=shape).clip(0, 1).astype(np.float32)

    def _low(self, shape: tuple[int, int]) -> tuple[NDArray[np.intp], ...]:
        """Index the low frequencies in a spectrum (H, W // 2 + 1): the half that is stored."""
        half_side = int(self._beta * min(shape))
        # Rounded to whole periods, because fftfreq gives them as inexact floats.
        rows = np.abs(np.fft.fftfreq(shape[0], 1 / shape[0])).round() <= half_side
        cols = np.fft.rfftfreq(shape[1], 1 / shape[1]).round() <= half_side
        return np.ix_(rows, cols)

    def _amplitude(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return amplitudes (2b + 1, b + 1), the mean over the source's images cut to ``shape``."""
        # Kept for each shape: the mean reads every training section.
        if shape not in self._amplitudes:
            low = self._low(shape)
            spectra = (np.fft.rfft2(_brought(image, shape))[low] for image in self._images())
            self._amplitudes[shape] = np.mean([np.abs(spectrum) for spectrum in spectra], axis=0)
        return self._amplitudes[shape]


def _brought(image: Image, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Bring an image to ``shape``: cut it about its centre, or continue it by reflection."""
    for axis, side in enumerate(shape):
        spare = image.shape[axis] - side
        if spare >= 0:
            image = image.take(range(spare // 2, spare // 2 + side), axis=axis)
        else:
            margins = [(0, 0), (0, 0)]
            margins[axis] = (-spare // 2, -spare - -spare // 2)
            image = np.pad(image, margins, mode="reflect")
    return image.astype(np.float64)
