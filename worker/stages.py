"""Run a job: a function for each kind, which calls ``models`` and keeps the outcome."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from PIL import Image

from app.tables import ModelKind
from models import checkpoint, inference, segmentation, style_transfer, stylefilter
from models.choice.search import Chosen, choose
from models.choice.tile_order import labels_of_next
from models.choice.views import applied
from models.choice.weights import by_labels
from models.data.domain import Domain
from models.data.sections import Split
from models.evaluation import Evaluated, evaluate
from models.inference import Predictor
from models.scores import Evaluation
from models.stylefilter import PAPER, StyleFilter
from models.table1.methods import ROWS, STYLEFILTER, Method, RowName, needs_style
from models.table1.training import train_method
from models.training.device import resolve
from models.training.loop import OtherRules, Run
from models.training.parallel import rank
from models.training.progress import Progress, Report, Stage
from worker.inputs import (
    AdaptInputs,
    AskingInputs,
    EvaluateInputs,
    PartInputs,
    PretrainInputs,
    ProbeInputs,
    StyleFilterInputs,
    TrainingInputs,
    TrainStyleInputs,
)
from worker.outcome import Keeper, Outcome, Surroundings, evaluation_of
from worker.probe import probe
from worker.tester import PICTURES, SCORES, SCORES_TYPE, Choice, Tester, peak_memory_bytes
from worker.verdict import verdict_of

_ADAPT_ROWS = {
    "stylefilter": ("source-only", "histogram", "cut", "stylefilter"),
    "chosen": ("source-only", "histogram", "chosen"),
}
"""The rows of Table 1 by which a job that adapts is scored, by its method."""


def run(inputs: TrainingInputs | AskingInputs, around: Surroundings) -> Outcome:
    """Run a job of any kind but a benchmark, and return its outcome."""
    match inputs:
        case AdaptInputs():
            outcome = adapt(inputs, around)
        case TrainStyleInputs():
            outcome = train_style(inputs, around)
        case PretrainInputs():
            outcome = pretrain(inputs, around)
        case StyleFilterInputs():
            outcome = adapt_trained(inputs, around)
        case PartInputs():
            outcome = benchmark_part(inputs, around)
        case EvaluateInputs():
            outcome = score(inputs, around)
        case ProbeInputs():
            outcome = probe(inputs, around)
    outcome.result.peak_memory_bytes = peak_memory_bytes()
    return outcome


def adapt(inputs: AdaptInputs, around: Surroundings) -> Outcome:
    """Adapt by the method of the config, and score the networks that it leaves."""
    chosen = inputs.config.method == "chosen"
    return by_choice(inputs, around) if chosen else by_paper(inputs, around)


def by_choice(inputs: AdaptInputs, around: Surroundings) -> Outcome:
    """Train on the source, try candidates, and keep the one that the target's labels choose."""
    source, target, config = inputs.source, inputs.target, inputs.config
    keeper = Keeper(around, config, ModelKind.CHOSEN)
    keeper.note_labels(target)
    made = choose(StyleFilter(source, target, config, keeper.run, around.work))
    keeper.keep_pretrained(made.source_only, source)
    keeper.keep_chosen(made, source, target)
    if rank() == 0:
        tester = Tester(made, source, target, config)
        _scores(inputs, tester, keeper, around.recorder)
        if made.verdict is None:
            keeper.note("There is no verdict, because the chosen model was taken over without one.")
        else:
            keeper.note_verdict(made.verdict)
    return keeper.outcome


def by_paper(inputs: AdaptInputs, around: Surroundings) -> Outcome:
    """Train all three steps, and score the networks that they leave."""
    source, target, config = inputs.source, inputs.target, inputs.config
    keeper = Keeper(around, config)
    _note_filter(inputs, keeper)
    made = stylefilter.adapt(source, target, config, keeper.run, around.work)
    keeper.keep_style(made.style, source, target)
    keeper.keep_pretrained(made.source_only, source)
    keeper.keep_adapted(made.adapted, source, target)
    _test_adapted(inputs, Tester(made, source, target, config), keeper, around.recorder)
    return keeper.outcome


