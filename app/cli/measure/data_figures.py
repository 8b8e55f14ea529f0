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
    repeats: int = Field(3, ge=1)


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
    """The seconds for many PNG files: opened one by one, checked and stored, and a bare loop.

    The bare loop decodes on all ``cores`` at once, and checks and keeps nothing.
    """

    files: int
    side_px: int
    cores: int
    seconds_read: float
    seconds_stored: float
    seconds_bare: float


class MemoryFigures(BaseModel):
    """The memory that a process needs to read a volume, beyond what it needs to start."""

    megabytes: float
    chunk: tuple[int, int, int]
    peak_mb: float


class Figures(BaseModel):
    """All figures of one run."""

    plan: Plan
    layouts: list[LayoutFigures]
    access: list[AccessFigures]
    files: FileFigures
    memory: MemoryFigures


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
    shown.add_row("read one by one", f"{files.seconds_read:.1f}")
    shown.add_row("checked and stored", f"{files.seconds_stored:.1f}")
    shown.add_row(f"bare decoding on {files.cores} cores", f"{files.seconds_bare:.1f}")
    yield shown
    memory = figures.memory
    chunk = " x ".join(map(str, memory.chunk))
    shown = Table("", "MB", title="memory to read a large volume")
    shown.add_row(f"the volume, in chunks of {chunk}", f"{memory.megabytes:.0f}")
    shown.add_row("memory at most", f"{memory.peak_mb:.0f}")
    yield shown
