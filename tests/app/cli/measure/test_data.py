"""Measuring how data are read: counts are exact, and all figures are there."""

from pathlib import Path

import numpy as np
import pytest

from app.cli.measure.data import measure
from app.cli.measure.data_figures import Figures, Plan, tables
from app.cli.measure.intake import textured, time_files

PLAN = Plan(depth=130, side_px=192, files=3, large_mb=20, tiles=2000, repeats=1, asked=2)


def test_textures_pack_as_micrographs_do() -> None:
    volume = textured((5, 64, 70))
    assert (volume.shape, volume.dtype) == ((5, 64, 70), np.uint8)
    assert len(np.unique(volume)) > 100


def test_files_are_registered_beside_bare_loops(tmp_path: Path) -> None:
    found = time_files(tmp_path, 3)
    assert (found.files, found.side_px) == (3, 512)
    assert found.of_bare == found.seconds_bare / found.seconds_stored > 0
    assert found.of_bound == found.seconds_bound / found.seconds_stored > 0


@pytest.mark.slow
def test_all_figures_of_a_small_run(tmp_path: Path) -> None:
    figures = measure(tmp_path, PLAN)
    assert Figures.model_validate_json(figures.model_dump_json()) == figures
    layouts = [each.layout for each in figures.layouts]
    assert len(layouts) == len(set(layouts)) == 4
    assert figures.layouts[0].to_sections == 1
    assert all(each.seconds > 0 and each.seconds_at_once > 0 for each in figures.layouts)
    access = {(each.layout, each.axis): each for each in figures.access}
    assert len(access) == 4 * 3
    sections, cubes = access["a section", "z"], access["128 px cubes", "z"]
    assert (sections.unpacked_all, sections.unpacked_one) == (1, 1)
    assert access["a section", "x"].unpacked_one == 192
    # Chunks stick out of the volume: 130 sections of 192 px in chunks of 128 px.
    assert cubes.unpacked_all == pytest.approx(256 / 130 * (256 / 192) ** 2)
    assert cubes.unpacked_one == pytest.approx(128 * (256 / 192) ** 2)
    assert all(each.read_all < each.unpacked_all for each in figures.access)
    assert figures.files.files == 3
    assert figures.memory.megabytes == pytest.approx(20, abs=1.1)
    # All sections, as 32-bit numbers, lie in the cache of a training: fewer than 512 MiB.
    assert figures.memory.peak_trained_mb > 5 * figures.memory.megabytes
    (tiles,) = figures.tiles
    assert (tiles.database, tiles.few, tiles.many) == ("sqlite", 1000, 2000)
    assert min(tiles.seconds, tiles.longest_write_seconds, tiles.seconds_deleted) > 0
    assert len({each.request for each in tiles.flat}) == 5
    assert all(each.ratio == each.ms_many / each.ms_few for each in tiles.flat)
    assert [table.row_count for table in tables(figures)] == [4, 12, 3, 3, 5, 5]
