"""The search, on a pair whose contrast is inverted and on one without a gap."""

from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from models.choice.candidates import Plain, Workshop
from models.choice.search import Chosen, choose
from models.choice.views import applied
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.data.tiles import relabelled
from models.evaluation import evaluate
from models.inference import Predictor
from models.labels_used.rounds import adapt_in_rounds
from models.metadata import RAW
from models.segmentation import pretrain
from models.stylefilter import StyleFilter
from models.training.loop import Run
from models.training.progress import Progress, Report, Stop
from models.training.resume import Checkpoints
from tests.models.domains import equal_weights, ignore, square_domain

pytestmark = pytest.mark.training


def config(learning_rate: float = 1e-3, **choice: Any) -> StyleFilterConfig:
    return preset("smoke").changed(
        {
            "pretrain": {"steps": 120, "learning_rate": 1e-2, "validate_every_steps": 60},
            "adaptation": {
                "steps": 3,
                "select_on": "last",
                "validate_every_steps": 3,
                "learning_rate": learning_rate,
            },
            "choice": {"max_trained": 0, **choice},
        }
    )


@dataclass(frozen=True)
class Pairs:
    """A source, a target of inverted contrast, and a target like the source; tiles of 16 px.

    ``states`` holds the trained source-only segmenter, from which each search goes on.
    """

    source: Domain
    inverted: Domain
    alike: Domain
    states: Path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder = tmp_path_factory.mktemp("pairs")
    targets = [
        relabelled(square_domain(folder / f"{bright}.zarr", bright=bright), 16, splits=("train",))
        for bright in (False, True)
    ]
    source, states = square_domain(folder / "s.zarr"), folder / "states"
    states.mkdir()
    pretrain(source, config(), Run(ignore, Checkpoints(states)))
    return Pairs(source, *targets, states)


def chosen(
    pairs: Pairs,
    target: Domain,
    folder: Path,
    report: Report = ignore,
    masked: int | tuple[str, ...] = 0,
    **choice: Any,
) -> Chosen:
    states = folder / "states"
    if not states.is_dir():
        folder.mkdir(exist_ok=True)
        copytree(pairs.states, states)
    run = Run(report, Checkpoints(states))
    work = folder / str(len(list(folder.iterdir())))
    changed = config(**choice).changed({"rounds": {"masked_sections": masked}})
    return choose(StyleFilter(pairs.source, target, changed, run, work))


def mean_dice(made: Chosen, target: Domain) -> float:
    predictor = Predictor(made.adapted, target.working_nm, 32, view=applied(made.view))
    found = evaluate(predictor, target, "test", report=ignore).pooled.mean_dice
    assert found is not None
    return found


def test_inverted_contrast_is_found_by_labels(pairs: Pairs, tmp_path: Path) -> None:
    reports: list[Progress] = []
    made = chosen(pairs, pairs.inverted, tmp_path, reports.append, target_statistics=False)
    assert made.verdict is not None
    assert (made.verdict.outcome, made.view.name) == ("better", "inverted")
    assert made.verdict.use.startswith("inverted")
    before = replace(made, adapted=made.source_only, view=RAW)
    dice = [mean_dice(which, pairs.inverted) for which in (before, made)]
    assert dice[1] > dice[0] + 0.2
    # The verdict holds the DICE of each candidate on the test masks.
    told = {each.name: each.mean_dice for each in made.verdict.candidates}
    assert [told["source-only"], told[made.verdict.use]] == dice
    assert None not in told.values()
    probes = [report for report in reports if report.stage == "verdict"]
    # Four views, and two corrections of area of the best two, on three sections.
    assert [(p.step, p.total) for p in probes] == [(n, 24) for n in range(1, 25)]


def test_where_there_is_no_gap_source_only_stays(pairs: Pairs, tmp_path: Path) -> None:
    made = chosen(pairs, pairs.alike, tmp_path, target_statistics=False)
    assert made.verdict is not None
    assert (made.verdict.use, made.view.name) == ("source-only", "raw")
    assert made.adapted is made.source_only


