"""What each kind of job runs: calls into ``models``, and what is kept of the outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import torch
from PIL import Image

from app.jobs.result import EvaluationRead, JobResult, ReusedModel
from app.tables import Job, JobKind, ModelKind
from models import checkpoint, inference, segmentation, style_transfer, stylefilter
from models.baselines.histogram import HistogramMatch
from models.config import StyleFilterConfig
from models.data.domain import Domain
from models.data.sections import Split
from models.evaluation import Evaluated, evaluate
from models.inference import Predictor
from models.metadata import DomainMeta, ModelMeta
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.table1.methods import METHODS, ROWS, needs_style
from models.table1.plan import BenchmarkPart
from models.table1.training import train_method
from models.training.device import resolve
from models.training.loop import Run
from models.training.parallel import rank
from models.training.progress import Progress, Report, Stage
from models.training.resume import Checkpoints
from worker.progress import Recorder, Silent
from worker.tester import PICTURES, SCORES, SCORES_TYPE, Selection, Tester, peak_memory_bytes

Metrics = Mapping[str, float | str]


class Reuse(Protocol):
    """Finds what an earlier job trained."""

    def __call__(self, kind: ModelKind, fingerprint: str) -> tuple[ReusedModel, Path] | None: ...


@dataclass(frozen=True)
class Inputs:
    """What a job reads: its row, its datasets, and folders of trained models it builds on."""

    job: Job
    part: BenchmarkPart | None
    config: StyleFilterConfig
    source: Domain | None
    target: Domain | None
    style_folder: Path | None
    segmenter_folder: Path | None


@dataclass(frozen=True)
class Surroundings:
    """Where a job runs: a folder of the attempt's own, and what keeps, tells and finds."""

    folder: Path
    recorder: Recorder | Silent
    checkpoints: Checkpoints
    reuse: Reuse


@dataclass(frozen=True)
class NewModel:
    """A trained model to register; its fingerprint identifies how it was trained."""

    kind: ModelKind
    folder: Path
    metrics: Metrics
    config: StyleFilterConfig
    fingerprint: str
    of_target: bool = False
    """A segmenter that was trained on the target's masks."""


@dataclass
class Outcome:
    """What a job leaves; ``models`` by kind holds the ids of those that were reused."""

    models: list[NewModel] = field(default_factory=list)
    reused: dict[ModelKind, UUID] = field(default_factory=dict)
    result: JobResult = field(default_factory=JobResult)


_TRAINS: dict[Stage, ModelKind] = {"style": ModelKind.STYLE, "pretrain": ModelKind.SEGMENTER}


