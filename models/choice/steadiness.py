"""Perturbation consistency: how alike predictions of changed images are; free of torch.

Legend: C classes, H height, W width.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A function that segments an image (H, W) in [0, 1]: probabilities (C, H, W) float32."""


class Steadiness:
    """Compares predictions of an image, of it turned, and of it with noise, by IoU."""

    def __init__(self, num_classes: int) -> None:
        self._both = np.zeros((2, num_classes))
        self._any = np.zeros((2, num_classes))
        self._rng = np.random.default_rng(0)  # the same noise for all candidates

    def add(
        self, predict: Predict, image: NDArray[np.float32], predicted: NDArray[np.intp]
    ) -> None:
        noise = self._rng.normal(0, 0.05, image.shape)
        noisy = (0.5 + 0.8 * (image - 0.5) + noise).clip(0, 1).astype(np.float32)
        turned = np.ascontiguousarray(np.rot90(image))
        others = np.rot90(predict(turned), -1, axes=(1, 2)), predict(noisy)
        for index, other in enumerate(others):
            for number in range(self._any.shape[1]):
                one, two = predicted == number, other.argmax(axis=0) == number
                self._both[index, number] += (one & two).sum()
                self._any[index, number] += (one | two).sum()

    def of(self, wanted: NDArray[np.bool_]) -> float | None:
        """Return the product of both mean IoUs over the wanted classes; None if there is none.

        A class that is predicted nowhere has 0: a network that finds nothing is not steady.
        """
        if not wanted.any():
            return None
        iou = np.zeros_like(self._any)
        np.divide(self._both, self._any, out=iou, where=self._any > 0)
        return float(iou[:, wanted].mean(axis=1).prod())