def test_test_masks_choose_nothing(pairs: Pairs, tmp_path: Path) -> None:
    bare = pairs.inverted
    sections = [replace(each, has_mask=each.split != "test") for each in bare.sections]
    bare = Domain(bare.store, bare.info, sections, bare.tiles, working_nm=bare.working_nm)
    with_masks, without = (
        chosen(pairs, target, tmp_path, target_statistics=False).verdict
        for target in (pairs.inverted, bare)
    )
    assert with_masks is not None
    assert without is not None
    assert without.use == with_masks.use
    assert [each.loss for each in without.candidates] == [e.loss for e in with_masks.candidates]
    assert {each.mean_dice for each in without.candidates} == {None}


def test_without_labels_source_only_stays_and_nothing_is_trained(
    pairs: Pairs, tmp_path: Path
) -> None:
    bare = pairs.inverted
    bare = Domain(bare.store, bare.info, bare.sections, [], working_nm=bare.working_nm)
    stages: list[str] = []
    made = chosen(pairs, bare, tmp_path, lambda p: stages.append(p.stage), max_trained=1)
    assert made.verdict is not None
    assert (made.verdict.outcome, made.verdict.use) == ("not_judged", "source-only")
    assert "adapt" not in stages


@pytest.mark.parametrize("target_statistics", [True, False])
def test_statistics_of_the_target_are_tried_if_asked_for(
    pairs: Pairs, tmp_path: Path, *, target_statistics: bool
) -> None:
    reports: list[Progress] = []
    chosen(pairs, pairs.alike, tmp_path, reports.append, target_statistics=target_statistics)
    probes = [report.total for report in reports if report.stage == "verdict"]
    assert set(probes) == {3 * (8 + 4)} if target_statistics else {3 * (4 + 4)}


def test_views_and_pixel_sizes_are_tried_as_asked_for(pairs: Pairs, tmp_path: Path) -> None:
    reports: list[Progress] = []
    made = chosen(
        pairs,
        pairs.inverted,
        tmp_path,
        reports.append,
        target_statistics=False,
        views=["inverted_histogram"],
        pixel_factors=[0.75, 1.0],
        max_trained=1,
    )
    probes = [report.total for report in reports if report.stage == "verdict"]
    # Two views, the one other size of both, and two corrections of area of the best two.
    assert probes == [3 * (2 + 2 + 4)] * 24
    assert made.verdict is not None
    assert made.view.name == "inverted_histogram"
    assert mean_dice(made, pairs.inverted) > 0.6


@pytest.mark.parametrize(
    ("tile_px", "hold_back_from_tiles", "held"),
    # With nine tiles of 16 px too few would show the square.
    [(8, 20, 54), (8, 109, 108), (16, 20, 27)],
)
def test_trained_candidates_are_judged_by_labels_that_they_have_not_seen(
    pairs: Pairs, tmp_path: Path, tile_px: int, hold_back_from_tiles: int, held: int
) -> None:
    reports: list[Progress] = []
    made = chosen(
        pairs,
        relabelled(pairs.inverted, tile_px, splits=("train",)),
        tmp_path,
        reports.append,
        max_trained=2,
        target_statistics=False,
        hold_back_from_tiles=hold_back_from_tiles,
        held_back=0.5,
    )
    assert made.verdict is not None
    assert made.verdict.num_tiles == held
    trained = [c for c in made.verdict.candidates if "rounds" in c.name]
    assert [c.trained_on_labels for c in trained] == [held != 54] * 2
    if tile_px == 16:
        # With so few tiles no area is corrected: all rank alike, the smallest ones first.
        names = [f"inverted, source, area {area}, rounds" for area in (0, 0.5)]
        assert [c.name for c in trained] == names
    steps = [(r.step, r.total) for r in reports if r.stage == "adapt" and r.step]
    assert steps == [(n, 6) for n in range(1, 7)]


