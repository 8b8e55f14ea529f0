"""Judge several ways to segment a target by its labels; free of torch.

Legend: C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.choice.label_scores import LEAST_TILES, Evidence
from models.choice.prudence import prudent_first
from models.choice.verdict import CandidateVerdict, ClassVerdict, Interval, Outcome, Rate, Verdict
from models.labels_used.training_labels import SAYS_NOTHING
from models.scores import Evaluation

LEAST_GAIN = 0.02
"""The least difference of two losses that counts.

A smaller one may be certain and mean nothing: a prediction that is only a little surer gains it.
"""

LEAST_DICE = 0.01
"""The least difference of two mean DICE that counts, where masks compare."""

_SMALL, _LARGE = 0.67, 1.5  # shares of the source's area that are worth a remark
_MOST_MORE_TILES = 500  # a difference that needs more labels is not worth them


@dataclass(frozen=True)
class Candidate:
    """A candidate with its evidence; ``evaluation`` holds its scores on test masks, if any.

    One that is not ``usable`` is shown, and never the one to use: it takes several networks.
    ``changes`` tells how much it differs from the source-only model, as ``Plain.changes`` does.
    """

    name: str
    title: str
    evidence: Evidence
    trained_on_labels: bool = False
    evaluation: Evaluation | None = None
    usable: bool = True
    changes: float = 0.0


@dataclass(frozen=True)
class Facts:
    """The facts that are known beside the evidence.

    ``source_area`` (C,) is the mean share of each class in those tiles of the source's masks that
    hold it, NaN where none does. ``contradictions`` counts the labels *present* of tiles that
    other tiles cover wholly and call *absent*. ``remarks`` are findings about how candidates were
    made.
    """

    class_names: tuple[str, ...]
    source_area: NDArray[np.float64] | None = None
    contradictions: int = 0
    same_images: bool = False
    remarks: tuple[str, ...] = ()


def judge(candidates: Sequence[Candidate], facts: Facts) -> Verdict:
    """Compare candidates of the same labelled tiles; the first one is the source-only model.

    The candidate that is ``prudent_first`` is the one to use if it beats the source-only model by
    more than the interval of the difference, and by 0.02 or more; else source-only is. Labels
    that say nothing raise no error: the verdict tells what they lack. Where masks decide, the loss
    is 1 less their mean DICE, and 0.01 is enough.
    """
    base = candidates[0].evidence
    judged = base.decides and not facts.same_images
    verdicts = [_of(candidates[0], None, facts)]
    verdicts += [_of(each, base if judged else None, facts) for each in candidates[1:]]
    best = _best(base, [each for each in candidates[1:] if each.usable], verdicts)
    outcome = _outcome(best, least_gain(base), judged=judged)
    chosen = verdicts[0] if best is None or outcome != "better" else best
    return Verdict(
        outcome=outcome,
        use=chosen.name,
        num_tiles=base.num_tiles,
        num_points=len(base.labels) - base.num_tiles,
        num_sections=len(np.unique(base.sections)),
        judged_by="masks" if base.by_masks else "labels",
        candidates=tuple(verdicts),
        findings=_findings(base, chosen, facts),
        advice=_advice(base, best, chosen, outcome, facts),
    )


def _best(
    base: Evidence, usable: Sequence[Candidate], verdicts: Sequence[CandidateVerdict]
) -> CandidateVerdict | None:
    found = {each.name: each.evidence for each in usable}
    changes = {each.name: each.changes for each in usable}
    first = prudent_first(found, base, changes.__getitem__)[:1]
    return next((each for each in verdicts if each.name in first), None)


def least_gain(evidence: Evidence) -> float:
    """Return the least difference of two losses that counts."""
    return LEAST_DICE if evidence.by_masks else LEAST_GAIN


def _outcome(best: CandidateVerdict | None, least: float, *, judged: bool) -> Outcome:
    if not judged or best is None or best.gain is None:
        return "not_judged"
    if not best.gain.told or abs(best.gain.value) < least:
        return "not_told"
    return "better" if best.gain.low > 0 else "worse"


def _of(candidate: Candidate, base: Evidence | None, facts: Facts) -> CandidateVerdict:
    evidence, evaluation = candidate.evidence, candidate.evaluation
    return CandidateVerdict(
        name=candidate.name,
        title=candidate.title,
        loss=evidence.loss(),
        gain=None if base is None else evidence.gain_over(base),
        trained_on_labels=candidate.trained_on_labels,
        classes=_classes(evidence, evaluation, facts),
        mean_dice=None if evaluation is None else evaluation.mean_dice,
    )


def _classes(
    evidence: Evidence, evaluation: Evaluation | None, facts: Facts
) -> dict[str, ClassVerdict]:
    balanced, f1, area = evidence.balanced_accuracy(), evidence.f1(), evidence.area()
    source = facts.source_area
    masks = (None,) * len(facts.class_names) if evidence.masks is None else evidence.masks.dice()
    classes = {}
    for number, name in enumerate(facts.class_names):
        claims, misses = (
            Rate.count(int(wrong), int(of))
            for wrong, of in zip(evidence.errors[number], evidence.counts[number], strict=True)
        )
        classes[name] = ClassVerdict(
            misses=misses,
            claims=claims,
            balanced_accuracy=_known(balanced[number]),
            f1=_known(f1[number]),
            area=_known(area[number]),
            source_area=None if source is None else _known(source[number]),
            dice=None if evaluation is None else evaluation.dice[number],
            mask_dice=masks[number],
        )
    return classes


def _findings(base: Evidence, chosen: CandidateVerdict, facts: Facts) -> tuple[str, ...]:
    """Tell what the labels lack, and which classes are drawn too small or too large."""
    if facts.same_images:
        return ("Source and target hold the same images, so there is nothing to adapt.",)
    found = list(facts.remarks)
    if facts.contradictions:
        found.append(
            f"{facts.contradictions} labels say present of a tile where other labels say absent "
            "of the whole tile."
        )
    if chosen.trained_on_labels:
        found.append(
            f"{chosen.title} was trained on these labels, so its errors in other tiles may be more."
        )
    for name, each in chosen.classes.items():
        if each.area is None or not each.source_area:
            continue
        ratio = each.area / each.source_area
        if not _SMALL <= ratio <= _LARGE:
            found.append(
                f"Where labels call {name} present, {chosen.title} draws {ratio:.2f} times the "
                "area that the source's masks have in such tiles: the labels cannot see that."
            )
    return tuple(found + [words for _, words in _unjudged(base, facts)])


def _unjudged(base: Evidence, facts: Facts) -> list[tuple[str, str]]:
    """Return the classes that cannot be judged, each with the reason."""
    found = []
    for name, (absent, present), judged in zip(
        facts.class_names, base.counts.tolist(), base.judged, strict=True
    ):
        if judged:
            continue
        told = absent + present
        if not told:
            words = f"No tile has a label of {name}."
        elif told >= 2 * LEAST_TILES and present / told >= SAYS_NOTHING:
            words = (
                f"{name} is in {present} of {told} labelled tiles: it cannot be judged by tiles of "
                "this size."
            )
        elif told >= 2 * LEAST_TILES and not present:
            words = f"All {told} labelled tiles call {name} absent, so a miss cannot be seen."
        else:
            words = (
                f"{present} labelled tiles call {name} present and {absent} absent: {LEAST_TILES} "
                "of each are needed."
            )
        found.append((name, words))
    return found


def _advice(
    base: Evidence,
    best: CandidateVerdict | None,
    chosen: CandidateVerdict,
    outcome: Outcome,
    facts: Facts,
) -> tuple[str, ...]:
    """Say what to do: the model to use, and the labels that would tell more."""
    judges = "the masks" if base.by_masks else "the labels"
    if outcome == "better":
        return (f"Use {chosen.title}: {judges} prefer it to the source-only model.",)
    if outcome == "worse":
        return (f"Keep the source-only model: {judges} prefer it to every other candidate.",)
    keep = "Keep the source-only model: "
    if facts.same_images:
        return (keep + "it was trained on these images.",)
    if base.by_masks:
        told = "the masks cannot tell whether another candidate is better."
        return (keep + told, "Draw a mask of another section, and count it in masked_sections.")
    rarest = _rarest(base, facts)
    if outcome == "not_judged":
        missing = [name for name, _ in _unjudged(base, facts)] or list(facts.class_names)
        return (
            keep + "there are too few labels to compare it with others.",
            f"Label tiles until {LEAST_TILES} or more show {_or(missing)}, and as many do not. If "
            "nearly every tile shows it, take smaller tiles.",
        )
    more = None if best is None or best.gain is None else more_tiles(best.gain, len(base.labels))
    told = "the labels cannot tell whether another candidate is better."
    if more is None:
        return (keep + told, "More labels would hardly tell more: draw a mask of one section.")
    return (keep + told, f"Label about {more} more tiles, those with {rarest} first.")


def more_tiles(gain: Interval, tiles: int) -> int | None:
    """Return how many more tiles would tell a difference of this size; None if too many.

    Beside ``tiles`` labelled ones; None also stands for a difference that is too small to matter.
    The interval's width falls with the square root of the number of tiles.
    """
    half = (gain.high - gain.low) / 2
    too_far = abs(gain.value) * np.sqrt(1 + _MOST_MORE_TILES / tiles) <= half
    if too_far or abs(gain.value) < LEAST_GAIN:
        return None
    needed = tiles * (half / abs(gain.value)) ** 2 - tiles
    return max(10, round(needed / 10) * 10)


def _rarest(base: Evidence, facts: Facts) -> str:
    """Return the judged class that the fewest tiles call present."""
    present = np.where(base.judged, base.counts[:, 1], np.iinfo(np.int64).max)
    return facts.class_names[int(present.argmin())]


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
