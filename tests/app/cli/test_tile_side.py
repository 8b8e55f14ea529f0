"""The side of a benchmark's tiles, unless it is given."""

import json
from pathlib import Path

import pytest

from app.cli.tile_side import default_tile_px
from models.config.presets import preset


@pytest.mark.parametrize(
    ("source_nm", "target_nm", "tile_px"),
    [(8.0, 8.0, 96), (8.0, 4.0, 128), (8.0, 15.0, 51), (4.0, 400.0, 16), (None, 4.0, 128)],
)
def test_a_tile_is_no_larger_than_a_crop(
    tmp_path: Path, source_nm: float | None, target_nm: float, tile_px: int
) -> None:
    for name, size in (("source", source_nm), ("target", target_nm)):
        (tmp_path / name).mkdir()
        if size is not None:
            (tmp_path / name / "meta.json").write_text(json.dumps({"pixel_size_nm": size}))
    config = preset("smoke").changed({"adaptation": {"crop_px": 96}, "pixel_size_factor": 1.0})
    assert default_tile_px(tmp_path / "source", tmp_path / "target", config) == tile_px
