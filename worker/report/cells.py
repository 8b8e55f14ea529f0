"""Make the cell of a part of a benchmark: from its job's row, files and stages."""

import platform
from importlib.metadata import version

from app.tables import JobKind
from models.metadata import METHOD_VERSION
from models.table1.cells import Cell
from models.table1.methods import METHODS, ROWS, RowName
from models.table1.plan import Data
from models.table1.results import Curve, RowResult, SharedStage, StyleChoice, StyleScore
from worker.report.cost_sections import CURVE
from worker.report.parts import Part, Parts

_CURVE_POINTS = 200
_ALL_POINTS = 10_000
"""The points of a series that is not thinned: a rule chooses among all scored generators."""


def cell_of(parts: Parts, part: Part) -> Cell:
    """Return the results of a part that has succeeded."""
    source, target = parts.data()
    return Cell(
        source=Data(name=source.name, digest=source.digest),
        target=Data(name=target.name, digest=target.digest),
        class_names=tuple(source.class_names),  # the target is seen in the source's classes
        plan=parts.plan,
        part=part.plan,
        stage=part.stage,
        seed=part.seed,
        config=part.job.usable_config(),
        results=_results(parts, part),
        verdict=part.result.verdict,
        curves=_curves(parts, part),
        style=_style(parts, part),
        shared=_shared(parts, part),
        # Each change of a config by which the job came to fit its GPU.
        notes=tuple(
            f"{part.plan.title}: the GPU's memory was too small. This was changed: {change}"
            for change in part.result.changed
        ),
        seconds=sum(parts.own_seconds(part).values()),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions of the method, and of what computes it."""
    names = ("stylefilter-service", "torch", "numpy")
    found = {name: version(name) for name in names}
    return {"method": METHOD_VERSION, "python": platform.python_version(), **found}


def _results(parts: Parts, part: Part) -> tuple[RowResult, ...]:
    """Return each row's scores, with the time and memory of all jobs that it needs."""
    if part.plan.method is None:
        return ()
    # Stylising is done by each part, also where an earlier job trained its stage. A verdict is how
    # labels choose.
    beside = sum(parts.own_seconds(part).get(stage, 0.0) for stage in ("stylise", "verdict"))
    own = beside + parts.seconds(part)
    results = []
    for scores in part.scores:
        shared = parts.shared_by(part, [scores.row])
        memory = (parts.peak_memory_bytes(each) for each in (part, *shared))
        facts = scores.model_dump()
        facts["peak_memory_bytes"] = max(scores.peak_memory_bytes, *memory)
        seconds = own + sum(parts.seconds(each) for each in shared)
        results.append(RowResult(**facts, seed=part.seed, seconds=seconds, own_seconds=own))
    return tuple(results)


def _shared(parts: Parts, part: Part) -> SharedStage | None:
    if part.plan.method is not None:
        return None
    return SharedStage(
        stage=part.stage,
        fold=part.plan.fold,
        seed=part.seed,
        seconds=parts.seconds(part),
        rows=parts.users_of(part),
    )


def _curves(parts: Parts, part: Part) -> tuple[Curve, ...]:
    """Return the validation DICE, under the row whose test stylises as training does."""
    # The chart shows the table's rows, so the table's labels only.
    if part.plan.method is None or not parts.in_table(part):
        return ()
    scores = parts.by_step(part, CURVE, _CURVE_POINTS)
    if not scores:
        return ()
    return (
        Curve(
            row=_as_trained(part),
            fold=part.plan.fold,
            seed=part.seed,
            stage=part.stage,
            name=CURVE,
            steps=tuple(scores),
            values=tuple(scores.values()),
        ),
    )


def _as_trained(part: Part) -> RowName:
    """Return the row that is tested on images stylised as in training, or else the first row."""
    assert part.plan.method is not None
    styler, rows = METHODS[part.plan.method].trained_on, part.plan.rows
    return next((row for row in rows if ROWS[row].tested_on == styler), rows[0])


def _style(parts: Parts, part: Part) -> StyleChoice | None:
    """Return the scores of the fold's generators, if a score chose one of them."""
    by = parts.benchmark.usable_config().style.select_on
    if part.job.kind != JobKind.TRAIN_STYLE or by == "last":
        return None
    dice, agreement, probability = (
        parts.by_step(part, name, _ALL_POINTS)
        for name in ("dice/mean", "label_agreement", "label_probability")
    )
    scores = tuple(
        StyleScore(
            step=step,
            dice=dice.get(step),
            label_agreement=agreement.get(step),
            label_probability=probability.get(step),
        )
        for step in sorted(dice.keys() | probability.keys())
    )
    if not scores:
        return None
    return StyleChoice(fold=part.plan.fold, seed=part.seed, selected_by=by, scores=scores)
