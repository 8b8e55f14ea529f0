"""Chooses the side of the tiles of a benchmark, whose labels are read off masks."""

from pathlib import Path

from app.cli.folder_upload import pixel_size_nm
from models.config.stylefilter import StyleFilterConfig

LEAST_TILE_PX = 16
_TILE_PX = 128


def default_tile_px(source: Path, target: Path, config: StyleFilterConfig) -> int:
    """Return the side of the target's tiles: 128 px, or less so that a crop holds a whole tile."""
    source_nm, target_nm = pixel_size_nm(source), pixel_size_nm(target)
    if source_nm is None or target_nm is None:  # the files may tell, once they are registered
        return _TILE_PX
    crop_nm = config.adaptation.crop_px * config.working_nm(source_nm)
    return max(LEAST_TILE_PX, min(_TILE_PX, int(crop_nm / target_nm)))
