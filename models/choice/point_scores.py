"""Score predictions by points, each of which counts like a labelled tile; free of torch.

Legend: C classes, H height, W width.
"""

import numpy as np
from numpy.typing import NDArray

from models.config.rounds import POINT_RADIUS_NM
from models.data.domain import Domain
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.data.sections import Section
from models.labels_used.points import disc

Row = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""The labels, shares and peaks (C,) of a tile or a point, as ``Evidence`` has them."""


def rows_of_points(
    probabilities: NDArray[np.float32], target: Domain, section: Section
) -> list[Row]:
    """Return what a prediction, (C, H, W) in [0, 1], says of each point of a section.

    A class that is *present* at a point is found if a pixel within 40 nm of the point is predicted
    as it, since nobody points at the same pixel twice. One that is *absent* is claimed if the pixel
    itself is.
    """
    rows: list[Row] = []
    for point in target.points(section):
        around = (np.array([point.y]), np.array([point.x]))
        if point.present:
            radius_px = POINT_RADIUS_NM / target.working_nm
            around = disc(point, probabilities.shape[1:], radius_px)
        window = probabilities[:, *around]  # (C, pixels)
        found = np.zeros(len(window))
        found[np.unique(window.argmax(axis=0))] = 1
        labels = np.full(len(window), UNKNOWN)
        labels[point.number] = PRESENT if point.present else ABSENT
        rows.append((labels, found, window.max(axis=1).astype(np.float64)))
    return rows
