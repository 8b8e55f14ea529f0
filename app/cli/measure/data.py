"""``stylefilter measure data`` measures how fast images are read, and with how much memory."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import typer
import zarr

from app.cli.console import console
from app.cli.measure.data_figures import AccessFigures, Figures, LayoutFigures, Plan, tables
from app.cli.measure.intake import (
    MAX_PIXELS,
    MB,
    Volume,
    measure_memory,
    seconds,
    textured,
    time_files,
)
from app.cli.measure.tiles import measure_tiles
from app.cli.options import FIGURES
from models.data.readers.formats import open_stack
from models.data.readers.places import LocalPlace
from models.data.readers.stack import Ask, ReadOptions
from models.data.readers.zarr_array import open_zarr
from models.data.readers.zarr_chunks import Tally

Axis = Literal["z", "y", "x"]

_AXES: tuple[Axis, ...] = ("z", "y", "x")
_SECTIONS = "a section"


def data(  # noqa: PLR0913 - options of a command are its parameters
    volume_px: Annotated[
        int, typer.Option(min=64, help="The side of the volume's sections, in pixels.")
    ] = 512,
    files: Annotated[int, typer.Option(min=1, help="The number of PNG files to read.")] = 10_000,
    large_mb: Annotated[
        int, typer.Option(min=1, help="The size of the volume whose memory is measured.")
    ] = 1024,
    tiles: Annotated[
        int, typer.Option(min=1000, help="The number of tiles of a large dataset, a multiple of 8.")
    ] = 1_000_000,
    database_url: Annotated[
        list[str] | None,
        typer.Option(
            help="The URL of an empty database for the tiles. Give the option once for each "
            "database; without it, the database is an SQLite file in a temporary folder."
        ),
    ] = None,
    out: Annotated[Path | None, FIGURES] = None,
) -> None:
    """Measure how fast images are read and registered, and the memory it takes.

    The same volume is read in several layouts of Zarr, beside Zarr's own reading in the same run;
    then many small PNG files are registered, beside bare loops; then a volume larger than the
    memory it may take; then very many tiles, and what is asked of them.
    """
    plan = Plan(side_px=volume_px, files=files, large_mb=large_mb, tiles=tiles)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), plan, database_url or [])
    if out is not None:
        out.write_text(figures.model_dump_json(indent=2))
    for table in tables(figures):
        console.print(table)


def measure(folder: Path, plan: Plan, database_urls: Sequence[str] = ()) -> Figures:
    """Write synthetic data to a folder, and measure how they are read."""
    volume = textured((plan.depth, plan.side_px, plan.side_px))
    chunks = _layouts(volume.shape)
    for name, options in chunks.items():
        zarr.create_array(str(folder / name), data=volume, **options)
    return Figures(
        plan=plan,
        layouts=_time_layouts(folder, list(chunks), volume, plan.repeats),
        access=[_access(folder / name, name, axis) for name in chunks for axis in _AXES],
        files=time_files(folder / "png", plan.files),
        memory=measure_memory(folder / "large", plan.large_mb * MB),
        tiles=[
            measure_tiles(url, folder / f"tiles {number}", plan)
            for number, url in enumerate(database_urls or [f"sqlite:///{folder}/stylefilter.db"])
        ],
    )


def _layouts(shape: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    sides = [min(64, side) for side in shape], [min(128, side) for side in shape]
    shard = tuple(-(-side // 64) * 64 for side in shape)
    return {
        _SECTIONS: {"chunks": (1, *shape[1:])},
        "64 px cubes": {"chunks": tuple(sides[0])},
        "128 px cubes": {"chunks": tuple(sides[1])},
        "64 px cubes in a shard": {"chunks": (64, 64, 64), "shards": shard},
    }


def _time_layouts(
    folder: Path, layouts: Sequence[str], volume: Volume, repeats: int
) -> list[LayoutFigures]:
    """Time all layouts in turn, so that a busy moment slows none of them alone."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in layouts}
    for _ in range(repeats):
        for name in layouts:
            ours = seconds(partial(_read_all, folder / name))
            bare = seconds(partial(_read_at_once, folder / name))
            times[name].append((ours, bare))
    ours_of = {name: median(ours for ours, _ in pairs) for name, pairs in times.items()}
    return [
        LayoutFigures(
            layout=name,
            megabytes=volume.nbytes / MB,
            seconds=ours_of[name],
            seconds_at_once=median(bare for _, bare in pairs),
            to_at_once=median(ours / bare for ours, bare in pairs),
            to_sections=ours_of[name] / ours_of[_SECTIONS],
        )
        for name, pairs in times.items()
    ]


def _access(folder: Path, layout: str, axis: Axis) -> AccessFigures:
    """Count the bytes to read all sections along an axis, and one in the middle."""
    read_all, unpacked_all, number = _counted(folder, ReadOptions(axis=axis))
    middle = ReadOptions(axis=axis, start=number // 2, stop=number // 2 + 1)
    read_one, unpacked_one, _ = _counted(folder, middle)
    return AccessFigures(
        layout=layout,
        axis=axis,
        read_all=read_all,
        unpacked_all=unpacked_all,
        read_one=read_one,
        unpacked_one=unpacked_one,
    )


def _counted(folder: Path, options: ReadOptions) -> tuple[float, float, int]:
    """Return bytes read and unpacked for each byte of the sections, and the sections' number."""
    tally = Tally()
    with open_zarr(LocalPlace.of(folder), Ask(MAX_PIXELS, options=options), tally) as stack:
        used = sum(section.nbytes for section in stack.sections)
        return tally.bytes_read / used, tally.bytes_unpacked / used, stack.num_sections


def _read_all(path: Path) -> int:
    with open_stack(path, Ask(MAX_PIXELS)) as stack:
        return sum(section.size for section in stack.sections)


def _read_at_once(path: Path) -> object:
    return zarr.open_array(str(path), mode="r")[:]
