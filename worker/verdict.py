"""Ask the target's labels which network of an adaptation segments it best."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from models.choice.judging import Candidate, Facts, judge
from models.choice.label_scores import FEW_TILES, gather
from models.choice.mask_scores import MaskPart
from models.choice.tiles import Jury, contradictions, jury
from models.choice.verdict import Verdict
from models.data.sections import Section
from models.labels_used.area import area_prior
from models.labels_used.training_labels import TrainingLabels
from models.labels_used.training_masks import masked_sections
from models.scores import Evaluation
from models.table1.methods import ROWS, RowName
from models.training.progress import Progress, Report
from worker.inputs import AdaptInputs, StyleFilterInputs
from worker.tester import Tester

_ROWS = ("source-only", "cut", "stylefilter")
"""The rows of Table 1 that ``POST /predict`` can serve with the models of an adaptation."""


def verdict_of(
    inputs: AdaptInputs | StyleFilterInputs,
    tester: Tester,
    scores: Mapping[RowName, Evaluation],
    report: Report,
) -> Verdict:
    """Compare the source-only model, CUT and StyleFilter by the labels of the target.

    ``scores`` holds the DICE of rows on test masks, which is shown and chooses nothing.
    """
    source, target = inputs.source, inputs.target
    # StyleFilter trains on no mask of the target, so all masks that may be used compare.
    masked = masked_sections(target.sections, inputs.config.rounds.masked_sections)
    judges = replace(jury(target), masks=tuple(map(MaskPart, masked)))
    candidates = [
        Candidate(
            name=row,
            title=ROWS[row].title,
            evidence=gather(
                tester.predictor(row).probabilities,
                target,
                _reported(judges, report, index),
                steadiness=judges.num_tiles < FEW_TILES,
                masks=judges.masks,
            ),
            trained_on_labels=judges.seen
            and ROWS[row].method.uses_labels
            and inputs.config.adaptation.label_filter,
            evaluation=scores.get(row),
        )
        for index, row in enumerate(_ROWS)
    ]
    tile_px = TrainingLabels.of(target).tile_px
    facts = Facts(
        class_names=source.info.class_names,
        source_area=None if tile_px is None else area_prior(source, tile_px),
        contradictions=contradictions(target, judges.sections),
        same_images=source.info.digest == target.info.digest,
    )
    return judge(candidates, facts)


def _reported(judges: Jury, report: Report, index: int) -> Iterator[Section]:
    """Yield the sections, and report each one when the next is asked for."""
    number = len(judges.sections)
    for step, section in enumerate(judges.sections, start=1):
        yield section
        report(Progress("verdict", index * number + step, len(_ROWS) * number, {}))
