"""Explain the words of a report to someone who meets them for the first time."""

from collections.abc import Iterator

from models.table1.methods import ROWS
from models.table1.results import BenchmarkReport
from worker.report.content import Section

_TERMS = {
    "Source and target": "The source is the set of images that have masks, drawn by a person. The "
    "target is the set of images to segment, from another microscope or sample.",
    "Segmenter": "The network that gives each pixel of an image a class.",
    "DICE": "The score of a segmentation, for one class: twice the area that segmentation and mask "
    "share, divided by the sum of both areas. 100% means that they are equal. Mean DICE is the "
    "mean over the classes.",
    "Points": "A difference of percentages: from 80% to 85% it is 5 points.",
    "Row": "One way to train a segmenter and to test it on target images that no training saw. "
    "Row by row, below, describes each.",
    "Source-only": "A segmenter that learned from the source alone: the starting point, which one "
    "has without adaptation.",
    "Target-only": "A segmenter that learned from masks of the target: what training with "
    "masks reaches; adaptation tries to come near it without such masks.",
    "CUT": "Contrastive Unpaired Translation, which trains a network to redraw target images in "
    "the style of the source.",
    "Fold": "One way to divide the images into those to train with, those that choose among "
    "trained weights (validation) and those to test on. All training is repeated for each fold; "
    "the number after ± is the standard deviation over the folds.",
    "Seed": "The number from which all random numbers of a training are made. All training is "
    "repeated with each seed in each fold.",
    "95% interval": "The range in which a difference would lie for 95% of other choices of test "
    "images of the same kind. Where the interval contains 0, the difference may be chance.",
}


def warning(report: BenchmarkReport) -> str | None:
    """Say that the numbers of a trial run mean nothing; None if they have a meaning."""
    if report.preset != "smoke":
        return None
    return (
        "The numbers in this report mean nothing: preset smoke trains for a few steps only, to "
        "show that the program runs. Use preset quick or paper to compare methods."
    )


def how_to_read(report: BenchmarkReport) -> Section | None:
    """Explain each term that the report uses."""
    if not report.rows:
        return None
    unused = set(_unused(report))  # a term that does not occur would only be in the way
    items = tuple((term, words) for term, words in _TERMS.items() if term not in unused)
    return Section("How to read this", items=items)


def _unused(report: BenchmarkReport) -> Iterator[str]:
    shown = {ROWS[row.row].title for row in report.rows}
    yield from {"Source-only", "Target-only"} - shown
    rows = (ROWS[row.row] for row in report.rows)
    if not any("cut" in (row.tested_on, row.method.trained_on) for row in rows):
        yield "CUT"
    if len(report.seeds) == 1:
        yield "Seed"
    if not report.differences:
        yield "95% interval"
