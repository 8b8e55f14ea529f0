"""Find the images and the masks among the files of a folder or an archive.

Both lie in folders of the usual names, beside each other, or masks have an ending that says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.data.inputs import InputFile, Inputs
from models.data.names import left_by_system, natural_key, stem, without_mask_ending
from models.data.readers.formats import SUFFIXES

IMAGE_FOLDERS = ("images", "raw", "image", "em", "imgs", "img", "grey", "gray", "micrographs")
"""The names of folders that hold images; if there are several, the first of these is read."""

MASK_FOLDERS = (
    "masks",
    "labels",
    "mask",
    "label",
    "segmentation",
    "segmentations",
    "seg",
    "annotations",
    "annotation",
    "ground_truth",
    "groundtruth",
    "gt",
    "classes",
)
"""The names of folders that hold masks; if there are several, the first of these is read."""

Tree = Mapping[str, Sequence[str] | None]
"""The content of a folder: the names in each subfolder, and None for a file."""


@dataclass(frozen=True)
class Layout:
    """The paths of images and masks, in natural order, and of what is neither."""

    images: tuple[str, ...]
    masks: tuple[str, ...]
    passed_over: tuple[str, ...]


def folder_inputs(folder: Path) -> Inputs:
    """Return the images and masks of a folder.

    Images lie in ``images/`` or a folder of another usual name (``IMAGE_FOLDERS``), masks in
    ``masks/`` or the like (``MASK_FOLDERS``). One file or Zarr folder of such a name, as
    ``images.zarr``, holds a stack. Without these names, the files of the folder itself are the
    images, and those whose name is that of another with an ending, as in ``a_mask.png``, are masks.

    Files that operating systems leave (.DS_Store, Thumbs.db) are passed over. Any other file in a
    folder of images or masks is returned, so that one that is no image is refused by its name.
    """
    tree = {path.name: _names_inside(path) for path in folder.iterdir()}
    found = arranged(tree)
    return Inputs(
        [_input(folder, path) for path in found.images],
        [_input(folder, path) for path in found.masks],
        found.passed_over,
    )


def _names_inside(path: Path) -> list[str] | None:
    """Return the names in a folder; none for a file, as which the folder of a Zarr array counts."""
    if not path.is_dir() or path.name.lower().endswith(SUFFIXES):
        return None
    if path.name.casefold() not in (*IMAGE_FOLDERS, *MASK_FOLDERS):
        return []  # passed over as a whole, however much it holds
    return [inner.name for inner in path.iterdir()]


def _input(folder: Path, path: str) -> InputFile:
    file = folder / path
    if "/" not in path and _in_usual_name(path, (*IMAGE_FOLDERS, *MASK_FOLDERS)):
        return InputFile(f"stack{file.suffix}", file)  # so named, an image and its mask are a pair
    return InputFile(path, file)


def arranged(tree: Tree) -> Layout:
    """Find images and masks in a tree of names, as ``folder_inputs`` describes it."""
    kept = {name: inner for name, inner in tree.items() if not left_by_system(name)}
    images, masks = _of_kind(kept, IMAGE_FOLDERS), _of_kind(kept, MASK_FOLDERS)
    used = {path.partition("/")[0] for path in (*images, *masks)}
    if not images:
        flat = [name for name in kept if name not in used and name.lower().endswith(SUFFIXES)]
        images, with_ending = _told_apart(flat)
        masks = masks or with_ending
        used |= {*images, *masks}
    read = {*images, *masks}
    passed_over = [name for name in tree if name not in used]
    for name in used:
        passed_over += [f"{name}/{inner}" for inner in tree.get(name) or ()]
    beside = [path for path in passed_over if path not in read]
    return Layout(*(tuple(sorted(paths, key=natural_key)) for paths in (images, masks, beside)))


def _of_kind(tree: Tree, usual: Sequence[str]) -> list[str]:
    """Return the paths in the first folder, or the first stack, of a usual name."""
    for kind in usual:
        for name in sorted(tree):
            if tree[name] is None and _in_usual_name(name, (kind,)):
                return [name]
        for name in sorted(tree):
            paths = [f"{name}/{each}" for each in tree[name] or () if not left_by_system(each)]
            if paths and name.casefold() == kind:
                return paths
    return []


def _in_usual_name(name: str, usual: Sequence[str]) -> bool:
    return name.lower().endswith(SUFFIXES) and stem(name).casefold() in usual


def _told_apart(flat: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide files of one folder: a mask has the name of an image and an ending."""
    stems = {stem(name) for name in flat}
    masks = [name for name in flat if _image_of(name) != stem(name) and _image_of(name) in stems]
    return [name for name in flat if name not in masks], masks


def _image_of(name: str) -> str:
    return without_mask_ending(stem(name))