class Stages:
    """Runs one job."""

    def __init__(self, inputs: Inputs, around: Surroundings) -> None:
        self._in = inputs
        self._folder = around.folder
        self._recorder = around.recorder
        self._around = around
        self._fingerprints: dict[ModelKind, str] = {}
        self._selected: dict[ModelKind, Selection] = {}
        self._run = Run(around.recorder, around.checkpoints, self._finished)
        self._outcome = Outcome()

    def _finished(self, stage: Stage, fingerprint: str) -> Path | None:
        """Where a stage's result lies, if an earlier job left it; the outcome says so."""
        kind = self._adapted if stage == "adapt" else _TRAINS[stage]
        self._fingerprints[kind] = fingerprint
        found = self._around.reuse(kind, fingerprint)
        if found is None:
            return None
        model, folder = found
        self._outcome.reused[kind] = model.model
        self._outcome.result.reused.append(model)
        metrics = checkpoint.load_metrics(folder)
        self._selected[kind] = Selection(
            str(metrics.get("selected", "last")), int(metrics.get("selected_step", 0))
        )
        return folder

    @property
    def _adapted(self) -> ModelKind:
        """The kind of what this job adapts."""
        method = self._in.part.method if self._in.part is not None else None
        return ModelKind.STYLEFILTER if method in (None, "stylefilter") else ModelKind.BASELINE

    def run(self) -> Outcome:
        kinds: dict[str, Callable[[], None]] = {
            JobKind.ADAPT: self._adapt,
            JobKind.TRAIN_STYLE: self._train_style,
            JobKind.PRETRAIN: self._pretrain,
            JobKind.STYLEFILTER: self._stylefilter,
            JobKind.EVALUATE: self._evaluate,
            JobKind.METHOD: self._method,
        }
        kinds[self._in.job.kind]()
        self._outcome.result.peak_memory_bytes = peak_memory_bytes()
        return self._outcome

    def _method(self) -> None:
        part, pair = self._in.part, self._pair()
        assert part is not None
        assert part.method is not None
        method = METHODS[part.method]
        config = method.changed(self._in.config)
        self._in = replace(self._in, config=config)
        if method.uses_labels:
            self._count_labels()
        steps = stylefilter.StyleFilter(*pair, config, self._run, self._folder / "work")
        made = train_method(method, steps, with_style=needs_style(part.method, part.rows))
        if made.style is not None:
            self._keep_style(made.style)
        self._keep_segmenter(ModelKind.SEGMENTER, made.source_only)
        if made.adapted is not made.source_only:
            self._keep_segmenter(self._adapted, made.adapted)
        if rank() != 0:
            return
        tester = Tester(part, pair, made, config)
        chosen = self._adapted if made.adapted is not made.source_only else ModelKind.SEGMENTER
        scores = []
        for index, row in enumerate(part.rows):
            report = _part(self._recorder, index, len(part.rows))
            evaluated = tester.evaluate(row, report)
            self._note_scores(ROWS[row].title, evaluated)
            with_style = needs_style(part.method, [row])
            style = self._selected[ModelKind.STYLE] if with_style else None
            scores.append(tester.scores(row, evaluated, self._selected[chosen], style))
            if part.fold == 0:
                pictures = self._folder / PICTURES
                pictures.mkdir(exist_ok=True)
                Image.fromarray(tester.picture(row)).save(pictures / f"{row}.png")
        (self._folder / SCORES).write_bytes(SCORES_TYPE.dump_json(scores, indent=1))

    def _adapt(self) -> None:
        source, target = self._pair()
        config, work = self._in.config, self._folder / "work"
        self._note_labels()
        made = stylefilter.adapt(source, target, config, self._run, work)
        self._keep_style(made.style)
        self._keep_segmenter(ModelKind.SEGMENTER, made.source_only)
        self._keep_segmenter(ModelKind.STYLEFILTER, made.adapted)
        self._score_rows(made.style, made.source_only, made.adapted)

    def _train_style(self) -> None:
        source, target = self._pair()
        config = self._in.config
        judge = None
        if config.style.select_on != "last":
            judge = segmentation.pretrain(source, config, self._run)
            self._keep_segmenter(ModelKind.SEGMENTER, judge)
        style = style_transfer.train_style(source, target, config, self._run, judge)
        self._keep_style(style)

    def _pretrain(self) -> None:
        assert self._in.source is not None
        segmenter = segmentation.pretrain(self._in.source, self._in.config, self._run)
        self._keep_segmenter(ModelKind.SEGMENTER, segmenter)

    def _stylefilter(self) -> None:
        source, target = self._pair()
        self._note_labels()
        style, source_only = self._load_style(), self._load_segmenter()
        steps = stylefilter.StyleFilter(
            source, target, self._in.config, self._run, self._folder / "work"
        )
        made = steps.adapt_trained(source_only, style, stylefilter.PAPER)
        self._keep_segmenter(ModelKind.STYLEFILTER, made.adapted)
        self._score_rows(style, source_only, made.adapted)

    def _evaluate(self) -> None:
        job, target = self._in.job, self._in.target
        assert target is not None
        assert self._in.segmenter_folder is not None
        segmenter, meta = checkpoint.load_segmenter(self._in.segmenter_folder, self._device())
        style = None
        if job.stylise:
            style = partial(inference.stylise, self._load_style())
        predictor = Predictor(segmenter, meta.working_nm, meta.crop_px, style)
        name = "stylised" if job.stylise else "raw"
        self._score(name, predictor, report=self._recorder)

    def _score_rows(self, style: Generator, source_only: UNet, adapted: UNet) -> None:
        """Score on the target's test sections, where it has masks to score by."""
        if rank() != 0:
            return
        source, target = self._pair()
        if not target.split("test", masked=True):
            self._note("The target has no masks in its test split: no score.")
            return
        nm, cut, config = source.working_nm, partial(inference.stylise, style), self._in.config
        before, after = config.pretrain.crop_px, config.adaptation.crop_px
        rows = [
            ("Source-only", Predictor(source_only, nm, before)),
            ("Histogram matching", Predictor(source_only, nm, before, HistogramMatch.to(source))),
            ("CUT", Predictor(source_only, nm, before, cut)),
            ("StyleFilter", Predictor(adapted, nm, after, cut)),
        ]
        for index, (name, predictor) in enumerate(rows):
            report = _part(self._recorder, index, len(rows))
            self._score(name, predictor, report=report)

    def _score(self, name: str, predictor: Predictor, *, report: Report) -> None:
        assert self._in.target is not None
        split: Split = self._in.job.split  # type: ignore[assignment]  # checked when it was taken
        self._note_scores(name, evaluate(predictor, self._in.target, split, report=report))

    def _note_scores(self, name: str, evaluated: Evaluated) -> None:
        job, scores = self._in.job, evaluated.pooled
        assert job.target_id is not None
        self._outcome.result.evaluations.append(
            EvaluationRead(
                method=name,
                dataset=job.target_id,
                split=job.split,
                num_sections=len(evaluated.sections),
                dice=dict(zip(scores.class_names, scores.dice, strict=True)),
                mean_dice=scores.mean_dice,
                confusion=[list(row) for row in scores.confusion],
            )
        )

    def _note(self, words: str) -> None:
        self._outcome.result.notes.append(words)

    def _note_labels(self) -> None:
        if not self._in.config.adaptation.label_filter:
            self._note("Labels: not used; label_filter is off.")
            return
        self._count_labels()

    def _count_labels(self) -> None:
        target = self._pair()[1]
        training = {section.index for section in target.training_sections()}
        tiles = sum(tile.section in training for tile in target.tiles)
        labelled = len(target.labelled_tiles(["train"]))
        self._note(f"Labels: {labelled} of {tiles} training tiles labelled.")

    def _keep_style(self, style: Generator) -> None:
        if ModelKind.STYLE in self._outcome.reused:
            return
        summary = self._recorder.summary("style")
        selected = self._in.config.style.select_on
        if selected != "last" and "selected_step" not in summary:
            selected = "last"  # there was nothing to choose by
        self._selected[ModelKind.STYLE] = Selection(selected, int(summary.get("selected_step", 0)))
        metrics: Metrics = {**summary, "selected": selected}
        folder = self._folder / ModelKind.STYLE
        checkpoint.save_generator(folder, style, self._meta("generator"), metrics)
        self._keep(ModelKind.STYLE, folder, metrics)

    def _keep_segmenter(self, kind: ModelKind, segmenter: UNet) -> None:
        if kind in self._outcome.reused:
            return
        adapted = kind == self._adapted
        summary = self._recorder.summary("adapt" if adapted else "pretrain")
        selected, words = self._selection(summary, adapted=adapted)
        self._selected[kind] = Selection(selected, int(summary.get("selected_step", 0)))
        which = "Adapted" if adapted else "Source-only"
        if self._on_target(kind):
            which = "Target-only"
        self._note(f"{which} weights: {words} ({selected}).")
        metrics: Metrics = {**summary, "selected": selected}
        folder = self._folder / kind
        meta = self._meta("segmenter", adapted=adapted)
        checkpoint.save_segmenter(folder, segmenter, meta, metrics)
        self._keep(kind, folder, metrics)

    def _selection(self, summary: Mapping[str, float], *, adapted: bool) -> tuple[str, str]:
        """What chose the weights that were kept, as a word and in words."""
        wanted = self._in.config.adaptation.select_on if adapted else "source_val"
        if not adapted and self._on_target(ModelKind.SEGMENTER):
            wanted = "target_val"
        if wanted == "last":
            return "last", "those of the last step, as asked"
        domain = wanted.removesuffix("_val")
        score = "source_dice/mean" if adapted and domain == "source" else "dice/mean"
        if score in summary:
            step = int(summary["selected_step"])
            which = f"step {step}" if step else "step 0, which is as they were before"
            return wanted, f"best DICE on the {domain}'s validation masks, {which}"
        return "last", f"those of the last step, the {domain} has no validation masks"

    def _keep(self, kind: ModelKind, folder: Path, metrics: Metrics) -> None:
        fingerprint = self._fingerprints[kind]
        self._outcome.models.append(
            NewModel(
                kind, folder, metrics, self._in.config, fingerprint, of_target=self._on_target(kind)
            )
        )

    def _on_target(self, kind: ModelKind) -> bool:
        """Whether a model of this kind is one of the target's own masks."""
        part = self._in.part
        alone = (
            part is not None
            and part.method is not None
            and METHODS[part.method].masks_of == "target"
        )
        return alone and kind == ModelKind.SEGMENTER

    def _meta(self, kind: Any, *, adapted: bool = True) -> ModelMeta:
        source, target = self._in.source, self._in.target
        if not adapted and self._on_target(ModelKind.SEGMENTER):
            source = target
        assert source is not None
        return ModelMeta(
            kind=kind,
            config=self._in.config,
            class_names=source.info.class_names,
            working_nm=source.working_nm,
            source=DomainMeta.of(source),
            target=DomainMeta.of(target) if target is not None and adapted else None,
        )

    def _pair(self) -> tuple[Domain, Domain]:
        assert self._in.source is not None
        assert self._in.target is not None
        return self._in.source, self._in.target

    def _load_style(self) -> Generator:
        assert self._in.style_folder is not None
        return checkpoint.load_generator(self._in.style_folder, self._device())[0]

    def _load_segmenter(self) -> UNet:
        assert self._in.segmenter_folder is not None
        return checkpoint.load_segmenter(self._in.segmenter_folder, self._device())[0]

    def _device(self) -> torch.device:
        return resolve(self._in.config.device)


def _part(report: Report, index: int, parts: int) -> Report:
    """Count the steps of one of several equal runs as a part of one stage."""

    def within(progress: Progress) -> None:
        step = index * progress.total + progress.step
        report(Progress(progress.stage, step, parts * progress.total, progress.values))

    return within
