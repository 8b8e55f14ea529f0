"""A student: one network that learns to segment as a slower way does, its teacher.

A teacher may be the mean of several candidates, or a segmenter behind CUT's generator. It segments
the target's training sections once. The student learns its probabilities, and the source's masks
beside them. Then one pass of one network takes the teacher's place.

Legend: B batch, C classes, H height, W width, S side of a crop.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from torch import Tensor

from models.adaptation import Learner, Pair, adapt_by
from models.choice.steadiness import Predict
from models.choice.teachers import Teacher, mean_of
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Domain, resample_image
from models.data.samples import Crop, SourceBatch, source_batch, target_batch
from models.data.sampling import Sample
from models.data.stylised import StylisedDomain, array_name
from models.labels_used.rounds import UNUSED, Average
from models.losses import soft_cross_entropy
from models.networks.statistics import statistics_kept
from models.networks.unet import UNet
from models.segmentation import adamw, as_input, pixels_of_all, supervised_loss
from models.training.identity import MethodFacts
from models.training.loop import Run, autocast, to_device, update
from models.training.progress import Progress, Report

_UNUSED = UNUSED | {"label_filter", "student_view"}
_CHUNK_PX = 256  # crops of large sections are read, and not the sections


class Lessons:
    """The probabilities of a teacher, as ``taught`` left them, and the teacher's ``identity``."""

    def __init__(self, store: Path, identity: str) -> None:
        self._group = zarr.open_group(str(store), mode="r")
        self.identity = identity

    def of_crop(self, crop: Crop) -> NDArray[np.float32]:
        """Return the probabilities of a crop: (C, S, S), all 0 in padding."""
        stored = self._group[array_name(crop.section)]
        assert isinstance(stored, zarr.Array)
        window = np.asarray(stored[:, crop.rows, crop.cols], dtype=np.float32)
        return crop.completed(window, 0)


def taught(
    teacher: Teacher, working: Domain, seen: StylisedDomain, out: Path, report: Report
) -> Lessons:
    """Let a teacher segment the target's training sections, and keep what it says.

    It sees the sections of ``working`` in four rotations, whose mean counts. ``seen`` are the same
    sections as the student sees them, perhaps at another pixel size: the probabilities are
    resampled to it. They go to ``out``, a Zarr group that is replaced: (C, H, W) float16 in [0, 1].
    ``report`` is called after each section.
    """
    group, sections = zarr.open_group(str(out), mode="w"), seen.training_sections()
    for step, section in enumerate(sections, start=1):
        found, shape = (
            _in_rotations(teacher.predict, working.image(section)),
            seen.working_shape(section),
        )
        sized = np.stack([resample_image(each, shape) for each in found]).astype(np.float16)
        chunks = (len(sized), *(min(_CHUNK_PX, side) for side in shape))
        group.create_array(array_name(section), data=sized, chunks=chunks)
        report(Progress("stylise", step, len(sections), {}))
    return Lessons(out, teacher.identity)


def distil(start: UNet, pair: Pair, lessons: Lessons, config: StyleFilterConfig, run: Run) -> UNet:
    """Train a copy of ``start`` with CE(x_s, m_s) + CE(x_t, lessons), and return its average.

    ``pair.target`` is the target as ``start`` sees it, and as the student will. Batch norm's
    statistics stay those of ``start``; if ``config.rounds.statistics`` says that they are the
    target's, a source batch is normalised by its own. The steps are those of ``config.adaptation``.

    Raises:
        ValueError: a domain has no training sections, or (as NonFiniteLoss) a loss is not finite.
    """
    return adapt_by(_Student(start, pair, lessons, config).learner(), pair, config, run)


@dataclass(frozen=True)
class _Part:
    """One of the parts in which a batch is computed.

    ``views`` is (B, 1, S, S), ``lessons`` (B, C, S, S), and ``inside``, (B, S, S), is False in
    padding.
    """

    source: SourceBatch
    views: NDArray[np.float32]
    lessons: NDArray[np.float32]
    inside: NDArray[np.bool_]


class _Student:
    """The weights that are trained, and their average, which is the result."""

    def __init__(
        self, start: UNet, pair: Pair, lessons: Lessons, config: StyleFilterConfig
    ) -> None:
        self._pair, self._lessons = pair, lessons
        self._stage = config.adaptation.changed({"student_view": "stylised"})
        self._own_statistics = config.rounds.statistics == "target"
        self._student, self._result = copy.deepcopy(start), copy.deepcopy(start)
        self._average = Average(start, config.rounds.ema_decay)
        self._device = next(start.parameters()).device
        self._optimiser = adamw(self._student, self._stage)
        self._settings = {
            "method": "student",
            "teacher": lessons.identity,
            "statistics": config.rounds.statistics,
            "average": config.rounds.ema_decay,
        }

    def learner(self) -> Learner[Sequence[_Part]]:
        return Learner(
            segmenter=self._result,
            facts=MethodFacts(labels=False, settings=self._settings, unused=_UNUSED),
            batch=self._batch,
            step=self._step,
            optimisers={"segmenter": self._optimiser},
            modules={"student": self._student, "average": self._average},
            before_scores=self._finish,
        )

    def _batch(self, x_s: Sequence[Sample], x_t: Sequence[Sample]) -> Sequence[_Part]:
        size = len(x_s) // self._stage.accumulate
        return [self._part(x_s[i : i + size], x_t[i : i + size]) for i in range(0, len(x_s), size)]

    def _part(self, x_s: Sequence[Sample], x_t: Sequence[Sample]) -> _Part:
        target = target_batch(self._pair.target, x_t, self._stage)
        return _Part(
            source=source_batch(self._pair.source, x_s, self._stage),
            views=target.students[:, 0],
            lessons=np.stack([self._lessons.of_crop(crop) for crop in target.crops]),
            inside=target.inside,
        )

    def _step(self, batch: Sequence[_Part]) -> Mapping[str, float]:
        known_s = self._number([part.source.masks != IGNORE for part in batch])
        known_t = self._number([part.inside for part in batch])

        def losses() -> Iterator[Tensor]:
            for part in batch:
                yield self._source_loss(part.source, known_s)
                yield self._lesson_loss(part, known_t)

        values = update(losses(), self._optimiser)
        self._average.follow(self._student)
        # ``losses`` yields source and target in turn.
        return {"loss_source": sum(values[0::2]), "loss_target": sum(values[1::2])}

    def _source_loss(self, batch: SourceBatch, num_known: Tensor) -> Tensor:
        self._student.train(self._own_statistics)
        with statistics_kept(self._student):
            return supervised_loss(self._student, batch, self._stage, num_known)

    def _lesson_loss(self, part: _Part, num_inside: Tensor) -> Tensor:
        self._student.eval()
        with autocast(self._device, self._stage.precision):
            logits = self._student(as_input(part.views, self._device))
        return soft_cross_entropy(logits, to_device(part.lessons, self._device), num_inside)

    def _number(self, known: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Count what is known in all parts of a batch, as (): the mean over the processes."""
        return pixels_of_all(np.concatenate([part.ravel() for part in known]), self._device)

    def _finish(self) -> None:
        """Make the result of the averaged weights, as it is to be scored and kept."""
        self._result.load_state_dict(self._average.network.state_dict())
        self._result.eval()


def _in_rotations(predict: Predict, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the probabilities (C, H, W) of an image over four rotations."""
    turned = (
        np.rot90(predict(np.ascontiguousarray(np.rot90(image, turns))), -turns, axes=(1, 2))
        for turns in range(4)
    )
    return mean_of(turned)
