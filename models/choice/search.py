"""The search: candidates are tried on a target, and its labels choose one of them.

If there are enough labels, some are kept back for the last comparison: nothing before it sees
them. By the others the untrained candidates are ranked; those that are trained in rounds start from
the view and the statistics of the best one, and learn from the same labels. Source-only is the
result unless another candidate beats it by more than chance in the last comparison.

Every choice follows from data, configuration and seed, and from no time. So a run that goes on
after a stop chooses the same; the trained candidates go on from saved states of their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from models.checkpoint import load_segmenter
from models.choice.candidates import Plain, Workshop
from models.choice.comparison import Comparison, Entry, loss_of, part_of
from models.choice.held_back import hold_back
from models.choice.judging import Facts, judge
from models.choice.label_scores import Evidence
from models.choice.mask_scores import DividedMasks
from models.choice.prudence import prudent_first
from models.choice.teachers import Teacher, behind_cut, ensemble
from models.choice.tiles import Jury, contradictions, judged, thinned, training_jury
from models.choice.verdict import Verdict, kept
from models.config.choice import ViewName
from models.config.rounds import RoundsConfig
from models.data.domain import Domain
from models.labels_used.points import point_facts
from models.labels_used.rounds import UNUSED, adapt_in_rounds
from models.labels_used.training_masks import masked_sections
from models.metadata import ViewMeta
from models.networks.unet import UNet
from models.segmentation import pretrain
from models.style_transfer import train_style
from models.stylefilter import AdaptedModels, StyleFilter
from models.training import identity
from models.training.loop import Run
from models.training.progress import Progress

AREA_POWERS = (0.5, 0.0, 1.0)
"""The corrections of area that are tried.

