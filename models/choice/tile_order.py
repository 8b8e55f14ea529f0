"""Keep the labels of those training tiles that are best labelled next.

This is for measuring what the order of ``labels_used/next_tiles.py`` is worth: the labels of all
tiles are known, and only those of the first tiles in that order are kept.
"""

import numpy as np

from models.choice.candidates import Plain, Workshop
from models.choice.tiles import training_jury
from models.config.choice import ViewName
from models.data.domain import Domain
from models.data.labels import UNKNOWN
from models.data.tiles import without_labels
from models.labels_used.next_tiles import TilesToOrder, order
from models.networks.unet import UNet
from models.stylefilter import StyleFilter

_VIEWS: tuple[ViewName, ...] = ("raw", "histogram")
"""The views whose candidates are asked: with both statistics of batch norm, up to four."""


def labels_of_next(steps: StyleFilter, source_only: UNet, number: int) -> Domain:
    """Return the target with the labels of the ``number`` training tiles to label first.

    All are picked before any of their labels is known, by what untrained candidates of
    ``source_only`` say of the tiles. Labels of validation sections are left out, too.
    """
    shop, jury = Workshop(steps, source_only), training_jury(steps.target)
    plains = [Plain(view, statistics) for view in _VIEWS for statistics in shop.statistics]
    peaks = [shop.evidence(shop.make(p), p, jury, lambda: None).peaks for p in plains]
    labelled = steps.target.labelled_tiles(["train"])
    # In the order of the evidence: section by section.
    tiles = [t for section in jury.sections for t in labelled if t.section == section.index]
    boxes = np.array([(t.y0, t.x0, t.height, t.width) for t in tiles], float).reshape(-1, 4)
    asked = TilesToOrder(
        sections=np.array([tile.section for tile in tiles], np.int64),
        centres=boxes[:, :2] + boxes[:, 2:] / 2,
        sides=boxes[:, 2:],
        labels=np.full((len(tiles), steps.target.num_classes), UNKNOWN),
        presence=np.stack(peaks),
    )
    first = {id(tiles[pick.number]) for pick in order(asked, number)}
    others = map(id, steps.target.labelled_tiles(["train", "val"]))
    return without_labels(steps.target, set(others) - first)
