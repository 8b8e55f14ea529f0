"""Ask trained models about a target, and keep what they say of its tiles."""

from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from app.tables import ModelKind
from models import checkpoint
from models.choice.looks import FILE, Look, save_looks
from models.choice.probed import ProbedModel, ProbeResult, Scored, best_of_each, scored
from models.choice.probing import Asked, Prober, sections_to_see
from models.data.domain import Domain
from models.data.tile_sizes import telling_px, tile_sizes
from models.training.device import resolve
from models.training.progress import Progress
from worker.inputs import ProbedInputs, ProbeInputs
from worker.outcome import Outcome, Surroundings


def probe(inputs: ProbeInputs, around: Surroundings) -> Outcome:
    """Let each model predict some sections in cheap views, and keep what it says of each tile."""
    device = resolve(inputs.config.device)
    looks: list[Look] = []
    for number, each in enumerate(inputs.models):
        segmenter, meta = checkpoint.load_segmenter(each.folder, device)
        asked = Asked(str(each.model.id), segmenter, meta, each.source)
        sections = sections_to_see(each.target, inputs.plan.max_sections)
        work = around.work / asked.id
        prober = Prober(asked, each.target, sections, work)
        of_model, total = len(prober.candidates), len(inputs.models)
        for step, look in enumerate(prober.looks(), start=1):
            looks.append(look)
            # Models have nearly as many candidates as each other.
            done = number * of_model + step
            around.recorder(Progress("probe", done, max(done, total * of_model), {}))
    around.folder.mkdir(parents=True, exist_ok=True)
    save_looks(around.folder / FILE, looks)
    outcome = Outcome()
    outcome.result.probe = _result(inputs, looks)
    outcome.result.notes += [
        f"Model {left.model} was left out: {left.reason}." for left in inputs.plan.left_out
    ]
    return outcome


def _result(inputs: ProbeInputs, looks: list[Look]) -> ProbeResult:
    known = {str(each.model.id): each for each in inputs.models}
    judged = [_scored(look, known[look.meta.model].target) for look in looks]
    first, target = looks[0], inputs.models[0].target
    labelled = [target.tiles[number].labelled for number in first.tiles]
    return ProbeResult(
        models=tuple(
            _model(best, known[best.look.meta.model], inputs.job.target_id)
            for best in best_of_each(judged)
        ),
        left_out=inputs.plan.left_out,
        num_sections=len(np.unique(first.sections)),
        of_sections=len(target.split("train")),
        num_tiles=len(first.tiles),
        num_labelled=sum(labelled),
    )


def _scored(look: Look, target: Domain) -> Scored:
    """Score a look by the labels of the target, which has the classes of the model."""
    labels: NDArray[np.int64] = np.array([tile.labels for tile in target.tiles], np.int64)
    return scored(look, look.evidence(labels, target.info.class_names, None))


def _model(best: Scored, inputs: ProbedInputs, target_id: UUID | None) -> ProbedModel:
    model = inputs.model
    return ProbedModel(
        model=model.id,
        kind=model.kind,
        source=model.source_id,
        trained_on_labels=model.kind != ModelKind.SEGMENTER and model.target_id == target_id,
        loss=best.evidence.loss(),
        consistency=best.look.meta.consistency,
        tile_nm={} if inputs.source is None else _tile_nm(inputs.source),
    )


def _tile_nm(source: Domain) -> dict[str, float]:
    """Return the side of tiles of which nearly half show a class, for each class, in nanometres."""
    if not any(section.has_mask for section in source.sections):
        return {}
    names = source.info.class_names
    sizes = tile_sizes(source.store, source.sections, len(names)).sizes
    found = {name: telling_px(sizes, number) for number, name in enumerate(names)}
    nm = source.info.pixel_size_nm
    return {name: px * nm for name, px in found.items() if px is not None}
