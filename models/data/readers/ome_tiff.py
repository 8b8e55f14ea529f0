"""Read the OME description of a TIFF: its images, their axes, channels and pixel sizes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from xml.etree import ElementTree

from models.data.readers.limits import ImageError
from models.data.readers.pixel_size import pixel_nm
from models.data.readers.volume import VoxelSize

MAX_XML_BYTES = 32 << 20
MAX_PLANES = 1_000_000


@dataclass(frozen=True)
class OmeImage:
    """An image of an OME-TIFF.

    ``sizes`` are those of the axes T, Z and C; ``order`` names them from the slowest to the
    fastest. ``pages`` gives the page of each plane that this file holds.
    """

    name: str
    sizes: dict[str, int]
    order: str
    channels: tuple[str, ...]
    voxel_nm: VoxelSize
    pages: dict[int, int]


def ome_images(xml: str) -> list[OmeImage]:
    """Return the images that an OME description names.

    Raises:
        ImageError: the description is too long, or it is no OME.
    """
    if len(xml) > MAX_XML_BYTES:
        raise ImageError(f"has an OME description of more than {MAX_XML_BYTES} bytes")
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:  # they could expand without end
        raise ImageError("has an OME description with definitions of its own: save it without")
    # A declaration of the encoding does not hold for what is decoded already.
    root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", xml))
    images = [_image(image, root.get("UUID", "")) for image in root.iterfind("{*}Image")]
    if not images:
        raise ImageError("has an OME description that names no image")
    return images


def the_image(images: Sequence[OmeImage], name: str | None) -> OmeImage:
    """Return the only image, or the one of that name.

    Raises:
        ImageError: there are several, and none has that name.
    """
    if len(images) == 1:
        return images[0]
    named = [image for image in images if image.name == name]
    if len(named) == 1:
        return named[0]
    listed = ", ".join(image.name for image in images[:20])
    raise ImageError(f"holds {len(images)} images ({listed}): name one in reading.path")


def _image(image: ElementTree.Element, uuid: str) -> OmeImage:
    pixels = image.find("{*}Pixels")
    if pixels is None:
        raise ImageError("has an OME description without pixels")
    order = pixels.get("DimensionOrder", "XYZCT")
    if sorted(order) != sorted("XYZCT"):
        raise ImageError(f"has an OME description with the dimension order {order!r}")
    channels = pixels.findall("{*}Channel")
    samples = [int(channel.get("SamplesPerPixel", "1")) for channel in channels]
    sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "TZC"}
    if channels and sum(samples) == sizes["C"]:
        sizes["C"] = len(channels)  # the colours of one plane
    if min(sizes.values()) < 1 or prod(sizes.values()) > MAX_PLANES:
        raise ImageError(f"has an OME description with the sizes {sizes}")
    names = [channel.get("Name") or channel.get("ID") or "" for channel in channels]
    names = names if len(names) == sizes["C"] else [f"{n}" for n in range(sizes["C"])]
    slow_first = "".join(axis for axis in reversed(order) if axis in "TZC")
    voxel = tuple(_size_nm(pixels, axis) for axis in "ZYX")
    return OmeImage(
        image.get("Name") or image.get("ID") or "",
        sizes,
        slow_first,
        tuple(names),
        (voxel[0], voxel[1], voxel[2]),
        _pages(pixels, sizes, slow_first, uuid),
    )


def _size_nm(pixels: ElementTree.Element, axis: str) -> float | None:
    size = pixels.get(f"PhysicalSize{axis}")
    return size and pixel_nm(float(size), pixels.get(f"PhysicalSize{axis}Unit", "µm")) or None


def _pages(
    pixels: ElementTree.Element, sizes: dict[str, int], order: str, uuid: str
) -> dict[int, int]:
    """Return the page of each plane; planes of other files are left out."""
    num_planes, pages, num_named = prod(sizes.values()), dict[int, int](), 0
    named = [(data, data.find("{*}UUID")) for data in pixels.iterfind("{*}TiffData")]
    files = {file.text for _, file in named if file is not None}
    own = uuid or (files.pop() if len(files) == 1 else None)
    for data, file in named:
        if file is not None and file.text != own:
            continue
        plane = 0
        for axis in order:
            plane = plane * sizes[axis] + int(data.get(f"First{axis}", "0"))
        count = int(data.get("PlaneCount", "1" if "IFD" in data.attrib else f"{num_planes}"))
        page = int(data.get("IFD", "0"))
        num_named += count
        if num_named > MAX_PLANES or min(plane, page, count) < 0:
            raise ImageError("has an OME description that names too many planes")
        pages |= {plane + n: page + n for n in range(count)}
    return pages