def test_cut_is_tried_where_no_other_candidate_is_good_enough(pairs: Pairs, tmp_path: Path) -> None:
    for number, (level, tried) in enumerate([(1e-3, True), (5.0, False)]):
        stages: list[str] = []
        made = chosen(
            pairs,
            pairs.inverted,
            tmp_path / str(number),
            lambda p: stages.append(p.stage),  # noqa: B023
            target_statistics=False,
            views=["inverted"],
            style_from_loss=level,
        )
        assert made.verdict is not None
        assert made.view.name == "inverted"
        assert ("cut" in [each.name for each in made.verdict.candidates]) == tried
        assert ("style" in stages) == tried


def test_the_chosen_one_is_trained_again_on_all_labels_if_asked_for(
    pairs: Pairs, tmp_path: Path
) -> None:
    target = relabelled(pairs.inverted, 8, splits=("train",))
    fields: dict[str, Any] = {
        "max_trained": 1,
        "learning_rate": 3e-3,
        "views": ["inverted"],
        "hold_back_from_tiles": 20,
        "held_back": 0.5,
    }
    once = chosen(pairs, target, tmp_path / "once", **fields)
    again = chosen(pairs, target, tmp_path / "again", retrain=True, **fields)
    assert once.verdict is not None
    assert again.verdict is not None
    assert again.verdict.use.endswith("rounds")
    assert again.verdict.candidates == once.verdict.candidates
    assert len(again.verdict.findings) == len(once.verdict.findings) + 1
    assert not equal_weights(again.adapted, once.adapted)
    # As from the beginning, with all labels.
    settings = config(learning_rate=3e-3)
    steps = StyleFilter(pairs.source, target, settings, Run(ignore), tmp_path / "by hand")
    plain = Plain("inverted", "target")
    by_hand = adapt_in_rounds(
        again.source_only,
        pairs.source,
        Workshop(steps, again.source_only).seen(plain),
        settings.changed({"rounds": {"statistics": "target"}}),
        Run(ignore),
    )
    assert again.verdict.use == "inverted, target, area 0, rounds"
    assert equal_weights(again.adapted, by_hand)


def test_a_search_that_was_stopped_goes_on_to_the_same_choice(pairs: Pairs, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"max_trained": 2, "target_statistics": False}
    whole = chosen(pairs, pairs.inverted, tmp_path / "a", **fields)
    steps: list[int] = []

    def stop_in_the_second(progress: Progress) -> None:
        if progress.stage == "adapt" and progress.step:
            steps.append(progress.step)
            if progress.step == 5 and steps.count(5) == 1:
                raise Stop

    with pytest.raises(Stop):
        chosen(pairs, pairs.inverted, tmp_path / "b", stop_in_the_second, **fields)
    again = chosen(pairs, pairs.inverted, tmp_path / "b", stop_in_the_second, **fields)
    assert steps == [1, 2, 3, 4, 5, 3, 6]  # the first one's end is told again, not trained again
    assert again.verdict == whole.verdict
    assert equal_weights(again.adapted, whole.adapted)


@pytest.mark.parametrize("masked", [("s0",), 2])
def test_masks_choose_without_any_label(
    pairs: Pairs, tmp_path: Path, masked: int | tuple[str, ...]
) -> None:
    bare = pairs.inverted
    bare = Domain(bare.store, bare.info, bare.sections, [], working_nm=bare.working_nm)
    made = chosen(pairs, bare, tmp_path, masked=masked, max_trained=1, target_statistics=False)
    assert made.verdict is not None
    assert (made.verdict.judged_by, made.verdict.num_tiles) == ("masks", 0)
    assert (made.verdict.outcome, made.view.name) == ("better", "inverted")
    assert any("rounds" in candidate.name for candidate in made.verdict.candidates)


def test_masks_that_are_not_there_are_refused_before_training(pairs: Pairs, tmp_path: Path) -> None:
    stages: list[str] = []
    with pytest.raises(ValueError, match="9 masked"):
        chosen(pairs, pairs.alike, tmp_path, lambda p: stages.append(p.stage), masked=9)
    assert not stages
