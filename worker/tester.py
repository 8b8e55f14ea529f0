"""A benchmark part: each of its rows, scored on the target's test sections."""

import resource
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from models.config import StyleFilterConfig
from models.data.domain import Domain
from models.data.sections import Section, Split
from models.evaluation import Evaluated, evaluate
from models.inference import Predictor
from models.table1.methods import METHODS, ROWS, RowName
from models.table1.plan import BenchmarkPart
from models.table1.results import RowScores
from models.table1.training import Trained, styliser
from models.training.progress import Report

SCORES = "scores.json"
"""In the folder of a part: what it measured, a list of ``RowScores``."""

PICTURES = "predictions"
"""In the folder of a part of the first fold: the prediction of one test section for each row."""

SCORES_TYPE = TypeAdapter(list[RowScores])


class NothingMeasured(ValueError):
    """None of a benchmark's parts has a result."""


@dataclass(frozen=True)
class Selection:
    """What chose the weights that are tested, and of which step they are."""

    by: str
    step: int


class Tester:
    """Tests what a part trained."""

    def __init__(
        self,
        part: BenchmarkPart,
        pair: tuple[Domain, Domain],
        trained: Trained,
        config: StyleFilterConfig,
    ) -> None:
        self._part, self._trained, self._config = part, trained, config
        self._source, self._target = pair

    def evaluate(self, row: RowName, report: Report) -> Evaluated:
        """Score a row on the target's test sections."""
        return evaluate(
            self._predictor(row),
            self._target,
            "test",
            report=report,
            filtered=ROWS[row].filtered,
        )

    def scores(
        self, row: RowName, evaluated: Evaluated, chosen: Selection, style: Selection | None
    ) -> RowScores:
        """What the table needs of a row that was scored, and what chose its networks."""
        assert self._part.method is not None
        method = METHODS[self._part.method]
        training = self._target.split("train")
        by_labels = method.uses_labels or (style is not None and style.by == "labels")
        labelled: list[Split] = ["train"] if by_labels else []
        labelled += ["test"] if ROWS[row].filtered else []
        return RowScores(
            row=row,
            fold=self._part.fold,
            tile_px=self._part.tile_px,
            sections=tuple(section.name for section in evaluated.sections),
            groups=tuple(section.group or section.name for section in evaluated.sections),
            confusions=tuple(each.confusion for each in evaluated.each),
            selected_by=chosen.by,
            selected_step=chosen.step,
            style_selected_by=None if style is None else style.by,
            num_labels=len(self._target.labelled_tiles(labelled)),
            num_masks=sum(s.has_mask for s in training) if method.masks_of == "target" else 0,
            peak_memory_bytes=peak_memory_bytes(),
        )

    def picture(self, row: RowName) -> NDArray[np.uint8]:
        """Class ids (H, W), native size, of the test section that the report shows."""
        section = pictured(self._target)
        prediction = self._predictor(row).predict(
            self._target.native_image(section),
            self._target.info.pixel_size_nm,
            intensity_window=self._target.info.intensity_window,
            stylise=ROWS[row].tested_on != "none",
        )
        if ROWS[row].filtered:
            return prediction.within(self._target.allowed(section))
        return prediction.mask

    def _predictor(self, row: RowName) -> Predictor:
        way, config = ROWS[row].tested_on, self._config
        style = None
        if way != "none":
            style = styliser(way, self._source, config, self._trained.style).style
        adapted = self._trained.adapted is not self._trained.source_only
        crop_px = (config.adaptation if adapted else config.pretrain).crop_px
        return Predictor(self._trained.adapted, self._source.working_nm, crop_px, style)


def pictured(target: Domain) -> Section:
    """The test section that a report shows: the middle one of those with masks."""
    sections = target.split("test", masked=True)
    return sections[len(sections) // 2]


def peak_memory_bytes() -> int:
    """The most that this process held since it started: of its GPU, else of main memory."""
    on_gpu: int = torch.cuda.max_memory_allocated()  # 0 where no GPU is used
    if on_gpu:
        return on_gpu
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kilobytes
