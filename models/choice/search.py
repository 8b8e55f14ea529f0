"""The search: candidates are tried on a target, and its labels choose one of them.

If there are enough labels, some are kept back for the last comparison: nothing before it sees
them. By the others the untrained candidates are ranked; those that are trained in rounds start from
the view and the statistics of the best one, and learn from the same labels. Source-only is the
result unless another candidate beats it by more than chance in the last comparison.

Every choice follows from data, configuration and seed, and from no time. So a run that goes on
after a stop chooses the same; the trained candidates go on from saved states of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.checkpoint import load_segmenter
from models.choice.candidates import Plain, Workshop
from models.choice.held_back import hold_back
from models.choice.judging import Candidate, Facts, judge
from models.choice.label_scores import Evidence
from models.choice.mask_scores import DividedMasks
from models.choice.tiles import Jury, contradictions, thinned, training_jury
from models.choice.verdict import Verdict, kept
from models.config.choice import ViewName
from models.data.domain import Domain
from models.labels_used.points import point_facts
from models.labels_used.rounds import UNUSED, adapt_in_rounds
from models.labels_used.training_masks import masked_sections
from models.metadata import ViewMeta
from models.networks.unet import UNet
from models.segmentation import pretrain
from models.stylefilter import AdaptedModels, StyleFilter
from models.training import identity
from models.training.loop import Run
from models.training.parallel import from_first
from models.training.progress import Progress

AREA_POWERS = (0.5, 0.0, 1.0)
"""The corrections of area that are tried; of equally good ones the first, which risks the least.

