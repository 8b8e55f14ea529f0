"""Score rows of Table 1 on the target's test sections."""

import copy
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from models.choice.search import Chosen
from models.choice.views import applied
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.data.sections import Section, Split
from models.evaluation import Evaluated, evaluate
from models.inference import Predictor
from models.labels_used.training_masks import masked_sections
from models.table1.methods import ROWS, Method, RowName
from models.table1.plan import BenchmarkPart
from models.table1.results import RowScores, RuleChoice
from models.table1.training import Trained, styliser
from models.training.progress import Report
from models.training.resume import Best
from worker.outcome import Selection

SCORES = "scores.json"
"""The file in a part's folder with its results, a list of ``RowScores``."""

PICTURES = "predictions"
"""The folder in a part's folder, in the first fold, with each row's prediction of one section."""

SCORES_TYPE = TypeAdapter(list[RowScores])


class NothingMeasured(ValueError):
    """No part of a benchmark has a result."""


@dataclass(frozen=True)
class Choice:
    """The rules that chose the networks of a row; ``style`` is None for a row without one."""

    segmenter: Selection
    style: Selection | None


class Tester:
    """A tester of rows of Table 1, with the networks that were trained for them.

    ``others`` are weights of the adapted network that other rules of choice would have kept.
    """

    def __init__(
        self,
        trained: Trained,
        source: Domain,
        target: Domain,
        config: StyleFilterConfig,
        others: Mapping[str, Best] | None = None,
    ) -> None:
        self._trained, self._config, self._others = trained, config, others or {}
        self._source, self._target = source, target

    def evaluate(self, row: RowName, report: Report) -> Evaluated:
        """Score a row on the target's test sections."""
        predictor, filtered = self.predictor(row), ROWS[row].filtered
        return evaluate(predictor, self._target, "test", report=report, filtered=filtered)

    def scores(
        self, part: BenchmarkPart, row: RowName, evaluated: Evaluated, choice: Choice
    ) -> RowScores:
        """Return the results of a scored row that the table needs."""
        method, training = ROWS[row].method, self._target.split("train")
        # Labels that chose the generator count as used, too.
        by_labels = choice.style is not None and choice.style.by == "labels"
        labelled: list[Split] = ["train"] if method.uses_labels or by_labels else []
        labelled += ["test"] if ROWS[row].filtered else []
        of_target = method.masks_of == "target"
        return RowScores(
            row=row,
            fold=part.fold,
            tile_px=part.tile_px,
            budget=part.budget,
            sections=tuple(section.name for section in evaluated.sections),
            # A section without a group is resampled by itself.
            groups=tuple(section.group or section.name for section in evaluated.sections),
            confusions=tuple(each.confusion for each in evaluated.each),
            selected_by=choice.segmenter.by,
            selected_step=choice.segmenter.step,
            style_selected_by=None if choice.style is None else choice.style.by,
            num_labels=len(self._target.labelled_tiles(labelled)),
            num_masks=sum(s.has_mask for s in training) if of_target else self._num_masks(method),
            peak_memory_bytes=peak_memory_bytes(),
        )

    def choices(self, row: RowName, tested: RowScores) -> dict[str, RuleChoice]:
        """Score a row with the weights that other rules would have kept; equal ones once."""
        by_step = {tested.selected_step: tested.confusions}
        for best in self._others.values():
            if best.step not in by_step:
                adapted = copy.deepcopy(self._trained.adapted)
                adapted.load_state_dict(dict(best.weights))
                trained = replace(self._trained, adapted=adapted)
                other = Tester(trained, self._source, self._target, self._config)
                evaluated = other.evaluate(row, lambda _: None)
                by_step[best.step] = tuple(each.confusion for each in evaluated.each)
        return {
            rule: RuleChoice(step=best.step, confusions=by_step[best.step])
            for rule, best in self._others.items()
        }

    def _num_masks(self, method: Method) -> int:
        """Return the number of target masks by which a method that adapts learns or chooses."""
        if not method.reads_masks:
            return 0
        rounds = method.changed(self._config).rounds
        return len(masked_sections(self._target.sections, rounds.masked_sections))

    def picture(self, row: RowName) -> NDArray[np.uint8]:
        """Predict the test section that the report shows: class ids (H, W) at its native size."""
        section, predictor = pictured(self._target), self.predictor(row)
        prediction = predictor.predict(
            self._target.native_image(section),
            self._target.pixel_size(section),
            intensity_window=self._target.window(section),
            stylise=predictor.style is not None,
        )
        if ROWS[row].filtered:
            return prediction.within(self._target.allowed(section))
        return prediction.mask

    def predictor(self, row: RowName) -> Predictor:
        """Return the segmenter of a row with the row's style."""
        way, trained, config = ROWS[row].tested_on, self._trained, self._config
        view = style = None
        if way == "chosen":
            assert isinstance(trained, Chosen)
            view = applied(trained.view)
        elif way != "none":
            style = styliser(way, self._source, config, trained.style).style
        if ROWS[row].method.adapt is None:
            segmenter, crop_px = trained.source_only, config.pretrain.crop_px
        else:
            segmenter, crop_px = trained.adapted, config.adaptation.crop_px
        return Predictor(segmenter, self._source.working_nm, crop_px, style, view)


def pictured(target: Domain) -> Section:
    """Return the test section that a report shows: the middle one of those with masks."""
    sections = target.split("test", masked=True)
    return sections[len(sections) // 2]


def peak_memory_bytes() -> int:
    """Return the most bytes that this process held, of its GPU or else of main memory."""
    on_gpu: int = torch.cuda.max_memory_allocated()  # 0 where no GPU is used
    if on_gpu:
        return on_gpu
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kilobytes