def adapt_trained(inputs: StyleFilterInputs, around: Surroundings) -> Outcome:
    """Train the third step with a trained style model and segmenter, and score the result."""
    source, target, config = inputs.source, inputs.target, inputs.config
    device, keeper = resolve(config.device), Keeper(around, config)
    _note_filter(inputs, keeper)
    style = checkpoint.load_generator(inputs.style, device)[0]
    source_only = checkpoint.load_segmenter(inputs.segmenter, device)[0]
    steps = StyleFilter(source, target, config, keeper.run, around.work)
    made = steps.adapt_trained(source_only, style, PAPER)
    keeper.keep_adapted(made.adapted, source, target)
    _test_adapted(inputs, Tester(made, source, target, config), keeper, around.recorder)
    return keeper.outcome


def train_style(inputs: TrainStyleInputs, around: Surroundings) -> Outcome:
    """Train CUT; if a segmenter is to choose the generator, train it first."""
    source, target, config = inputs.source, inputs.target, inputs.config
    keeper, judge = Keeper(around, config), None
    if config.style.select_on != "last":
        judge = segmentation.pretrain(source, config, keeper.run)
        keeper.keep_pretrained(judge, source)
    style = style_transfer.train_style(source, target, config, keeper.run, judge)
    keeper.keep_style(style, source, target)
    return keeper.outcome


def pretrain(inputs: PretrainInputs, around: Surroundings) -> Outcome:
    """Train the segmenter on the source."""
    keeper = Keeper(around, inputs.config)
    segmenter = segmentation.pretrain(inputs.source, inputs.config, keeper.run)
    keeper.keep_pretrained(segmenter, inputs.source)
    return keeper.outcome


def benchmark_part(inputs: PartInputs, around: Surroundings) -> Outcome:
    """Train a method of Table 1, and score each row that tests it."""
    source, target, method, part = inputs.source, inputs.target, inputs.method, inputs.part
    config = method.changed(inputs.config)
    keeper = Keeper(around, config, _kind_of(method))
    if part.budget is not None and part.budget.order == "next":
        target = _next_labelled(inputs, part.budget.num_labels, keeper.run, around)
    if method.uses_labels:
        keeper.note_labels(target)
    others = OtherRules(by_labels(config.adaptation.crop_px))
    # Of a choice by labels the weights are no question: its candidates are trained as they are.
    run = keeper.run if method.chooses else replace(keeper.run, others=others)
    steps = StyleFilter(source, target, config, run, around.work)
    made = train_method(method, steps, with_style=needs_style(method.name, part.rows))
    if made.style is not None:
        keeper.keep_style(made.style, source, target)
    of_target = method.masks_of == "target"
    keeper.keep_pretrained(made.source_only, target if of_target else source, of_target=of_target)
    if isinstance(made, Chosen):
        keeper.keep_chosen(made, source, target)
        if made.verdict is not None:
            keeper.note_verdict(made.verdict)
    elif method.adapt is not None:
        keeper.keep_adapted(made.adapted, source, target)
    if rank() == 0:
        tester = Tester(made, source, target, config, others.kept)
        _score_part(inputs, tester, keeper, around)
    return keeper.outcome


def score(inputs: EvaluateInputs, around: Surroundings) -> Outcome:
    """Score a trained segmenter on one split of the target."""
    job, device = inputs.job, resolve(inputs.config.device)
    segmenter, meta = checkpoint.load_segmenter(inputs.segmenter, device)
    style = None
    if inputs.style is not None:
        style = partial(inference.stylise, checkpoint.load_generator(inputs.style, device)[0])
    predictor = Predictor(segmenter, meta.working_nm, meta.crop_px, style, applied(meta.view))
    split = cast(Split, job.split)  # checked when it was taken
    evaluated = evaluate(predictor, inputs.target, split, report=around.recorder)
    outcome = Outcome()
    name = "raw" if style is None else "stylised"
    outcome.result.evaluations.append(evaluation_of(name, job, evaluated))
    return outcome


