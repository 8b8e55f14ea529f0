"""Choose the array to read from a Zarr store: by path, by level, or the only one there is.

Legend: Z, Y, X the axes of a volume.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log, prod
from typing import Literal

from models.data.readers.limits import ImageError
from models.data.readers.ome import Axis, Level, Multiscale, label_names, multiscales
from models.data.readers.places import Place, joined
from models.data.readers.stack import Ask, ReadOptions
from models.data.readers.zarr_chunks import ZarrArray
from models.data.readers.zarr_metadata import ArrayLayout, Node, read_node

VoxelSize = tuple[float | None, float | None, float | None]

_MAX_NODES, _MAX_DEPTH = 400, 8
_SHOWN_PATHS = 10
_NO_SECTIONS = ("c", "channel", "t", "time")
_SHOWN: dict[Literal["z", "y", "x"], str] = {"z": "yx", "y": "zx", "x": "zy"}


@dataclass(frozen=True)
class Chosen:
    """The array that is read: the names of its axes, and what its file says of it.

    ``voxel_nm`` is the size of a voxel along (z, y, x), None where it is not said.
    """

    array: ZarrArray
    axes: tuple[str, ...]
    voxel_nm: VoxelSize = (None, None, None)
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """An array, or a group of levels, and where it lies."""

    key: str
    node: Node
    levels: tuple[Multiscale, ...]


def choose(place: Place, ask: Ask) -> Chosen:
    """Choose the array that ``ask`` names, or the only one that the store holds.

    A mask whose store holds one array needs no path.

    A store may lie in outer folders, as in most zip files.

    Raises:
        ImageError: there is none, or there are several; the message lists their paths.
    """
    options, path = ask.options, ask.options.path
    if path is None:
        return _chosen(place, _only(place), options)
    key = joined(path)
    for outer in _outer_folders(place):
        inside = joined(outer, key)
        node = read_node(place.at(inside))
        if node is None:
            continue
        if node.array is not None:
            return _of_array(place, inside, node.array)
        inner = place.at(inside)
        return _chosen(inner, _only(inner), options)
    if ask.purpose == "mask" and len(_some(place)) == 1:
        return _chosen(place, _only(place), options)
    raise ImageError(f"has no array at the path {path!r}: {_listed(place)}")


def label_images(place: Place) -> tuple[str, ...]:
    """Return the paths of the label images that belong to the only volume of a store.

    These are groups beside its levels, as ``labels/mito``.
    """
    return _labels(place, _only(place).key)


def _labels(place: Place, key: str) -> tuple[str, ...]:
    labels = place.at(joined(key, "labels"))
    node = read_node(labels)
    if node is not None and node.array is not None:
        return ()
    listing = labels.listing()
    names = label_names(node.attributes) if node else ()
    found = names or (listing.folders if listing else ())
    return tuple(joined(key, "labels", name) for name in found if _is_users(name))


def _only(place: Place) -> _Found:
    """Return the only array, or group of levels, that lies at a place or deeper."""
    found = _some(place)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ImageError(
            "holds no Zarr array: neither zarr.json nor .zarray was found in it, or in the folders "
            f"that lie inside of it{_outside(place)}"
        )
    raise ImageError(
        f"holds several arrays: choose one by its path, in reading.path. {_in_words(found)}"
    )


def _some(place: Place) -> list[_Found]:
    """Return the arrays and groups of levels, one more than are shown at most."""
    found: list[_Found] = []
    for each in _walk(place):
        found.append(each)
        if len(found) > _SHOWN_PATHS:
            break
    return found


def _walk(place: Place) -> Iterator[_Found]:
    """Yield arrays and groups of levels, but none inside of another."""
    waiting, seen = [("", 0)], 0
    while waiting:
        key, depth = waiting.pop(0)
        seen += 1
        if seen > _MAX_NODES:
            raise ImageError(
                f"holds more than {_MAX_NODES} folders: choose an array by its path, in "
                "reading.path"
            )
        node = read_node(place.at(key))
        if node is not None:
            levels = () if node.array else multiscales(node.attributes)
            if node.array is not None or levels:
                yield _Found(key, node, levels)
                continue
        listing = place.listing(key) if depth < _MAX_DEPTH else None
        for name in listing.folders if listing else ():
            if _is_users(name):
                waiting.append((joined(key, name), depth + 1))


def _outer_folders(place: Place) -> Iterator[str]:
    """Yield the key of the place itself, and those of folders in which alone the store may lie."""
    key = ""
    for _ in range(_MAX_DEPTH):
        yield key
        listing = None if read_node(place.at(key)) else place.listing(key)
        folders = [name for name in (listing.folders if listing else ()) if _is_users(name)]
        if len(folders) != 1:
            return
        key = joined(key, folders[0])


def _is_users(folder: str) -> bool:
    return not folder.startswith(".") and folder != "__MACOSX"


def _chosen(place: Place, found: _Found, options: ReadOptions) -> Chosen:
    if found.node.array is not None:
        return _of_array(place, found.key, found.node.array)
    multiscale, notes = found.levels[0], list[str]()
    if len(found.levels) > 1:
        notes.append(f"holds {len(found.levels)} multiscales, of which the first is read")
    labels = () if options.mask_path else _labels(place, found.key)
    if len(labels) > 1:
        notes.append(
            f"holds several label images, {', '.join(labels)}: to read one of them as masks, name "
            "it in reading.mask_path"
        )
    level = _level(multiscale, options)
    key = joined(found.key, level.path)
    node = read_node(place.at(key))
    if node is None or node.array is None:
        raise ImageError(f"has no array {level.path}, which its metadata name: copy it again")
    if len(multiscale.levels) > 1:
        size = _shown_nm(multiscale, level, options)
        pixels = "" if size is None else f", with pixels of {size:.6g} nm,"
        notes.append(
            f"holds {len(multiscale.levels)} sizes of the same volume, of which {level.path}"
            f"{pixels} is read"
        )
    return _of_level(ZarrArray(place.at(key), node.array), multiscale, level, tuple(notes))


def _of_array(place: Place, key: str, layout: ArrayLayout) -> Chosen:
    """Return an array with what a group around it says of it, if there is one."""
    outer, _, rest = key.rpartition("/")
    while rest:
        node = read_node(place.at(outer))
        for multiscale in multiscales(node.attributes) if node and not node.array else ():
            for level in multiscale.levels:
                if joined(outer, level.path) == key:
                    return _of_level(ZarrArray(place.at(key), layout), multiscale, level)
        if not outer:
            break
        outer, _, rest = outer.rpartition("/")
    return Chosen(ZarrArray(place.at(key), layout), _axes(layout))


def _of_level(
    array: ZarrArray, multiscale: Multiscale, level: Level, notes: tuple[str, ...] = ()
) -> Chosen:
    num_axes = len(array.layout.shape)
    if num_axes != len(multiscale.axes):
        raise ImageError(
            f"is damaged: its metadata name {len(multiscale.axes)} axes, and its array "
            f"{level.path} has {num_axes}"
        )
    z, y, x = (multiscale.voxel_nm(level, axis) for axis in "zyx")
    axes = tuple(map(_name, multiscale.axes))
    return Chosen(array, axes, (z, y, x), multiscale.channels, notes)


def _name(axis: Axis) -> str:
    name = axis.name.lower()
    if axis.type == "space" and name not in ("z", "y", "x"):
        raise ImageError(f"has the axis {axis.name} in space: name its axes z, y and x")
    return name


def _axes(layout: ArrayLayout) -> tuple[str, ...]:
    """Return the names of an array's axes, which are by default (H, W) or (N, H, W)."""
    if layout.names is not None:
        names = tuple((name or "").lower() for name in layout.names)
        if {"y", "x"} <= set(names) and len(set(names)) == len(names):
            known = {"y", "x", *_NO_SECTIONS}
            return tuple("z" if len(names) == 3 and n not in known else n for n in names)
    outer = len(layout.shape) - 3
    if outer < -1 or any(side != 1 for side in layout.shape[: max(0, outer)]):
        raise ImageError(
            f"is a Zarr array of shape {layout.shape}, and does not say what its axes are: save it "
            "as (H, W) or (N, H, W)"
        )
    return (*(f"axis {number}" for number in range(outer)), *"zyx"[-len(layout.shape) :])


