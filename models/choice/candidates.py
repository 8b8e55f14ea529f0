"""Candidates that segment a target without having been trained on it, and their evidence."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.adaptation import estimate_on_target
from models.choice.label_scores import FEW_TILES, Evidence, gather
from models.choice.tiles import Jury
from models.choice.views import VIEWS, applied, fitted
from models.config.choice import ViewName
from models.data.sections import Section
from models.data.stylised import StylisedDomain
from models.inference import Predictor, Styliser, stylise_domain
from models.labels_used.area import class_bias, fold, predicted_in_tiles, prior_by_labels
from models.labels_used.rounds import NO_NOISE
from models.metadata import ViewMeta
from models.networks.statistics import norms
from models.networks.unet import UNet
from models.stylefilter import StyleFilter

Statistics = Literal["source", "target"]


@dataclass(frozen=True)
class Plain:
    """A candidate that is not trained: a view, batch norm's statistics, and a correction of area.

    ``area_power`` is the share of the correction, as in ``RoundsConfig``.
    """

    view: ViewName = "raw"
    statistics: Statistics = "source"
    area_power: float = 0.0

    @property
    def title(self) -> str:
        """The candidate in words."""
        if self == Plain():
            return "Source-only"
        words = f"Source-only on the {VIEWS[self.view]}"
        if self.statistics == "target":
            words += ", with the target's statistics"
        return words + (f", {self.area_power:.0%} of the area" if self.area_power else "")


class Workshop:
    """Makes candidates of the source-only segmenter, and asks tiles for their evidence.

    ``steps`` holds both domains; the labels of its target are those that training may see.
    """

    def __init__(self, steps: StyleFilter, source_only: UNet) -> None:
        self.steps, self.source_only = steps, source_only.eval()
        self._views: dict[ViewName, ViewMeta] = {}
        self._seen: dict[ViewName, StylisedDomain] = {}

    @property
    def statistics(self) -> Sequence[Statistics]:
        """The statistics to try; a network without batch norm has none to change."""
        both = self.steps.config.choice.target_statistics and norms(self.source_only)
        return ("source", "target") if both else ("source",)

    def view(self, name: ViewName) -> ViewMeta:
        """Return a view, fitted to the source."""
        if name not in self._views:
            self._views[name] = fitted(name, self.steps.source)
        return self._views[name]

    def seen(self, name: ViewName) -> StylisedDomain:
        """Return the target as training sees it through a view; its images lie in the workspace."""
        if name not in self._seen:
            style = applied(self.view(name)) or _same
            self._seen[name] = stylise_domain(
                Styliser(style, f"view {name}"),
                self.steps.target,
                self.steps.workspace / f"{name}.zarr",
                self.steps.run.report,
            )
        return self._seen[name]

    def make(self, plain: Plain) -> UNet:
        """Return the segmenter of a candidate, in eval mode."""
        if (plain.statistics, plain.area_power) == ("source", 0):
            return self.source_only
        segmenter = copy.deepcopy(self.source_only)
        seen, config = self.seen(plain.view), self.steps.config
        if plain.statistics == "target":
            # Noise would change them, and the images that are segmented have none.
            clean = config.changed({"adaptation": {"augmentation": NO_NOISE}})
            estimate_on_target(segmenter, seen, clean)
        segmenter.eval()
        if plain.area_power:
            predicted = predicted_in_tiles(segmenter, seen, config.adaptation.crop_px)
            fold(segmenter, class_bias(predicted, self.prior, plain.area_power))
        return segmenter

    def evidence(
        self, segmenter: UNet, view: ViewName, jury: Jury, report: Callable[[], None]
    ) -> Evidence:
        """Return what a segmenter says of the jury's tiles through a view."""
        config = self.steps.config
        predictor = Predictor(
            segmenter.eval(),
            self.steps.source.working_nm,
            config.adaptation.crop_px,
            applied(self.view(view)),
        )
        return gather(
            predictor.probabilities,
            jury.target,
            _reported(jury.sections, report),
            steadiness=jury.num_tiles < FEW_TILES,
        )

    @cached_property
    def prior(self) -> NDArray[np.float64]:
        """The area of each class given presence, (C,); NaN where labels say nothing of it."""
        return prior_by_labels(self.steps.source, self.steps.target)


def _same(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return image


def _reported(sections: Sequence[Section], report: Callable[[], None]) -> Iterator[Section]:
    """Yield sections, and report each one when the next is asked for."""
    for section in sections:
        yield section
        report()
