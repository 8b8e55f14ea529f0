"""Tell which planes of a TIFF are its sections, by what its writer says in the description.

Legend: Z sections, C channels, T points in time; a plane is one (H, W) of them.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from models.data.readers.limits import ImageError, in_words
from models.data.readers.ome_tiff import OmeImage, ome_images, the_image
from models.data.readers.pixel_size import pixel_nm
from models.data.readers.stack import Ask
from models.data.readers.tiff_directories import Directory
from models.data.readers.volume import VoxelSize

_UNKNOWN: VoxelSize = (None, None, None)


@dataclass(frozen=True)
class Layout:
    """The planes of a TIFF that are its sections, in order.

    ``planes`` are the numbers of pages. Where ``behind_first`` is true, the file has one page, and
    they are the numbers of planes that follow one another from where that page's pixels begin.
    """

    planes: Sequence[int]
    behind_first: bool = False
    voxel_nm: VoxelSize = _UNKNOWN
    unit: str | None = None
    notes: tuple[str, ...] = ()
    one_channel: bool = True


@dataclass(frozen=True)
class FirstPage:
    """The first page: its description and its shape, (H, W) or with samples.

    ``room`` is how many such planes the file has room for, from where the page's pixels begin.
    """

    description: str
    shape: tuple[int, ...]
    room: int


def layout_of(pages: Sequence[Directory], first: FirstPage, ask: Ask) -> Layout:
    """Return the sections of a file by the description of its first page.

    Raises:
        ImageError: the file holds several channels or points in time, or less than it says.
    """
    description = first.description
    if description.startswith("ImageJ="):
        return _imagej(pages, first, ask)
    if description.lstrip().startswith("<") and "<OME" in description[:4000]:
        return _ome(pages, the_image(ome_images(description), ask.options.path), ask)
    if description.startswith('{"shape":'):
        return _shaped(pages, first, ask)
    return _plain(pages)


def _plain(pages: Sequence[Directory]) -> Layout:
    """Take each page for a section, but for the copies: reduced ones, thumbnails, transparency."""
    kept, notes = _originals(pages)
    sizes = sorted({pages[number].shape for number in kept})
    if len(sizes) > 1:
        raise ImageError(
            f"holds pages of different sizes, {in_words(sizes[0])} and {in_words(sizes[-1])}: "
            "save the sections alone, or those of each size as a file"
        )
    return Layout(kept, notes=notes)


def _originals(pages: Sequence[Directory]) -> tuple[list[int], tuple[str, ...]]:
    """Return the numbers of the pages that are no copies, and a note of those that are."""
    kept = [number for number, page in enumerate(pages) if not page.is_copy]
    if len(kept) in (0, len(pages)):  # the flag says nothing where all have it
        return list(range(len(pages))), ()
    num_copies = len(pages) - len(kept)
    return kept, (f"holds {num_copies} reduced copies of pages, which are left out",)


def _imagej(pages: Sequence[Directory], first: FirstPage, ask: Ask) -> Layout:
    facts = dict(re.findall(r"^(\w+)=(.*)$", first.description, re.MULTILINE))
    sizes = {axis: _count(facts, name) for axis, name in _IMAGEJ_AXES.items()}
    images = _count(facts, "images")
    if sizes["T"] * sizes["Z"] * sizes["C"] != images:  # written before there were hyperstacks
        sizes = {"T": 1, "Z": images, "C": 1}
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), facts.get("unit", ""))
    depth = pixel_nm(_number(facts.get("spacing", "")), unit)
    kept, notes = _originals(pages)
    behind_first = len(kept) == 1 and images > 1 and first.room > 1
    held = first.room if behind_first else len(kept)
    if images == 1 or (held == 1 and not behind_first):
        # A page that was cut out of a stack keeps the description of the stack.
        if images > 1:
            notes += (f"says that it holds {images} images, and holds one, which is read",)
        return replace(_plain(pages), voxel_nm=(depth, None, None), unit=unit, notes=notes)
    if held < images or (held > images and not behind_first):
        raise ImageError(f"says that it holds {images} images, and holds {held}: save it again")
    planes = _sections(sizes, "TZC", [f"{n}" for n in range(sizes["C"])], ask)
    if not behind_first:
        planes = [kept[plane] for plane in planes]
    return Layout(
        planes, behind_first, (depth, None, None), unit, notes, one_channel=sizes["C"] == 1
    )


_IMAGEJ_AXES = {"T": "frames", "Z": "slices", "C": "channels"}


def _ome(pages: Sequence[Directory], image: OmeImage, ask: Ask) -> Layout:
    planes = _sections(image.sizes, image.order, image.channels, ask)
    try:
        numbers = [image.pages[plane] for plane in planes]
    except KeyError:
        raise ImageError(
            "is one of several files of an OME-TIFF, or lacks planes that its description names: "
            "save all planes in one file"
        ) from None
    if max(numbers) >= len(pages):
        raise ImageError("lacks planes that its OME description names: it is cut off")
    return Layout(numbers, voxel_nm=image.voxel_nm, one_channel=len(image.channels) == 1)


def _shaped(pages: Sequence[Directory], first: FirstPage, ask: Ask) -> Layout:
    """Read what Python's tifffile writes: the shape of the array, and perhaps its axes."""
    facts = json.loads(first.description)
    shape, axes = tuple(facts["shape"]), str(facts.get("axes", ""))
    num_outer = len(shape) - len(first.shape)
    outer = [size for size in shape[:num_outer] if size > 1]
    num_planes = prod(outer)
    behind_first = len(pages) == 1 and first.room > 1
    held = first.room if behind_first else len(pages)
    if behind_first and held < num_planes:
        raise ImageError(f"says that it holds {num_planes} planes, and holds {held}: it is cut off")
    alone = num_planes == 1 or (held != num_planes and not behind_first)
    if alone or shape[num_outer:] != first.shape:
        return _plain(pages)  # the shape is that of the first of several arrays
    if len(outer) == 1 and len(axes) != len(shape):
        return Layout(range(num_planes), behind_first)
    named = [axis for axis, size in zip(axes, shape[:num_outer], strict=False) if size > 1]
    order = "".join("Z" if axis in "IQ" else axis for axis in named)
    if len(set(order)) < len(outer) or not set(order) <= set("TZC"):
        raise ImageError(
            f"has the shape {shape} and does not say which axis is the depth: save it as "
            "(N, H, W), or write its axes"
        )
    sizes = {"T": 1, "Z": 1, "C": 1} | dict(zip(order, outer, strict=True))
    planes = _sections(sizes, order, [f"{n}" for n in range(sizes["C"])], ask)
    return Layout(planes, behind_first, one_channel=sizes["C"] == 1)


