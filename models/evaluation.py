"""The protocol of the experiments: predictions of whole sections against their masks."""

import numpy as np

from models.data.domain import Domain, Split
from models.inference import Predictor
from models.progress import Progress, Report
from models.scores import Evaluation, confusion_matrix


def evaluate(
    predictor: Predictor, domain: Domain, split: Split, *, stylise: bool, report: Report
) -> Evaluation:
    """Score a split's sections with masks at native size, pooled in one confusion matrix.

    No image-level label takes part: the paper predicts unseen images with P(x*), unfiltered.
    """
    sections = domain.split(split, masked=True)
    if not sections:
        raise ValueError(f"dataset {domain.info.name!r} has no {split} sections with masks")
    pooled = np.zeros((domain.num_classes, domain.num_classes), dtype=np.int64)
    for step, section in enumerate(sections, start=1):
        prediction = predictor.predict(
            domain.native_image(section),
            domain.info.pixel_size_nm,
            intensity_window=domain.info.intensity_window,
            stylise=stylise,
        )
        mask = domain.native_mask(section)
        pooled += confusion_matrix(mask, prediction.mask, domain.num_classes)
        report(Progress("evaluate", step, len(sections), {}))
    return Evaluation.of(domain.info.class_names, pooled)
