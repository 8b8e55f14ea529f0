"""The part of ``stylefilter measure data`` that registers: many files, and a large volume."""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from app.cli.measure.data_figures import FileFigures, MemoryFigures
from models.config.presets import preset
from models.data.description import Description
from models.data.domain import Domain, DomainInfo
from models.data.intake.layout import folder_inputs
from models.data.intake.one_pass import store_domain
from models.data.intake.section_arrays import write_array
from models.data.intake.store import StoredDomain
from models.data.samples import source_batch
from models.data.sampling import Sampler
from models.data.sections import Section

Volume = NDArray[np.uint8]

MAX_PIXELS = 1 << 28
MB = 1_000_000
_FILE_PX = 512
_CHUNK_PX = 128
_LARGE_PX = 1024
_CLASSES = ["background", "organelle"]
_PIXEL_NM = 4.0


def textured(shape: tuple[int, int, int]) -> Volume:
    """Return grey values (Z, H, W) that pack about as well as micrographs do."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 190, [side // 8 + 1 for side in shape], np.uint8)
    for axis, side in enumerate(shape):
        coarse = coarse.repeat(8, axis).take(range(side), axis)
    grey: Volume = coarse + rng.integers(0, 24, shape, np.uint8)
    return grey


def time_files(folder: Path, number: int) -> FileFigures:
    """Time the intake of many PNG files beside bare loops over them."""
    (folder / "images").mkdir(parents=True)
    base = textured((1, _FILE_PX, _FILE_PX))[0]
    for n in range(number):
        image = np.roll(base, n, axis=1) ^ np.uint8(n // _FILE_PX)  # each another one
        Image.fromarray(image).save(folder / "images" / f"{n:06}.png", compress_level=1)
    paths = sorted((folder / "images").iterdir())
    (folder / "bound").mkdir()
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        bare = seconds(lambda: sum(pool.map(_decoded_pixels, paths)))
        bound = seconds(lambda: sum(pool.map(partial(_kept_pixels, folder / "bound"), paths)))
    stored = seconds(lambda: _stored(folder, folder / "stored"))
    return FileFigures(
        files=number,
        side_px=_FILE_PX,
        cores=cores,
        seconds_stored=stored,
        seconds_bare=bare,
        seconds_bound=bound,
        of_bare=bare / stored,
        of_bound=bound / stored,
    )


def _decoded(path: Path) -> Volume:
    with Image.open(path) as image:
        return np.asarray(image)


def _decoded_pixels(path: Path) -> int:
    return _decoded(path).size


def _kept_pixels(folder: Path, path: Path) -> int:
    """Do the least that an intake does with a file: decode, take both digests, pack and write."""
    pixels = _decoded(path)
    for _ in range(2):
        hashlib.sha256(pixels.data)
    write_array(folder / path.stem, pixels)
    return pixels.size


def _stored(folder: Path, store: Path) -> StoredDomain:
    description = Description(class_names=_CLASSES, pixel_size_nm=_PIXEL_NM)
    return store_domain(description, folder_inputs(folder), store)


def measure_memory(folder: Path, num_bytes: int) -> MemoryFigures:
    """Register a large volume and train with it, each in a process that knows its memory."""
    chunk = (_CHUNK_PX, _CHUNK_PX, _CHUNK_PX)
    shape = (-(-num_bytes // _LARGE_PX**2), _LARGE_PX, _LARGE_PX)
    row = textured((_CHUNK_PX, _LARGE_PX, _LARGE_PX))
    for name, values in (("images", row), ("masks", (row > 128).astype(np.uint8))):
        store = str(folder / f"{name}.zarr")
        large = zarr.create_array(store, shape=shape, chunks=chunk, dtype="uint8")
        for start in range(0, shape[0], _CHUNK_PX):
            # Each row of chunks is another one: a copy would not be trained on.
            other = np.roll(values, start // _CHUNK_PX + 1, axis=2)
            large[start : start + _CHUNK_PX] = other[: shape[0] - start]
    return MemoryFigures(
        megabytes=float(np.prod(shape)) / MB,
        chunk=chunk,
        peak_stored_mb=_peak(_store, folder) / MB,
        peak_trained_mb=_peak(_train, folder) / MB,
    )


def _store(folder: Path) -> None:
    _stored(folder, folder / "stored")


def _train(folder: Path) -> None:
    """Cut the batches of a training that goes once through all sections, without its networks."""
    number = len(list((folder / "stored" / "images").glob("[0-9]*")))
    every = [Section(n, f"{n}", "train", _LARGE_PX, _LARGE_PX, True) for n in range(number)]
    info = DomainInfo("large", tuple(_CLASSES), _PIXEL_NM, (60.0, 213.0), "")
    domain = Domain(folder / "stored", info, every, [])
    config = preset("paper").pretrain
    sampler = Sampler(every, 0, "pretrain", "source")
    for step in range(1, -(-number // config.batch_size) + 1):
        source_batch(domain, sampler.batch(step, config.batch_size), config)


def _peak(work: Callable[[Path], None], folder: Path) -> int:
    """Return the bytes that a process of its own takes for work, beyond those it starts with."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_and_tell, args=(work, folder, sender))
    process.start()
    sender.close()
    try:
        peak: int = receiver.recv()
    finally:
        process.join()
    return peak


def _work_and_tell(work: Callable[[Path], None], folder: Path, sender: Connection) -> None:
    before = memory_of("VmRSS")
    work(folder)
    sender.send(memory_of("VmHWM") - before)


def memory_of(name: str) -> int:
    """Return a figure of this process's memory, in bytes, by its name in /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise ValueError(f"this computer does not tell {name} in /proc: measure on Linux")


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