def _next_labelled(inputs: PartInputs, number: int, run: Run, around: Surroundings) -> Domain:
    """Return the target with the labels of the tiles to label first, by source-only candidates."""

    def segmenter(_stage: Stage, this: str) -> Path | None:
        found = around.reuse(ModelKind.SEGMENTER, this)
        return None if found is None else found[1]

    # Not the keeper's own way to take results over, which would note this one twice.
    alone = replace(run, finished=segmenter)
    config = inputs.method.changed(inputs.config)
    source_only = segmentation.pretrain(inputs.source, config, alone)
    work = around.work / "order"
    steps = StyleFilter(inputs.source, inputs.target, config, alone, work)
    return labels_of_next(steps, source_only, number)


def _kind_of(method: Method) -> ModelKind:
    """Return the kind of the model that a method of Table 1 adapts."""
    if method.chooses:
        return ModelKind.CHOSEN
    return ModelKind.STYLEFILTER if method == STYLEFILTER else ModelKind.BASELINE


def _note_filter(inputs: AdaptInputs | StyleFilterInputs, keeper: Keeper) -> None:
    if inputs.config.adaptation.label_filter:
        keeper.note_labels(inputs.target)
    else:
        keeper.note("Labels: none is used, because label_filter is off.")


def _test_adapted(
    inputs: AdaptInputs | StyleFilterInputs, tester: Tester, keeper: Keeper, report: Report
) -> None:
    """Score the networks of the paper's method on the target's test masks, and by its labels."""
    if rank() == 0:  # one process scores; the others would only repeat it
        scores = _scores(inputs, tester, keeper, report)
        keeper.note_verdict(verdict_of(inputs, tester, scores, report))


def _scores(
    inputs: AdaptInputs | StyleFilterInputs, tester: Tester, keeper: Keeper, report: Report
) -> dict[RowName, Evaluation]:
    """Score the rows of a job that adapts on the target's test masks, if there are any."""
    scores: dict[RowName, Evaluation] = {}
    if not inputs.target.split("test", masked=True):
        keeper.note("There is no score, because the target has no masks in its test split.")
        return scores
    for row, evaluated in _tested(_ADAPT_ROWS[inputs.config.method], tester, report):
        keeper.note_scores(evaluation_of(ROWS[row].title, inputs.job, evaluated))
        scores[row] = evaluated.pooled
    return scores


def _score_part(inputs: PartInputs, tester: Tester, keeper: Keeper, around: Surroundings) -> None:
    """Write the scores of each row, and for the first fold a picture of each."""
    part, method, selected = inputs.part, inputs.method, keeper.selected
    scores = []
    for row, evaluated in _tested(part.rows, tester, around.recorder):
        keeper.note_scores(evaluation_of(ROWS[row].title, inputs.job, evaluated))
        choice = Choice(
            segmenter=selected["pretrain" if method.adapt is None else "adapt"],
            style=selected["style"] if needs_style(method.name, [row]) else None,
        )
        of_row = tester.scores(part, row, evaluated, choice)
        scores.append(of_row.model_copy(update={"choices": tester.choices(row, of_row)}))
        if part.fold == 0:  # the report shows one fold
            pictures = around.folder / PICTURES
            pictures.mkdir(exist_ok=True)
            Image.fromarray(tester.picture(row)).save(pictures / f"{row}.png")
    (around.folder / SCORES).write_bytes(SCORES_TYPE.dump_json(scores, indent=1))


def _tested(
    rows: Sequence[RowName], tester: Tester, report: Report
) -> Iterator[tuple[RowName, Evaluated]]:
    """Yield each row with its scores; their tests are reported as one stage."""
    for index, row in enumerate(rows):
        yield row, tester.evaluate(row, _share(report, index, len(rows)))


def _share(report: Report, index: int, number: int) -> Report:
    """Return a report that counts the steps of one of several runs as a share of one stage."""

    def within(progress: Progress) -> None:
        step = index * progress.total + progress.step
        report(Progress(progress.stage, step, number * progress.total, progress.values))

    return within
