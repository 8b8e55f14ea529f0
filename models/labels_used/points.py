"""Points of the target ("here is one"), and the discs of pixels around them; free of torch.

Legend: C classes, H height, W width, S side of a crop.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.config.rounds import RoundsConfig
from models.data.domain import IGNORE, Domain, Point
from models.data.samples import Crop
from models.data.sections import Section


def disc(
    point: Point, shape: tuple[int, ...], radius_px: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of the pixels of (H, W) around a point, its own among them."""
    reach = int(radius_px)
    rows = np.arange(max(0, point.y - reach), min(shape[0], point.y + reach + 1))
    columns = np.arange(max(0, point.x - reach), min(shape[1], point.x + reach + 1))
    distance = (rows[:, None] - point.y) ** 2 + (columns - point.x) ** 2
    near = np.nonzero(distance <= radius_px**2)
    return rows[near[0]], columns[near[1]]


class PointDiscs:
    """The discs around the points of a target's training sections.

    ``any`` tells whether a point takes part: without points, or with a weight of 0, none does.
    """

    def __init__(self, target: Domain, rounds: RoundsConfig) -> None:
        self._target = target
        self._radius_px = radius_px(target, rounds)
        training = target.split("train") if rounds.point_weight else ()
        self._points = {section.index: target.points(section) for section in training}
        self.any = any(self._points.values())

    def pixels(self, section: Section) -> NDArray[np.uint8]:
        """Return the class of each pixel in a disc of a point that is *present*, else 255: (H, W).

        Where discs of two classes meet, only the points themselves have a class.
        """
        shape = self._target.working_shape(section)
        found = np.full(shape, IGNORE, np.uint8)
        points = [point for point in self._points.get(section.index, ()) if point.present]
        several = np.zeros(shape, bool)
        for point in points:
            around = disc(point, shape, self._radius_px)
            several[around] |= (found[around] != IGNORE) & (found[around] != point.number)
            found[around] = point.number
        found[several] = IGNORE
        for point in points:
            found[point.y, point.x] = point.number
        return found

    def of_crop(self, crop: Crop) -> NDArray[np.int64]:
        """Return ``pixels`` of a crop: (S, S) int64."""
        return crop.padded(self.pixels(crop.section), IGNORE).astype(np.int64)

    def denied(self, probabilities: NDArray[np.float32], section: Section) -> NDArray[np.float32]:
        """Return probabilities (C, H, W) with 0 where a point says that the class is *absent*."""
        points = [point for point in self._points.get(section.index, ()) if not point.present]
        if not points:
            return probabilities
        probabilities = probabilities.copy()
        for point in points:
            rows, columns = disc(point, probabilities.shape[1:], self._radius_px)
            probabilities[point.number, rows, columns] = 0
        return probabilities


def radius_px(target: Domain, rounds: RoundsConfig) -> float:
    """Return the radius of the discs in pixels of the working size."""
    return rounds.point_radius_nm / target.working_nm


def point_facts(target: Domain, rounds: RoundsConfig) -> Mapping[str, object]:
    """Return what decides a training beside the configuration: the points, if they take part."""
    training = {section.index for section in target.split("train")}
    points = [
        [tile.section, point.y, point.x, point.number, point.present]
        for tile in target.tiles
        if tile.section in training
        for point in tile.points
    ]
    return {"points": sorted(points)} if points and rounds.point_weight else {}
