"""Keep the outcome of a job: networks as files, notes, scores, and models that it reused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol
from uuid import UUID

from app.jobs.result import EvaluationRead, JobResult, ReusedModel
from app.tables import Job, ModelKind
from models import checkpoint
from models.choice import verdict as verdicts
from models.choice.search import Chosen
from models.choice.verdict import Verdict
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.evaluation import Evaluated
from models.metadata import DomainMeta, ModelMeta
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.training.loop import Run
from models.training.progress import Stage
from models.training.resume import Checkpoints
from worker.progress import Recorder, Silent

Metrics = Mapping[str, float | str]


class Reuse(Protocol):
    """Finds a model that an earlier job trained, by its fingerprint."""

    def __call__(self, kind: ModelKind, fingerprint: str) -> tuple[ReusedModel, Path] | None: ...


@dataclass(frozen=True)
class Surroundings:
    """The folder of an attempt, its recorder, its saved states, and the way to reuse models."""

    folder: Path
    recorder: Recorder | Silent
    checkpoints: Checkpoints
    reuse: Reuse

    @property
    def work(self) -> Path:
        """The folder of files that are deleted when the attempt ends."""
        return self.folder / "work"


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
    """The result of a job, its new models, and the ids of models that it took over."""

    models: list[NewModel] = field(default_factory=list)
    reused: dict[ModelKind, UUID] = field(default_factory=dict)
    result: JobResult = field(default_factory=JobResult)


@dataclass(frozen=True)
class Selection:
    """The rule that chose some weights, and the step at which they were kept."""

    by: str
    step: int


class Keeper:
    """A keeper of what a job trains with ``config``; ``adapted`` is the kind of its adapted model.

    Stages train with ``run``. ``selected`` holds the rule and the step of each stage's weights.
    """

    def __init__(
        self,
        around: Surroundings,
        config: StyleFilterConfig,
        adapted: ModelKind = ModelKind.STYLEFILTER,
    ) -> None:
        self._around, self._config = around, config
        self._kinds: dict[Stage, ModelKind] = {
            "style": ModelKind.STYLE,
            "pretrain": ModelKind.SEGMENTER,
            "adapt": adapted,
        }
        self._fingerprints: dict[Stage, str] = {}
        self.selected: dict[Stage, Selection] = {}
        self.outcome = Outcome()
        self.run = Run(around.recorder, around.checkpoints, self._finished)

    def note(self, words: str) -> None:
        """Add a note for the reader of the result."""
        self.outcome.result.notes.append(words)

    def note_labels(self, target: Domain) -> None:
        """Note how many of the training tiles have image-level labels."""
        training = {section.index for section in target.training_sections()}
        tiles = sum(tile.section in training for tile in target.tiles)
        labelled = len(target.labelled_tiles(["train"]))
        self.note(f"Labels: {labelled} of {tiles} training tiles are labelled.")

    def note_scores(self, evaluation: EvaluationRead) -> None:
        """Keep the scores of a test."""
        self.outcome.result.evaluations.append(evaluation)

    def note_verdict(self, verdict: Verdict) -> None:
        """Keep the verdict of the labels, and note what it found and advises."""
        self.outcome.result.verdict = verdict
        for words in (*verdict.findings, *verdict.advice):
            self.note(f"Verdict: {words}")

    def keep_style(self, style: Generator, source: Domain, target: Domain) -> None:
        """Keep a style model, unless an earlier job's was reused."""
        if self._taken_over("style"):
            return
        chosen = "selected_step" in self._around.recorder.summary("style")
        self._select("style", self._config.style.select_on if chosen else "last")
        model = self._new("style")
        meta = self._meta("generator", source, target)
        checkpoint.save_generator(model.folder, style, meta, model.metrics)

    def keep_pretrained(self, segmenter: UNet, domain: Domain, *, of_target: bool = False) -> None:
        """Keep a segmenter that learned from the masks of ``domain`` alone, unless reused."""
        if self._taken_over("pretrain"):
            return
        name = "target" if of_target else "source"
        self._note_choice("pretrain", f"{name.capitalize()}-only", f"{name}_val", "dice/mean")
        model = self._new("pretrain", of_target=of_target)
        meta = self._meta("segmenter", domain)
        checkpoint.save_segmenter(model.folder, segmenter, meta, model.metrics)

    def keep_adapted(self, segmenter: UNet, source: Domain, target: Domain) -> None:
        """Keep an adapted segmenter, unless an earlier job's was reused."""
        if self._taken_over("adapt"):
            return
        wanted = self._config.adaptation.select_on
        score = "source_dice/mean" if wanted == "source_val" else "dice/mean"
        self._note_choice("adapt", "Adapted", wanted, score)
        model = self._new("adapt")
        meta = self._meta("segmenter", source, target)
        checkpoint.save_segmenter(model.folder, segmenter, meta, model.metrics)

    def keep_chosen(self, made: Chosen, source: Domain, target: Domain) -> None:
        """Keep the segmenter that labels chose, its view and its verdict, unless it was reused."""
        if made.verdict is not None:
            self._note_handed_out(made.verdict)
        if self._taken_over("adapt"):
            return
        assert made.verdict is not None  # whoever chose it has just said why
        self.selected["adapt"] = Selection("labels", 0)
        model = self._new("adapt", metrics={"candidate": made.verdict.use})
        meta = self._meta("segmenter", source, target).model_copy(update={"view": made.view})
        checkpoint.save_segmenter(model.folder, made.adapted, meta, model.metrics)
        verdicts.keep(made.verdict, model.folder)

    def _finished(self, stage: Stage, fingerprint: str) -> Path | None:
        """Return the folder of an earlier job's result of a stage, and add it to the outcome."""
        self._fingerprints[stage] = fingerprint  # for the model that the stage may now train
        found = self._around.reuse(self._kinds[stage], fingerprint)
        if found is None:
            return None
        model, folder = found
        self.outcome.reused[model.kind] = model.model
        self.outcome.result.reused.append(model)
        # This job trained nothing itself: the choice stands beside the weights.
        metrics = checkpoint.load_metrics(folder)
        by, step = str(metrics.get("selected", "last")), int(metrics.get("selected_step", 0))
        self.selected[stage] = Selection(by, step)
        return folder

    def _taken_over(self, stage: Stage) -> bool:
        return self._kinds[stage] in self.outcome.reused

    def _select(self, stage: Stage, by: str) -> None:
        summary = self._around.recorder.summary(stage)
        self.selected[stage] = Selection(by, int(summary.get("selected_step", 0)))

    def _note_choice(self, stage: Stage, name: str, wanted: str, score: str) -> None:
        """Note the rule that chose a segmenter's weights; without masks the last ones stay."""
        found = score in self._around.recorder.summary(stage)
        self._select(stage, wanted if found else "last")
        domain, step = wanted.removesuffix("_val"), self.selected[stage].step
        if wanted == "last":
            words = "those of the last step, as asked"
        elif found:
            which = f"of step {step}" if step else "of step 0, before the stage began"
            words = f"those with the best DICE on the {domain}'s validation masks, {which}"
        else:
            words = f"those of the last step, because the {domain} has no validation masks"
        self.note(f"{name} weights: {words} ({self.selected[stage].by}).")

    def _note_handed_out(self, verdict: Verdict) -> None:
        first = verdict.candidates[0]
        if verdict.use == first.name:
            self.note(
                "Handed out: the source-only segmenter. No other candidate is better by more than "
                "chance, so the chosen model is a copy of it."
            )
        else:
            self.note(f"Handed out: {verdict.used.title}.")

    def _new(
        self, stage: Stage, *, of_target: bool = False, metrics: Metrics | None = None
    ) -> NewModel:
        """Return a model to register; its metrics are the stage's last ones unless given."""
        kind, selected = self._kinds[stage], self.selected[stage].by
        summary = self._around.recorder.summary(stage) if metrics is None else metrics
        model = NewModel(
            kind=kind,
            folder=self._around.folder / kind,
            metrics={**summary, "selected": selected},
            config=self._config,
            fingerprint=self._fingerprints[stage],
            of_target=of_target,
        )
        self.outcome.models.append(model)
        return model

    def _meta(
        self, kind: Literal["generator", "segmenter"], source: Domain, target: Domain | None = None
    ) -> ModelMeta:
        return ModelMeta(
            kind=kind,
            config=self._config,
            class_names=source.info.class_names,
            working_nm=source.working_nm,
            source=DomainMeta.of(source),
            target=None if target is None else DomainMeta.of(target),
        )


def evaluation_of(method: str, job: Job, evaluated: Evaluated) -> EvaluationRead:
    """Return the scores on a job's target as the service shows them."""
    assert job.target_id is not None
    scores = evaluated.pooled
    return EvaluationRead(
        method=method,
        dataset=job.target_id,
        split=job.split,
        num_sections=len(evaluated.sections),
        dice=dict(zip(scores.class_names, scores.dice, strict=True)),
        mean_dice=scores.mean_dice,
        confusion=[list(row) for row in scores.confusion],
    )
