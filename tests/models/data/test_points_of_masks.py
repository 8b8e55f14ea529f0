"""Points that are read off masks."""

from pathlib import Path

from models.data.domain import Domain
from models.data.labels import PRESENT, UNKNOWN
from models.data.points_of_masks import points_of_masks
from models.data.tiles import relabelled
from tests.models.domains import square_domain


def pointed(folder: Path, number: int, seed: int = 0) -> tuple[Domain, Domain]:
    given = relabelled(square_domain(folder / "t.zarr"), 8)
    return given, points_of_masks(given, number, seed)


def test_points_lie_on_the_rare_class_and_label_their_tiles(tmp_path: Path) -> None:
    given, made = pointed(tmp_path, 5)
    training = [tile for tile in made.tiles if tile.section < 3]
    points = [(tile, point) for tile in training for point in tile.points]
    assert len(points) == 5
    for tile, point in points:
        assert (
            given.native_mask(given.sections[tile.section])[point.y, point.x] == point.number == 1
        )
        assert tile.y0 <= point.y < tile.y0 + 8
        assert tile.x0 <= point.x < tile.x0 + 8
        assert tile.labels == (UNKNOWN, PRESENT)
    assert len(made.labelled_tiles(["train"])) == 5
    assert not made.labelled_tiles(["val"])
    assert made.labelled_tiles(["test"]) == given.labelled_tiles(["test"])


def test_more_points_hold_the_fewer_and_there_are_no_more_than_tiles(tmp_path: Path) -> None:
    given, few = pointed(tmp_path, 3)
    more, other, every = (points_of_masks(given, n, s) for n, s in ((6, 0), (3, 1), (9999, 0)))

    def places(domain: Domain) -> set[tuple[int, int, int]]:
        return {(tile.section, p.y, p.x) for tile in domain.tiles for p in tile.points}

    assert places(few) < places(more)
    assert places(few) != places(other)
    holding = [tile for tile in given.labelled_tiles(["train"]) if tile.labels[1] == PRESENT]
    assert len(places(every)) == len(holding)
