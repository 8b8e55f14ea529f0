"""Says what to expect of an adaptation, by the latest probe of its pair."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.probes import reading
from app.probes.reading import Probe
from app.probes.schemas import ExpectedBenefit
from app.storage import Storage
from app.tables import Dataset, ModelKind, TrainedModel
from models.choice.judging import LEAST_GAIN, Candidate, Facts, judge
from models.choice.probed import Scored, best_of_each
from models.choice.verdict import Verdict

_SAME = "Source and target hold the same images, so there is nothing to adapt."
_LITTLE = 0.1  # the share of tiles with an error below which little is left to gain


def expected_benefit(
    session: Session, storage: Storage, source_id: UUID, target_id: UUID
) -> ExpectedBenefit:
    """Judge the source-only model in cheap views by the labels that the target has now.

    Raises:
        NotFound: there is no such target.
    """
    source, target = session.get_one(Dataset, source_id), datasets.get(session, target_id)
    if source.pixels_digest is not None and source.pixels_digest == target.pixels_digest:
        return ExpectedBenefit(probe=None, verdict=None, advice=[_SAME])
    probe = None
    if reading.has_probe(session, target_id):
        tiles = reading.read_tiles(session, target)
        probe = reading.latest(session, storage, tiles, source_id)
    if probe is None:
        return ExpectedBenefit(probe=None, verdict=None, advice=[_no_probe(session, source_id)])
    own = _newest_of(probe, source_id)
    verdict = _verdict(own)
    advice = [*_on_gain(verdict), *_on_sources(session, probe, own)]
    return ExpectedBenefit(probe=probe.read(), verdict=verdict, advice=advice)


def _no_probe(session: Session, source_id: UUID) -> str:
    of_source = select(TrainedModel.id).where(
        TrainedModel.source_id == source_id, TrainedModel.kind == ModelKind.SEGMENTER
    )
    probe = (
        "POST /jobs/probe with the target asks it in cheap views. Afterwards this answer tells "
        "what to expect, and what would help more."
    )
    if session.scalar(of_source.limit(1)) is None:
        return (
            "Nobody can know yet whether an adaptation helps, because no segmenter of the source "
            "is trained. POST /jobs/pretrain trains one, which the adaptation takes over. Then "
            f"{probe}"
        )
    return (
        "Nobody can know yet whether an adaptation helps, because no probe has asked the source's "
        f"segmenter. {probe}"
    )


def _newest_of(probe: Probe, source_id: UUID) -> list[Scored]:
    """Return the looks of the newest segmenter of a source, the model as it is first."""
    rows = [model for model in probe.models.values() if reading.of_source(model, source_id)]
    newest = str(max(rows, key=lambda model: (model.created_at, model.id)).id)
    looks = [each for each in probe.scored if each.look.meta.model == newest]
    return sorted(looks, key=lambda each: not each.look.meta.as_it_is)


def _verdict(looks: Sequence[Scored]) -> Verdict:
    """Judge all looks of a model; those that were taken with few labels count their consistency."""
    candidates = [
        Candidate(
            "source-only" if meta.as_it_is else f"{meta.view}, {meta.statistics}",
            meta.title,
            each.evidence,
        )
        for each in looks
        for meta in [each.look.meta]
    ]
    facts = Facts(looks[0].look.meta.class_names, source_area=looks[0].look.source_area)
    verdict = judge(candidates, facts)
    # Its advice is about models that can be used at once; that of this module is not.
    return verdict.model_copy(update={"advice": verdict.advice[1:]})


def _on_gain(verdict: Verdict) -> list[str]:
    """Say what the views gain, and what would help more."""
    if verdict.num_tiles == 0:
        return [
            "No tile that the probe looked at has a label: the adaptation would filter nothing, "
            "and no verdict could tell whether it helped. Label some tiles first; GET "
            "/datasets/{dataset_id}/next-tiles says which."
        ]
    words = []
    best = next(each for each in verdict.candidates if each.name == verdict.use)
    if verdict.outcome == "better" and best.gain is not None:
        words.append(
            f"{best.title} gains {best.gain.value:.3f} ({best.gain.low:.3f} to "
            f"{best.gain.high:.3f}) of loss without any training: source and target differ in a "
            "way that an adaptation can mend."
        )
        if best.name.startswith("inverted"):
            words.append("Register the target again with `invert`: its contrast is inverted.")
    elif verdict.outcome != "not_judged":
        words.append(
            "No cheap view gains more than chance over the source-only model, so what an "
            f"adaptation gains has to come from training. Gains below {LEAST_GAIN} do not count."
        )
    if _little_left(verdict):
        words.append(
            "The source-only model misses and claims few labelled tiles: little is left to gain "
            "that labels of tiles can see. A mask of one section would tell more."
        )
    return [*words, *verdict.advice]


def _little_left(verdict: Verdict) -> bool:
    """Tell whether the source-only model surely errs in few tiles of each class."""
    rates = [
        rate
        for each in verdict.candidates[0].classes.values()
        for rate in (each.misses, each.claims)
        if rate.of
    ]
    return bool(rates) and all(rate.high < _LITTLE for rate in rates)


def _on_sources(session: Session, probe: Probe, own: Sequence[Scored]) -> list[str]:
    """Name another source that scores better than this one by more than chance."""
    best_own = min(own, key=lambda each: each.score)
    for each in best_of_each(probe.scored):
        model = probe.models.get(each.look.meta.model)
        if model is None or model.id == UUID(best_own.look.meta.model):
            return []  # the others score worse
        mine, its = best_own.evidence.interval(), each.evidence.interval()
        if mine is None or its is None or its.high >= mine.low:
            continue
        source = session.get_one(Dataset, model.source_id)
        if model.kind == ModelKind.SEGMENTER and source.deleted_at is None:
            return [
                f"The source {source.name} ({source.id}) suits the target better: its loss is "
                f"{its.value:.3f}, and that of this source {mine.value:.3f}. GET "
                "/datasets/{dataset_id}/suggested-sources ranks all of them."
            ]
    return []
