"""The figures of ``stylefilter measure data``, and their tables."""

from collections.abc import Iterator

from pydantic import BaseModel, Field
from rich.table import Table


class Plan(BaseModel):
    """The sizes of what is read. Each measurement is repeated, and the medians are the figures."""

    depth: int = Field(128, ge=1, description="The number of sections of the volume.")
    side_px: int = Field(512, ge=64, description="The side of a section, in pixels.")
    files: int = Field(10_000, ge=1, description="The number of PNG files.")
    large_mb: int = Field(1024, ge=1, description="The size of the large volume, in megabytes.")
    tiles: int = Field(
        1_000_000, ge=1000, multiple_of=8, description="The number of tiles in the large dataset."
    )
    repeats: int = Field(3, ge=1)
    asked: int = Field(40, ge=2, description="The number of times that each request is timed.")


class LayoutFigures(BaseModel):
    """The seconds to read a Zarr volume section by section, and by Zarr at once.

    ``to_sections`` compares with the volume that has a chunk for each section.
    """

    layout: str
    megabytes: float
    seconds: float
    seconds_at_once: float
    to_at_once: float
    to_sections: float


class AccessFigures(BaseModel):
    """The bytes that are read and unpacked to give sections along an axis, as parts of their own.

    1 means that nothing is read in vain. ``one`` is for a single section in the middle.
    """

    layout: str
    axis: str
    read_all: float
    unpacked_all: float
    read_one: float
    unpacked_one: float


class FileFigures(BaseModel):
    """The seconds to register many PNG files, beside two loops on all ``cores`` at once.

    The bare loop decodes, and keeps nothing. The loop of the bound also takes the two digests,
    packs and writes: the least that an intake has to do.
    """

    files: int
    side_px: int
    cores: int
    seconds_stored: float
    seconds_bare: float
    seconds_bound: float
    of_bare: float
    """The speed of registering, as a share of that of the bare loop."""
    of_bound: float


class MemoryFigures(BaseModel):
    """The memory that a process needs for a large volume, beyond what it needs to start.

    It registers the volume, or cuts the batches of a training from it, without the networks.
    """

    megabytes: float
    chunk: tuple[int, int, int]
    peak_stored_mb: float
    peak_trained_mb: float


class FlatFigures(BaseModel):
    """The 95th percentile of the milliseconds of a request, with few images and with many."""

    request: str
    ms_few: float
    ms_many: float
    ratio: float


class TilesFigures(BaseModel):
    """The registration of a dataset with very many tiles, and what is asked of it afterwards.

    Meanwhile another process writes to the same database again and again.
    """

    database: str
    few: int
    many: int
    seconds: float
    peak_mb: float
    longest_write_seconds: float
    seconds_deleted: float
    """The seconds until a deletion answers."""
    seconds_removed: float
    """The seconds until everything of the deleted dataset is removed."""
    flat: list[FlatFigures]


class Figures(BaseModel):
    """All figures of one run."""

    plan: Plan
    layouts: list[LayoutFigures]
    access: list[AccessFigures]
    files: FileFigures
    memory: MemoryFigures
    tiles: list[TilesFigures]


def tables(figures: Figures) -> Iterator[Table]:
    """Yield the figures as tables."""
    shown = Table(
        "layout of a Zarr volume",
        "seconds",
        "Zarr at once, seconds",
        "to at once",
        "to chunks of one section",
        title=f"{figures.layouts[0].megabytes:.0f} MB, section by section",
    )
    for each in figures.layouts:
        seconds = (f"{each.seconds:.2f}", f"{each.seconds_at_once:.2f}")
        shown.add_row(each.layout, *seconds, f"x{each.to_at_once:.2f}", f"x{each.to_sections:.2f}")
    yield shown
    shown = Table(
        "layout",
        "axis",
        "all: read",
        "all: unpacked",
        "one: read",
        "one: unpacked",
        title="bytes for each byte of a section",
    )
    for of in figures.access:
        ratios = (of.read_all, of.unpacked_all, of.read_one, of.unpacked_one)
        shown.add_row(of.layout, of.axis, *(f"{ratio:.2f}" for ratio in ratios))
    yield shown
    files = figures.files
    shown = Table("", "seconds", title=f"{files.files:,} PNG files of {files.side_px} px")
    shown.add_row("registered", f"{files.seconds_stored:.1f}")
    bare, bound = (f"{100 * share:.0f} % of its speed" for share in (files.of_bare, files.of_bound))
    shown.add_row(f"bare decoding on {files.cores} cores: {bare}", f"{files.seconds_bare:.1f}")
    shown.add_row(f"with digests, packing, writing: {bound}", f"{files.seconds_bound:.1f}")
    yield shown
    memory = figures.memory
    chunk = " x ".join(map(str, memory.chunk))
    shown = Table("", "MB", title="memory for a large volume, at most")
    shown.add_row(f"the volume, in chunks of {chunk}", f"{memory.megabytes:.0f}")
    shown.add_row("to register it", f"{memory.peak_stored_mb:.0f}")
    shown.add_row("to cut the batches of a training", f"{memory.peak_trained_mb:.0f}")
    yield shown
    for tiles in figures.tiles:
        yield from _of_tiles(tiles)


def _of_tiles(tiles: TilesFigures) -> Iterator[Table]:
    shown = Table("", "", title=f"{tiles.many:,} tiles on {tiles.database}")
    shown.add_row("registered in", f"{tiles.seconds:.1f} s")
    shown.add_row("memory at most", f"{tiles.peak_mb:.0f} MB")
    shown.add_row("another's write at most", f"{tiles.longest_write_seconds:.2f} s")
    shown.add_row("a deletion answers in", f"{tiles.seconds_deleted:.2f} s")
    shown.add_row("all is removed after", f"{tiles.seconds_removed:.1f} s")
    yield shown
    columns = (f"{tiles.few:,} images, ms", f"{tiles.many:,} images, ms", "ratio")
    shown = Table("request, 95th percentile", *columns, title=tiles.database)
    for each in tiles.flat:
        shown.add_row(
            each.request, f"{each.ms_few:.2f}", f"{each.ms_many:.2f}", f"{each.ratio:.2f}"
        )
    yield shown
