"""Evidence and predictions whose scores can be computed by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.choice.label_scores import Evidence
from models.choice.steadiness import Predict
from models.data.domain import Domain, Tile
from models.data.labels import labels_of_mask
from tests.models.domains import write_domain

SIDE, TILE = 64, 16


def evidence(
    labels: Sequence[int], peaks: Sequence[float], *, shares: Sequence[float] | None = None
) -> Evidence:
    """Evidence of one class, each tile in a section of its own; a peak is a share if none is."""
    column = np.array(peaks, np.float64)[:, None]
    covered = column if shares is None else np.array(shares, np.float64)[:, None]
    return Evidence(np.array(labels)[:, None], covered, column, np.arange(len(labels)))


def rare_domain(store: Path, *, sections: int = 8, splits: str = "train") -> Domain:
    """Dark sections with one bright square of 12 px, in one of 16 tiles of 16 px: 1 in 16."""
    images, masks, tiles = [], [], []
    for index in range(sections):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        row, col = divmod(5 * index % 16, 4)
        y, x = row * TILE + 2, col * TILE + 2
        mask[y : y + 12, x : x + 12] = 1
        masks.append(mask)
        images.append(mask * 200)
        for y0 in range(0, SIDE, TILE):
            for x0 in range(0, SIDE, TILE):
                inside = mask[y0 : y0 + TILE, x0 : x0 + TILE]
                labels = labels_of_mask(np.bincount(inside.ravel(), minlength=2).tolist())
                tiles.append(Tile(index, y0, x0, TILE, TILE, labels))
    return write_domain(store, images, masks, [splits] * sections, tiles)  # type: ignore[list-item]


def nothing(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predict background everywhere."""
    return _two(np.full(image.shape, 0.02, np.float32))


def finder(sure: float = 0.9, *, shrink: int = 0, false: float = 0.1) -> Predict:
    """Find the bright squares with probability ``sure``, smaller by ``shrink`` px on each side.

    Elsewhere the probability is ``false``.
    """

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        bright = image > 0.5
        for _ in range(shrink):
            grown = np.pad(bright, 1)
            bright = (
                bright & grown[2:, 1:-1] & grown[:-2, 1:-1] & grown[1:-1, 2:] & grown[1:-1, :-2]
            )
        return _two(np.where(bright, sure, false).astype(np.float32))

    return predict


def _two(of_square: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([1 - of_square, of_square])