In a scratch experiment on 21 untrained predictions, half of it changed DICE by -0.4 to +10 points,
and all of it by -4.7 to +9.6."""

_CORRECTIONS = tuple(filter(None, AREA_POWERS))
_RANKED_TILES = 800  # rank untrained candidates: they differ by more than more tiles would tell
_RULE = 4  # the version of the choice: it rises when the same candidates would be ranked otherwise
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


class _Search:
    """The candidates of one pair. The first jury ranks them before training, the last one after."""

    def __init__(self, steps: StyleFilter, source_only: UNet) -> None:
        self._steps, self._choice = steps, steps.config.choice
        self._masks = DividedMasks.of(steps.target, steps.config.rounds)
        last, training = self._divided(steps.target)
        first = thinned(training_jury(training), _RANKED_TILES)
        self._first = replace(first, masks=self._masks.training)
        self._shop = Workshop(replace(steps, target=training), source_only)
        self._last = Comparison(self._shop, last)

    def run(self) -> Chosen:
        found, refined = self._untrained()
        best = _best_first(refined, found[Plain()])[:_REFINED]
        for plain in dict.fromkeys((Plain(), *best)):
            self._last.add(Entry(plain.title, plain, self._shop.make(plain)))
        if found[Plain()].decides and not self._same_images:
            for entry in self._trained(best[0], refined, found[Plain()]):
                self._last.add(entry)
            self._last.teach(list(self._teachers()))
        verdict = judge(self._last.candidates, self._facts())
        chosen = self._last.named(verdict.use)
        segmenter = chosen.segmenter
        if self._choice.retrain and chosen.trained == "rounds" and self._last.jury.kept_back:
            segmenter = self._trained_on_all(chosen.plain)
            words = f"{chosen.title} was then trained once more, with all labels and masks."
            verdict = verdict.model_copy(update={"findings": (*verdict.findings, words)})
        source_only, view = self._shop.source_only, self._shop.view(chosen.plain)
        return Chosen(None, source_only, segmenter, view, verdict)

    @property
    def _same_images(self) -> bool:
        return self._steps.source.info.digest == self._steps.target.info.digest

    def _divided(self, target: Domain) -> tuple[Jury, Domain]:
        """Return the jury of the last comparison, and the target as training sees it.

        Labels are kept back from training if there are enough, of each class that they can judge.
        """
        everything = replace(training_jury(target), masks=self._masks.judging)
        few = everything.num_tiles < self._choice.hold_back_from_tiles
        # Where masks decide, training may see all labels.
        if few or everything.masks or not self._choice.max_trained:
            return everything, target
        divided = hold_back(target, self._choice.held_back)
        if (judged(target, "train") & ~judged(divided.judging, "train")).any():
            return everything, target  # the part could not judge what all labels can
        return replace(training_jury(divided.judging), seen=False), divided.training

    def _untrained(self) -> tuple[dict[Plain, Evidence], dict[Plain, Evidence]]:
        """Return the evidence of views and statistics, and of sizes and areas of the best.

        The second part holds those of which all corrections of area were tried.
        """
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
        for plain in _best_first(found, found[Plain()])[:_REFINED]:
            for sized in (replace(plain, pixel_factor=factor) for factor in self._factors):
                found[sized] = gathered(sized)
        refined = {p: found[p] for p in _best_first(found, found[Plain()])[:_REFINED]}
        for plain in list(refined):
            for corrected in (replace(plain, area_power=power) for power in _CORRECTIONS):
                refined[corrected] = gathered(corrected)
        return found, refined

    def _num_untrained(self, plains: int) -> int:
        """Return the number of untrained candidates, where so many are tried first."""
        sizes = min(_REFINED, plains) * len(self._factors)
        return plains + sizes + min(_REFINED, plains + sizes) * len(_CORRECTIONS)

    @property
    def _factors(self) -> Sequence[float]:
        """The pixel sizes to try: each once, and not the working size, which is tried anyway."""
        return [f for f in dict.fromkeys(self._choice.pixel_factors) if f != 1]

    def _trained(
        self, best: Plain, refined: dict[Plain, Evidence], base: Evidence
    ) -> Iterator[Entry]:
        """Train in rounds, from the view and the statistics of the best untrained candidate.

        The corrections of area come in the order of the untrained candidates that have them.
        """
        tried = {p: refined[p] for p in (replace(best, area_power=power) for power in AREA_POWERS)}
        number = self._choice.max_trained
        for index, plain in enumerate(_best_first(tried, base)[:number]):
            run = part_of(self._steps.run, f"candidate-{index}", index, number)
            title = plain.title.replace("Source-only", "Rounds")
            segmenter = _in_rounds(self._shop, plain, self._masks.rounds, run)
            yield Entry(title, plain, segmenter, "rounds")

    def _trained_on_all(self, plain: Plain) -> UNet:
        """Train in rounds once more, with what was kept back."""
        steps = replace(self._steps, workspace=self._steps.workspace / "all")
        shop = Workshop(steps, self._shop.source_only)
        return _in_rounds(shop, plain, steps.config.rounds, part_of(steps.run, "all"))

    def _teachers(self) -> Iterator[Teacher]:
        """Make the ways to segment that take several networks, as far as they are asked for."""
        members = self._last.equals()[: self._choice.ensemble]
        if len(members) > 1:
            yield ensemble([(e.title, self._shop.predictor(e.segmenter, e.plain)) for e in members])
        level = self._choice.style_from_loss
        if level is not None and loss_of(self._last.best[1]) >= level:
            if level > 0:
                words = f"CUT was tried: no other candidate has a loss below {level:g}."
                self._last.remarks.append(words)
            yield self._behind_cut()

    def _behind_cut(self) -> Teacher:
        """Train CUT, and put it before the source-only segmenter."""
        steps, source_only = self._shop.steps, self._shop.source_only
        config = steps.config.changed({"style": {"select_on": "labels"}})
        run = Run(steps.run.report, steps.run.checkpoints)
        generator = train_style(steps.source, steps.target, config, run, source_only)
        return behind_cut(generator, self._shop.predictor(source_only, Plain()))

    def _facts(self) -> Facts:
        steps = self._steps
        return Facts(
            class_names=steps.source.info.class_names,
            source_area=self._shop.prior(),
            contradictions=contradictions(steps.target, training_jury(steps.target).sections),
            same_images=self._same_images,
            remarks=tuple(self._last.remarks),
        )


def _best_first(found: dict[Plain, Evidence], base: Evidence) -> list[Plain]:
    return prudent_first(found, base, lambda plain: plain.changes)


def _in_rounds(shop: Workshop, plain: Plain, rounds: RoundsConfig, run: Run) -> UNet:
    own = {"statistics": plain.statistics, "area_power": plain.area_power}
    config = shop.steps.config.changed({"rounds": {**rounds.model_dump(), **own}})
    return adapt_in_rounds(shop.source_only, shop.steps.source, shop.seen(plain), config, run)


def _identity(steps: StyleFilter, source_only: UNet) -> str:
    config = steps.config
    settings = {
        "method": "chosen",
        "rule": _RULE,
        "choice": config.choice.deciding(),
        "rounds": config.rounds.deciding(),
        **point_facts(steps.target, config.rounds),
    }
    if config.choice.style_from_loss is not None:
        settings["style"] = config.style.deciding()
    facts = identity.MethodFacts(labels=True, settings=settings, unused=UNUSED)
    return identity.of_adaptation(source_only, steps.source, steps.target, config, facts)
