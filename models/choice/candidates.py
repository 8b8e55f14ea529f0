"""Candidates that segment a target without having been trained on it, and their evidence."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.adaptation import estimate_on_target
from models.choice.label_scores import FEW_TILES, Evidence, gather
from models.choice.steadiness import Predict
from models.choice.tiles import Jury
from models.choice.views import VIEWS, applied, fitted, unchanged
from models.config.choice import ViewName
from models.data.domain import Domain
from models.data.sections import Section
from models.data.stylised import StylisedDomain
from models.evaluation import evaluate
from models.inference import Predictor, Styliser, stylise_domain
from models.labels_used.area import class_bias, fold, predicted_in_tiles, prior_by_labels
from models.labels_used.rounds import NO_NOISE
from models.metadata import ViewMeta
from models.networks.statistics import norms
from models.networks.unet import UNet
from models.scores import Evaluation
from models.stylefilter import StyleFilter
from models.training.parallel import from_first

Statistics = Literal["source", "target"]


@dataclass(frozen=True)
class Plain:
    """A candidate that is not trained: a view, batch norm's statistics, and a correction of area.

    ``area_power`` is the share of the correction, as in ``RoundsConfig``. The segmenter sees images
    at ``pixel_factor`` times the working pixel size.
    """

    view: ViewName = "raw"
    statistics: Statistics = "source"
    area_power: float = 0.0
    pixel_factor: float = 1.0

    @property
    def title(self) -> str:
        """The candidate in words."""
        if self == Plain():
            return "Source-only"
        words = f"Source-only on the {VIEWS[self.view]}"
        if self.pixel_factor != 1:
            words += f" with pixels of {self.pixel_factor:g} times the size"
        if self.statistics == "target":
            words += ", with the target's statistics"
        return words + (f", {self.area_power:.0%} of the area" if self.area_power else "")

    @property
    def changes(self) -> float:
        """The number of differences from source-only; of area the share that is corrected."""
        others = (self.view != "raw", self.statistics == "target", self.pixel_factor != 1)
        return sum(others) + self.area_power


class Workshop:
    """Makes candidates of the source-only segmenter, and asks tiles for their evidence.

    ``steps`` holds both domains; the labels of its target are those that training may see.
    """

    def __init__(self, steps: StyleFilter, source_only: UNet) -> None:
        self.steps, self.source_only = steps, source_only.eval()
        self._fitted: dict[ViewName, ViewMeta] = {}
        self._seen: dict[ViewMeta, StylisedDomain] = {}
        self._sized: dict[tuple[Domain, float], Domain] = {}
        self._priors: dict[float, NDArray[np.float64]] = {}

    @property
    def statistics(self) -> Sequence[Statistics]:
        """The statistics to try; a network without batch norm has none to change."""
        both = self.steps.config.choice.target_statistics and norms(self.source_only)
        return ("source", "target") if both else ("source",)

    def view(self, plain: Plain) -> ViewMeta:
        """Return the view of a candidate, fitted to the source."""
        name, factor = plain.view, plain.pixel_factor
        if name not in self._fitted:
            self._fitted[name] = fitted(name, self.steps.source)
        return self._fitted[name].model_copy(update={"pixel_factor": factor})

    def seen(self, plain: Plain) -> StylisedDomain:
        """Return the target as training sees it through a view; its images lie in the workspace."""
        view = self.view(plain)
        if view not in self._seen:
            name = view.name if view.pixel_factor == 1 else f"{view.name} {view.pixel_factor:g}"
            self._seen[view] = stylise_domain(
                Styliser(applied(view) or unchanged, f"view {name}"),
                self._at(self.steps.target, view.pixel_factor),
                self.steps.workspace / f"{name}.zarr",
                self.steps.run.report,
            )
        return self._seen[view]

    def make(self, plain: Plain) -> UNet:
        """Return the segmenter of a candidate, in eval mode."""
        if (plain.statistics, plain.area_power) == ("source", 0):
            return self.source_only
        segmenter = copy.deepcopy(self.source_only)
        seen, config = self.seen(plain), self.steps.config
        if plain.statistics == "target":
            # Noise would change them, and the images that are segmented have none.
            clean = config.changed({"adaptation": {"augmentation": NO_NOISE}})
            estimate_on_target(segmenter, seen, clean)
        segmenter.eval()
        if plain.area_power:
            predicted = predicted_in_tiles(segmenter, seen, config.adaptation.crop_px)
            fold(segmenter, class_bias(predicted, self.prior(plain), plain.area_power))
        return segmenter

    def evidence(
        self, segmenter: UNet, plain: Plain, jury: Jury, report: Callable[[], None]
    ) -> Evidence:
        """Return what a segmenter says of the jury's tiles through the view of a candidate."""
        predict = self.predictor(segmenter, plain).probabilities
        sized = replace(jury, target=self._at(jury.target, plain.pixel_factor))
        return said(predict, sized, report)

    def predictor(self, segmenter: UNet, plain: Plain) -> Predictor:
        """Return a segmenter with the view of a candidate."""
        return Predictor(
            segmenter.eval(),
            self.steps.source.working_nm,
            self.steps.config.adaptation.crop_px,
            view=applied(self.view(plain)),
        )

    def scores(self, segmenter: UNet, plain: Plain) -> Evaluation | None:
        """Return the scores of a candidate on the target's test masks; None if it has none.

        They tell whether the labels chose well, and choose nothing.
        """
        target = self.steps.target
        if not target.split("test", masked=True):
            return None
        predictor = self.predictor(segmenter, plain)
        return evaluate(predictor, target, "test", report=lambda _: None).pooled

    def prior(self, plain: Plain = Plain()) -> NDArray[np.float64]:
        """Return the area of each class given presence, (C,); NaN where labels say nothing of it.

        The source's tiles have as many pixels as the target's have where the segmenter sees them.
        """
        factor = plain.pixel_factor
        if factor not in self._priors:
            target = self._at(self.steps.target, factor)
            self._priors[factor] = prior_by_labels(self.steps.source, target)
        return self._priors[factor]

    def _at(self, target: Domain, factor: float) -> Domain:
        """Return a target at a multiple of its working pixel size; it keeps what it has read."""
        if factor == 1:
            return target
        if (target, factor) not in self._sized:
            self._sized[target, factor] = target.at(factor * target.working_nm)
        return self._sized[target, factor]


def said(predict: Predict, jury: Jury, report: Callable[[], None]) -> Evidence:
    """Return what a function says of the tiles of a jury, at the working size of its target."""
    evidence = gather(
        predict,
        jury.target,
        _reported(jury.sections, report),
        steadiness=jury.num_tiles < FEW_TILES,
        masks=jury.masks,
    )
    return from_first(evidence)  # rounding must not let two processes choose differently


def _reported(sections: Sequence[Section], report: Callable[[], None]) -> Iterator[Section]:
    """Yield sections, and report each one when the next is asked for."""
    for section in sections:
        yield section
        report()
