"""The paper's evaluation: whole sections are predicted and compared with their masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.data.domain import Domain
from models.data.sections import Section, Split
from models.inference import Predictor
from models.scores import Evaluation, confusion_matrix
from models.training.progress import Progress, Report


@dataclass(frozen=True)
class Evaluated:
    """The scores of a split: of ``each`` section with a mask, and of all pixels ``pooled``."""

    sections: tuple[Section, ...]
    each: tuple[Evaluation, ...]
    pooled: Evaluation

    @classmethod
    def of(
        cls,
        class_names: tuple[str, ...],
        sections: Sequence[Section],
        confusions: Sequence[NDArray[np.int64]],
    ) -> Self:
        """Score the confusion matrix (C, C) of each section, and their sum."""
        return cls(
            sections=tuple(sections),
            each=tuple(Evaluation.of(class_names, confusion) for confusion in confusions),
            pooled=Evaluation.of(class_names, np.sum(confusions, axis=0)),
        )


def evaluate(
    predictor: Predictor, domain: Domain, split: Split, *, report: Report, filtered: bool = False
) -> Evaluated:
    """Score a split's sections with masks at native size, stylised if the predictor has a style.

    The paper predicts unseen images without their labels, P(x*). If ``filtered``, labels take part:
    no pixel becomes a class that the labels of its tile call absent, while unknown classes are
    allowed. Where all classes are absent the unfiltered prediction stays: training can leave such
    a pixel out, but a score cannot. ``report`` is called after each section.

    Raises:
        ValueError: the split has no section with a mask.
    """
    sections = domain.split(split, masked=True)
    if not sections:
        raise ValueError(
            f"dataset {domain.info.name!r} has no {split} sections with masks: name other sections "
            "in splits, or add masks"
        )
    confusions = []
    for step, section in enumerate(sections, start=1):
        prediction = predictor.predict(
            domain.native_image(section),
            domain.pixel_size(section),
            intensity_window=domain.window(section),
            stylise=predictor.style is not None,
        )
        labels = prediction.within(domain.allowed(section)) if filtered else prediction.mask
        confusions.append(confusion_matrix(domain.native_mask(section), labels, domain.num_classes))
        report(Progress("evaluate", step, len(sections), {}))
    return Evaluated.of(domain.info.class_names, sections, confusions)