def _sections(sizes: dict[str, int], order: str, channels: Sequence[str], ask: Ask) -> list[int]:
    """Return the numbers of the planes of one channel, by Z.

    ``order`` names the axes from the slowest to the fastest: with "TZC" the second plane is the
    second channel of the first section.
    """
    if sizes["T"] > 1:
        raise ImageError(
            f"says that it is a time series of {sizes['T']} frames: if they are the sections of a "
            "volume, save them as slices (in Fiji: Image > Properties), else save one frame"
        )
    channel = the_channel(channels, ask)
    step = dict.fromkeys("TZC", 1)
    planes = 1
    for axis in reversed(order):
        step[axis] = planes
        planes *= sizes[axis]
    return [z * step["Z"] + channel * step["C"] for z in range(sizes["Z"])]


def the_channel(names: Sequence[str], ask: Ask) -> int:
    """Return the number of the channel to read.

    Raises:
        ImageError: there are several, and none is named; or the one that is named is not there.
    """
    wanted = ask.options.channel
    if len(names) == 1 and (wanted in (None, 0) or ask.purpose == "mask"):
        return 0  # the channel was named for the images
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    if wanted is None:
        raise ImageError(
            f"holds {len(names)} channels ({listed}): name one in reading.channel, from 0; if they "
            "are the sections of a volume, save them as slices (in Fiji: Image > Properties)"
        )
    if wanted >= len(names):
        raise ImageError(f"holds {len(names)} channels ({listed}), and none with number {wanted}")
    return wanted


def _count(facts: dict[str, str], name: str) -> int:
    value = int(facts.get(name, "1"))
    if not 1 <= value <= 1_000_000:
        raise ImageError(f"is damaged: it says that it has {value:.3g} {name}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
