"""``stylefilter measure data`` measures how fast images are read, and with how much memory."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import typer
import zarr
from numpy.typing import NDArray
from PIL import Image

from app.cli.console import console
from app.cli.measure.data_figures import (
    AccessFigures,
    Figures,
    FileFigures,
    LayoutFigures,
    MemoryFigures,
    Plan,
    tables,
)
from app.cli.options import FIGURES
from models.data.description import Description
from models.data.intake.layout import folder_inputs
from models.data.intake.one_pass import store_domain
from models.data.readers.formats import open_stack
from models.data.readers.places import LocalPlace
from models.data.readers.stack import Ask, ReadOptions
from models.data.readers.zarr_array import open_zarr
from models.data.readers.zarr_chunks import Tally

Axis = Literal["z", "y", "x"]
Volume = NDArray[np.uint8]

_AXES: tuple[Axis, ...] = ("z", "y", "x")
_SECTIONS = "a section"
_CHUNK_PX = 128
_MAX_PIXELS = 1 << 28
_MB = 1_000_000


def data(
    volume_px: Annotated[
        int, typer.Option(min=64, help="The side of the volume's sections, in pixels.")
    ] = 512,
    files: Annotated[int, typer.Option(min=1, help="The number of PNG files to read.")] = 10_000,
    large_mb: Annotated[
        int, typer.Option(min=1, help="The size of the volume whose memory is measured.")
    ] = 1024,
    out: Annotated[Path | None, FIGURES] = None,
) -> None:
    """Measure how fast images are read, how much of what is read is used, and the memory it takes.

    The same volume is read in several layouts of Zarr, beside Zarr's own reading in the same run;
    then many small PNG files, beside a bare loop; then a volume larger than the memory it may take.
    """
    plan = Plan(side_px=volume_px, files=files, large_mb=large_mb)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), plan)
    if out is not None:
        out.write_text(figures.model_dump_json(indent=2))
    for table in tables(figures):
        console.print(table)


def measure(folder: Path, plan: Plan) -> Figures:
    """Write synthetic data to a folder, and measure how they are read."""
    volume = textured((plan.depth, plan.side_px, plan.side_px))
    chunks = _layouts(volume.shape)
    for name, options in chunks.items():
        zarr.create_array(str(folder / name), data=volume, **options)
    return Figures(
        plan=plan,
        layouts=_time_layouts(folder, list(chunks), volume, plan.repeats),
        access=[_access(folder / name, name, axis) for name in chunks for axis in _AXES],
        files=_time_files(folder / "png", plan.files),
        memory=_memory(folder / "large", plan.large_mb * _MB),
    )


def textured(shape: tuple[int, int, int]) -> Volume:
    """Return grey values (Z, H, W) that pack about as well as micrographs do."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 190, [side // 8 + 1 for side in shape], np.uint8)
    for axis, side in enumerate(shape):
        coarse = coarse.repeat(8, axis).take(range(side), axis)
    grey: Volume = coarse + rng.integers(0, 24, shape, np.uint8)
    return grey


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
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in layouts}
    for _ in range(repeats):
        for name in layouts:
            ours = _seconds(partial(_read_all, folder / name))
            bare = _seconds(partial(_read_at_once, folder / name))
            seconds[name].append((ours, bare))
    ours_of = {name: median(ours for ours, _ in pairs) for name, pairs in seconds.items()}
    return [
        LayoutFigures(
            layout=name,
            megabytes=volume.nbytes / _MB,
            seconds=ours_of[name],
            seconds_at_once=median(bare for _, bare in pairs),
            to_at_once=median(ours / bare for ours, bare in pairs),
            to_sections=ours_of[name] / ours_of[_SECTIONS],
        )
        for name, pairs in seconds.items()
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
    with open_zarr(LocalPlace.of(folder), Ask(_MAX_PIXELS, options=options), tally) as stack:
        used = sum(section.nbytes for section in stack.sections)
        return tally.bytes_read / used, tally.bytes_unpacked / used, stack.num_sections


def _time_files(folder: Path, number: int) -> FileFigures:
    side = 512
    (folder / "images").mkdir(parents=True)
    base = textured((1, side, side))[0]
    for n in range(number):
        image = np.roll(base, n, axis=1) ^ np.uint8(n // side)  # each another one
        Image.fromarray(image).save(folder / "images" / f"{n:06}.png", compress_level=1)
    paths = sorted((folder / "images").iterdir())
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        bare = _seconds(lambda: sum(pool.map(_decoded_pixels, paths)))
    read = _seconds(lambda: sum(map(_read_all, paths)))
    description = Description(class_names=["background", "organelle"], pixel_size_nm=4.0)
    inputs = folder_inputs(folder)
    stored = _seconds(lambda: store_domain(description, inputs, folder / "stored"))
    return FileFigures(
        files=number,
        side_px=side,
        cores=cores,
        seconds_read=read,
        seconds_stored=stored,
        seconds_bare=bare,
    )


def _decoded_pixels(path: Path) -> int:
    with Image.open(path) as image:
        return np.asarray(image).size


def _memory(folder: Path, num_bytes: int) -> MemoryFigures:
    """Read a large volume in a process of its own, which knows what memory it took."""
    chunk = (_CHUNK_PX, _CHUNK_PX, _CHUNK_PX)
    side = 1024
    depth = -(-num_bytes // side**2)
    large = zarr.create_array(str(folder), shape=(depth, side, side), chunks=chunk, dtype="uint8")
    row = textured((_CHUNK_PX, side, side))
    for start in range(0, depth, _CHUNK_PX):
        stop = min(start + _CHUNK_PX, depth)
        large[start:stop] = row[: stop - start]
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_read_and_tell, args=(folder, sender))
    process.start()
    sender.close()
    try:
        peak: int = receiver.recv()
    finally:
        process.join()
    return MemoryFigures(megabytes=depth * side**2 / _MB, chunk=chunk, peak_mb=peak / _MB)


def _read_and_tell(folder: Path, sender: Connection) -> None:
    """Send the bytes that this process takes to read a volume, beyond those it has before."""
    before = _memory_of("VmRSS")
    for section in _sections(folder):
        assert section.any()
    sender.send(_memory_of("VmHWM") - before)


def _memory_of(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise ValueError(f"this computer does not tell {name} in /proc: measure on Linux")


def _sections(path: Path) -> Iterator[NDArray[np.generic]]:
    with open_stack(path, Ask(_MAX_PIXELS)) as stack:
        yield from stack.sections


def _read_all(path: Path) -> int:
    return sum(section.size for section in _sections(path))


def _read_at_once(path: Path) -> object:
    return zarr.open_array(str(path), mode="r")[:]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
