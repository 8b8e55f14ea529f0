"""The last comparison: candidates that could be the result, and teachers of a student."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from models.adaptation import Pair
from models.choice.candidates import Plain, Workshop, said
from models.choice.judging import Candidate, least_gain
from models.choice.student import distil, taught
from models.choice.teachers import Teacher
from models.choice.tiles import Jury
from models.networks.unet import UNet
from models.training.loop import Run
from models.training.progress import Progress


@dataclass(frozen=True)
class Entry:
    """A candidate in the last comparison: one network on a view, and how it was trained."""

    title: str
    plain: Plain
    segmenter: UNet
    trained: Literal["on the source", "rounds", "student"] = "on the source"

    @property
    def name(self) -> str:
        if self.plain == Plain() and self.trained == "on the source":
            return "source-only"
        parts: list[str] = [self.plain.view]
        if self.plain.pixel_factor != 1:
            parts.append(f"pixels {self.plain.pixel_factor:g}")
        parts += [self.plain.statistics, f"area {self.plain.area_power:g}"]
        return ", ".join(parts + ([] if self.trained == "on the source" else [self.trained]))


class Comparison:
    """Asks a jury about candidates. ``remarks`` tell how some of them were made.

    The first one that is added is the source-only segmenter.
    """

    def __init__(self, shop: Workshop, jury: Jury) -> None:
        self._shop, self.jury = shop, jury
        self._entries: list[tuple[Entry, Candidate]] = []
        self._teachers: list[Candidate] = []
        self.remarks: list[str] = []

    @property
    def candidates(self) -> Sequence[Candidate]:
        """All candidates; teachers are at the end, and not usable."""
        return [candidate for _, candidate in self._entries] + self._teachers

    @property
    def best(self) -> tuple[Entry, Candidate]:
        """The candidate with the lowest loss that could be the result."""
        return self._ranked[0]

    def named(self, name: str) -> Entry:
        """Return the candidate of this name."""
        return next(entry for entry, _ in self._entries if entry.name == name)

    def equals(self) -> Sequence[Entry]:
        """Return the best candidate and those that labels cannot tell from it, best first."""
        best = self.best[1]
        return [entry for entry, each in self._ranked if not _told_better(best, each)]

    def add(self, entry: Entry) -> None:
        """Ask the jury about a candidate that could be the result."""
        evidence = self._shop.evidence(entry.segmenter, entry.plain, self.jury, _quietly)
        on_labels = entry.trained != "on the source" and self.jury.seen
        scores = self._shop.scores(entry.segmenter, entry.plain)
        changes = entry.plain.changes
        candidate = Candidate(entry.name, entry.title, evidence, on_labels, scores, changes=changes)
        self._entries.append((entry, candidate))

    def teach(self, teachers: Sequence[Teacher]) -> None:
        """Ask the jury about teachers, and let a student learn from the best one.

        It learns if the teacher's loss is lower than that of all other candidates by 0.02 or more,
        or by 0.01 where masks compare. It joins them unless it is behind its teacher by more.
        """
        asked = [(teacher, self._ask(teacher)) for teacher in teachers]
        self._teachers += [candidate for _, candidate in asked]
        start, best = self.best
        for teacher, candidate in sorted(asked, key=lambda each: loss_of(each[1]))[:1]:
            least = least_gain(candidate.evidence)
            if loss_of(best) - loss_of(candidate) < least:
                return
            self.add(self._student(teacher, start))
            behind = loss_of(self._entries[-1][1]) - loss_of(candidate)
            if behind > least:
                student, _ = self._entries.pop()
                self.remarks.append(
                    f"{student.title} was left out: its loss is {behind:.3f} above its teacher's."
                )

    @property
    def _ranked(self) -> list[tuple[Entry, Candidate]]:
        return sorted(self._entries, key=lambda each: loss_of(each[1]))

    def _ask(self, teacher: Teacher) -> Candidate:
        title = teacher.title[0].upper() + teacher.title[1:]
        if teacher.made_of:
            self.remarks.append(f"{title}: {'; '.join(teacher.made_of)}.")
        evidence = said(teacher.predict, self.jury, _quietly)
        return Candidate(teacher.name, title, evidence, self.jury.seen, usable=False)

    def _student(self, teacher: Teacher, start: Entry) -> Entry:
        """Train a student that begins as the best single network, and keeps its view."""
        steps, plain = self._shop.steps, start.plain
        seen, out = self._shop.seen(plain), steps.workspace / "lessons.zarr"
        lessons = taught(teacher, steps.target, seen, out, steps.run.report)
        stage = {"steps": steps.config.choice.student_steps}
        config = steps.config.changed(
            {"adaptation": stage, "rounds": {"statistics": plain.statistics}}
        )
        pair, run = Pair(steps.source, seen), part_of(steps.run, "student")
        segmenter = distil(start.segmenter, pair, lessons, config, run)
        return Entry(f"Student of the {teacher.title}", plain, segmenter, "student")


def loss_of(candidate: Candidate) -> float:
    """Return the loss by which candidates are ranked; 0 without labels."""
    return candidate.evidence.loss() or 0.0


def part_of(run: Run, name: str, index: int = 0, number: int = 1) -> Run:
    """Return the run of one of several trainings that are reported as one stage."""

    def report(progress: Progress) -> None:
        step, total = index * progress.total + progress.step, number * progress.total
        run.report(replace(progress, step=step, total=total))

    within = None if run.checkpoints is None else run.checkpoints.within(name)
    # None is taken from an earlier run: it would be registered as the result of this one.
    return Run(report, within)


def _told_better(one: Candidate, other: Candidate) -> bool:
    """Tell whether the labels prefer one candidate to another by more than chance."""
    gain = one.evidence.gain_over(other.evidence)
    return gain is not None and gain.low > 0 and gain.value >= least_gain(one.evidence)


def _quietly() -> None:
    """Report nothing: the last comparison takes a few passes over a part of the sections."""