def _level(multiscale: Multiscale, options: ReadOptions) -> Level:
    """Return the level nearest to the pixel size that was asked for, or the finest."""
    if options.level_nm is None:
        space = [n for n, axis in enumerate(multiscale.axes) if axis.name.lower() in "zyx"]
        return min(multiscale.levels, key=lambda level: prod(level.scale[n] for n in space))
    sizes = [_shown_nm(multiscale, level, options) for level in multiscale.levels]
    known = [(size, level) for size, level in zip(sizes, multiscale.levels, strict=True) if size]
    if not known:
        raise ImageError(
            "does not say the size of its pixels, so none of its levels can be chosen by "
            "reading.level_nm: choose one by its path, in reading.path"
        )
    wanted = options.level_nm
    return min(known, key=lambda pair: abs(log(pair[0] / wanted)))[1]


def _shown_nm(multiscale: Multiscale, level: Level, options: ReadOptions) -> float | None:
    """Return the size of a level's pixels in the sections that are cut, as a mean of both sides."""
    height, width = (multiscale.voxel_nm(level, axis) for axis in _SHOWN[options.axis])
    return None if height is None or width is None else (height * width) ** 0.5


def _outside(place: Place) -> str:
    listing = place.listing()
    if listing is None:
        return ". This server lists no folders, so give the address of the array itself"
    return ""


def _listed(place: Place) -> str:
    found = _some(place)
    return _in_words(found) if found else "it holds none"


def _in_words(found: list[_Found]) -> str:
    paths = ", ".join(each.key or "the root" for each in found[:_SHOWN_PATHS])
    return f"It holds {paths}" + (", ..." if len(found) > _SHOWN_PATHS else "")
