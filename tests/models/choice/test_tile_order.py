"""The labels of the tiles to label next: so many, and picked without any label."""

from dataclasses import replace
from pathlib import Path

from models.choice.tile_order import labels_of_next
from models.data.domain import Domain
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.data.tiles import relabelled
from models.stylefilter import StyleFilter
from models.training.loop import Run
from tests.models.domains import ignore, square_domain
from tests.models.test_adaptation import untrained, whole_sections

CONFIG = whole_sections({"norm": "batch"})


def picked(source: Domain, target: Domain, work: Path, number: int) -> set[tuple[int, int, int]]:
    steps = StyleFilter(source, target, CONFIG, Run(ignore), work)
    found = labels_of_next(steps, untrained(CONFIG), number)
    assert set(found.labelled_tiles(["train", "val", "test"])) <= set(target.tiles)
    assert found.labelled_tiles(["val"]) == []
    assert len(found.labelled_tiles(["test"])) == 9
    return {(tile.section, tile.y0, tile.x0) for tile in found.labelled_tiles(["train"])}


def test_so_many_tiles_are_picked_and_labels_pick_nothing(tmp_path: Path) -> None:
    source = square_domain(tmp_path / "s.zarr")
    whole = square_domain(tmp_path / "t.zarr", bright=False)
    target = relabelled(whole, 16, splits=("train", "val", "test"))
    turned = {ABSENT: PRESENT, PRESENT: ABSENT, UNKNOWN: UNKNOWN}
    tiles = [replace(t, labels=tuple(turned[label] for label in t.labels)) for t in target.tiles]
    other = Domain(target.store, target.info, target.sections, tiles, working_nm=target.working_nm)
    four = picked(source, target, tmp_path / "1", 4)
    assert len(four) == 4
    assert picked(source, other, tmp_path / "2", 4) == four
    assert four < picked(source, target, tmp_path / "3", 8)
    assert len(picked(source, target, tmp_path / "4", 100)) == 27
