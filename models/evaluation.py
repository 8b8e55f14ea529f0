"""The protocol of the experiments: predictions of whole sections against their masks."""

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
    """How well a split was predicted: ``each`` of its sections with masks, and ``pooled``."""

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

    No image-level label takes part, as the paper predicts unseen images with P(x*), unless
    ``filtered``: then no pixel becomes a class that its tile's labels call absent. Unknown allows;
    where every class is called absent, the unfiltered prediction stays, for there every pixel
    counts in the scores, while training can leave it out.
    """
    sections = domain.split(split, masked=True)
    if not sections:
        raise ValueError(f"dataset {domain.info.name!r} has no {split} sections with masks")
    confusions = []
    for step, section in enumerate(sections, start=1):
        prediction = predictor.predict(
            domain.native_image(section),
            domain.info.pixel_size_nm,
            intensity_window=domain.info.intensity_window,
            stylise=predictor.style is not None,
        )
        labels = prediction.within(domain.allowed(section)) if filtered else prediction.mask
        confusions.append(confusion_matrix(domain.native_mask(section), labels, domain.num_classes))
        report(Progress("evaluate", step, len(sections), {}))
    return Evaluated.of(domain.info.class_names, sections, confusions)