In a scratch experiment on 21 untrained predictions, half of it changed DICE by -0.4 to +10 points,
and all of it by -4.7 to +9.6."""

_CORRECTIONS = tuple(filter(None, AREA_POWERS))
_RANKED_TILES = 800  # rank untrained candidates: they differ by more than more tiles would tell
_REFINED = 2  # untrained candidates that are tried with other pixel sizes and areas, too


@dataclass(frozen=True)
class Chosen(AdaptedModels[None]):
    """The segmenter that the labels chose, the view that comes before it, and the verdict.

    ``verdict`` is None if the segmenter was taken from an earlier run that left none.
    """

    view: ViewMeta
    verdict: Verdict | None


def choose(steps: StyleFilter) -> Chosen:
    """Train the source-only segmenter, try candidates, and return the one that the labels choose.

    Raises:
        ValueError: as ``adapt_in_rounds``.
    """
    # Before minutes of training: a masked section that the target lacks is refused here.
    masked_sections(steps.target.sections, steps.config.rounds.masked_sections)
    source_only = pretrain(steps.source, steps.config, steps.run)
    if finished := steps.run.finished("adapt", _identity(steps, source_only)):
        device = next(source_only.parameters()).device
        segmenter, meta = load_segmenter(finished, device)
        return Chosen(None, source_only, segmenter, meta.view, kept(finished))
    return _Search(steps, source_only).run()


@dataclass(frozen=True)
class _Entry:
    """A candidate in the last comparison; ``trained`` holds its network if it was trained."""

    title: str
    plain: Plain
    trained: UNet | None = None

    @property
    def name(self) -> str:
        if self.plain == Plain() and self.trained is None:
            return "source-only"
        parts: list[str] = [self.plain.view]
        if self.plain.pixel_factor != 1:
            parts.append(f"pixels {self.plain.pixel_factor:g}")
        parts += [self.plain.statistics, f"area {self.plain.area_power:g}"]
        return ", ".join(parts + (["rounds"] if self.trained else []))


class _Search:
    """The candidates of one pair. The first jury ranks them before training, the last one after."""

    def __init__(self, steps: StyleFilter, source_only: UNet) -> None:
        self._steps, self._choice = steps, steps.config.choice
        masks = DividedMasks.of(steps.target, steps.config.rounds)
        self._rounds, self._masks = masks.rounds.model_dump(), masks
        self._last, training = self._divided(steps.target)
        first = thinned(training_jury(training), _RANKED_TILES)
        self._first = replace(first, masks=masks.training)
        self._shop = Workshop(replace(steps, target=training), source_only)

    def run(self) -> Chosen:
        found = self._untrained()
        entries = [_Entry(plain.title, plain) for plain in _best_first(found)[:_REFINED]]
        if found[Plain()].decides and self._choice.max_trained:
            entries += self._trained(entries[0].plain, found)
        entries = [_Entry(Plain().title, Plain())] + [e for e in entries if e.name != "source-only"]
        verdict = judge([self._candidate(entry) for entry in entries], self._facts())
        (chosen,) = (entry for entry in entries if entry.name == verdict.use)
        return Chosen(
            None,
            self._shop.source_only,
            chosen.trained or self._shop.make(chosen.plain),
            self._shop.view(chosen.plain),
            verdict,
        )

    def _divided(self, target: Domain) -> tuple[Jury, Domain]:
        """Return the jury of the last comparison, and the target as training sees it."""
        everything = replace(training_jury(target), masks=self._masks.judging)
        few = everything.num_tiles < self._choice.hold_back_from_tiles
        # Where masks decide, training may see all labels.
        if few or everything.masks or not self._choice.max_trained:
            return everything, target
        divided = hold_back(target, self._choice.held_back)
        return replace(training_jury(divided.judging), seen=False), divided.training

    def _untrained(self) -> dict[Plain, Evidence]:
        """Return the evidence of views and statistics, and of sizes and areas of the best."""
        views: tuple[ViewName, ...] = ("raw", *self._choice.views)
        plains = [Plain(v, s) for v in dict.fromkeys(views) for s in self._shop.statistics]
        total, done = self._num_untrained(len(plains)) * len(self._first.sections), 0

        def count() -> None:
            nonlocal done
            done += 1
            self._steps.run.report(Progress("verdict", done, total, {}))

        def gathered(plain: Plain) -> Evidence:
            return self._shop.evidence(self._shop.make(plain), plain, self._first, count)

        found = {plain: gathered(plain) for plain in plains}
        for plain in _best_first(found)[:_REFINED]:
            for sized in (replace(plain, pixel_factor=factor) for factor in self._factors):
                found[sized] = gathered(sized)
        for plain in _best_first(found)[:_REFINED]:
            for corrected in (replace(plain, area_power=power) for power in _CORRECTIONS):
                found[corrected] = gathered(corrected)
        return found

    def _num_untrained(self, plains: int) -> int:
        """Return the number of untrained candidates, where so many are tried first."""
        sizes = min(_REFINED, plains) * len(self._factors)
        return plains + sizes + min(_REFINED, plains + sizes) * len(_CORRECTIONS)

    @property
    def _factors(self) -> Sequence[float]:
        """The pixel sizes to try: each once, and not the working size, which is tried anyway."""
        return [f for f in dict.fromkeys(self._choice.pixel_factors) if f != 1]

    def _trained(self, best: Plain, found: dict[Plain, Evidence]) -> list[_Entry]:
        """Train in rounds, from the view and the statistics of the best untrained candidate.

        The corrections of area come in the order of the untrained candidates that have them.
        """
        number, entries = self._choice.max_trained, list[_Entry]()
        corrected = {power: replace(best, area_power=power) for power in AREA_POWERS}
        tried = {corrected[power]: found[corrected[power]] for power in AREA_POWERS}
        for index, power in enumerate(each.area_power for each in _best_first(tried)[:number]):
            rounds = {**self._rounds, "statistics": best.statistics, "area_power": power}
            steps = self._shop.steps
            segmenter = adapt_in_rounds(
                self._shop.source_only,
                steps.source,
                self._shop.seen(best),
                steps.config.changed({"rounds": rounds}),
                _part(steps.run, index, number),
            )
            plain = replace(best, area_power=power)
            title = plain.title.replace("Source-only", "Rounds")
            entries.append(_Entry(title, plain, segmenter))
        return entries

    def _candidate(self, entry: _Entry) -> Candidate:
        segmenter = entry.trained or self._shop.make(entry.plain)
        evidence = self._shop.evidence(segmenter, entry.plain, self._last, _quietly)
        return Candidate(
            entry.name,
            entry.title,
            from_first(evidence),  # rounding must not let two processes choose differently
            trained_on_labels=entry.trained is not None and self._last.seen,
            evaluation=self._shop.scores(segmenter, entry.plain),
        )

    def _facts(self) -> Facts:
        steps = self._steps
        return Facts(
            class_names=steps.source.info.class_names,
            source_area=self._shop.prior(),
            contradictions=contradictions(steps.target, training_jury(steps.target).sections),
            same_images=steps.source.info.digest == steps.target.info.digest,
        )


def _best_first(found: dict[Plain, Evidence]) -> list[Plain]:
    return sorted(found, key=lambda plain: found[plain].loss() or 0.0)


def _part(run: Run, index: int, number: int) -> Run:
    """Return the run of one of several trainings that are reported as one stage."""

    def report(progress: Progress) -> None:
        step, total = index * progress.total + progress.step, number * progress.total
        run.report(replace(progress, step=step, total=total))

    within = None if run.checkpoints is None else run.checkpoints.within(f"candidate-{index}")
    # None is taken from an earlier run: it would be registered as the result of this one.
    return Run(report, within)


def _identity(steps: StyleFilter, source_only: UNet) -> str:
    config = steps.config
    settings = {
        "method": "chosen",
        "choice": config.choice.deciding(),
        "rounds": config.rounds.deciding(),
        **point_facts(steps.target, config.rounds),
    }
    facts = identity.MethodFacts(labels=True, settings=settings, unused=UNUSED)
    return identity.of_adaptation(source_only, steps.source, steps.target, config, facts)


def _quietly() -> None:
    """Report nothing: the last comparison takes a few passes over a part of the sections."""
