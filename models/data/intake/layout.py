"""Find the images and the masks among the files of a folder or an archive.

Both lie in folders of the usual names, beside each other, or masks have an ending that says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.data.intake.inputs import InputFile, Inputs
from models.data.names import left_by_system, natural_key, stem, without_mask_ending
from models.data.readers.formats import SUFFIXES
from models.data.readers.limits import ImageError
from models.data.readers.places import LocalPlace, Place, PlacedFile, PlaceError, joined
from models.data.readers.zarr_metadata import read_node
from models.data.readers.zarr_nodes import label_images

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

LIST_FILE = "files.txt"
"""The file that names all files of a folder, where a web server lists none."""

_MAX_LIST_BYTES = 1 << 26

Tree = Mapping[str, Sequence[str] | None]
"""The content of a folder: the names in each subfolder, and None for a file."""


@dataclass(frozen=True)
class Layout:
    """The paths of images and masks, in natural order, and of what is neither."""

    images: tuple[str, ...]
    masks: tuple[str, ...]
    passed_over: tuple[str, ...]


def folder_inputs(folder: Path | Place) -> Inputs:
    """Return the images and masks of a folder; links in one that a path names may lead anywhere.

    Images lie in ``images/`` or a folder of another usual name (``IMAGE_FOLDERS``), masks in
    ``masks/`` or the like (``MASK_FOLDERS``). One file or Zarr folder of such a name, as
    ``images.zarr``, holds a stack. Without these names, the files of the folder itself are the
    images, and those whose name is that of another with an ending, as in ``a_mask.png``, are masks.
    If there are no masks, and one Zarr folder holds the images and one label image, as OME-Zarr
    has it, then this holds the masks.

    Web servers list no files. There a file ``files.txt`` in the folder names them, a path on each
    line. Without it only ``images.zarr`` and ``masks.zarr`` are found.

    Files that operating systems leave (.DS_Store, Thumbs.db) are passed over. Any other file in a
    folder of images or masks is returned, so that one that is no image is refused by its name.

    Raises:
        PlaceError: the folder cannot be read.
    """
    place = LocalPlace.anywhere(folder) if isinstance(folder, Path) else folder
    found = arranged(_tree(place))
    images = [_input(place, path) for path in found.images]
    masks = [_input(place, path) for path in found.masks]
    if len(images) == 1 and not masks:
        labels = _label_images(place, found.images[0])
        if len(labels) == 1:
            masks = [InputFile(images[0].name, PlacedFile(place, labels[0]))]
    return Inputs(images, masks, found.passed_over)


def _tree(place: Place) -> Tree:
    listing = place.listing()
    if listing is None:  # a web server: what is asked for by name may be there
        listed = place.read(LIST_FILE, _MAX_LIST_BYTES)
        if listed is not None:
            return _listed(listed)
        stacks = ("images.zarr", "masks.zarr")
        return {name: None for name in stacks if read_node(place.at(name)) is not None}
    folders = {name: _names_inside(place, name) for name in listing.folders}
    return folders | dict.fromkeys(listing.files)


def _listed(text: bytes) -> Tree:
    """Return the tree of a list of paths, a line for each, as ``find . -type f`` writes it.

    Raises:
        PlaceError: a path leads out of the folder, or the list is no text.
    """
    try:
        paths = [joined(line) for line in text.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise PlaceError(f"has a {LIST_FILE} that is no text of UTF-8: write it anew") from error
    tree: dict[str, dict[str, None] | None] = {}
    for path in paths:
        name, _, inside = path.partition("/")
        if not inside or name.lower().endswith(SUFFIXES):
            tree[name] = None
        else:
            names = tree.setdefault(name, {})
            if names is not None:
                names[inside.partition("/")[0]] = None
    return {
        name: None if names is None else list(names)
        for name, names in tree.items()
        if name not in ("", LIST_FILE)
    }


def _names_inside(place: Place, folder: str) -> list[str] | None:
    """Return the names in a folder; None for that of a Zarr store, which counts as a file."""
    if folder.lower().endswith(SUFFIXES):
        return None
    if folder.casefold() not in (*IMAGE_FOLDERS, *MASK_FOLDERS):
        return []  # passed over as a whole, however much it holds
    listing = place.listing(folder)
    return [] if listing is None else [*listing.folders, *listing.files]


def _label_images(place: Place, path: str) -> list[str]:
    """Return the paths of label images in a Zarr folder; none in what is something else."""
    if not path.lower().endswith(".zarr"):
        return []
    try:
        return [f"{path}/{inside}" for inside in label_images(place.at(path))]
    except ImageError:
        return []  # the image's reader says what is wrong


def _input(place: Place, path: str) -> InputFile:
    file = PlacedFile(place, path)
    if "/" not in path and _in_usual_name(path, (*IMAGE_FOLDERS, *MASK_FOLDERS)):
        # So named, an image and its mask are a pair.
        return InputFile(f"stack{PurePosixPath(path).suffix}", file)
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
            if name.casefold() == kind:
                paths = [f"{name}/{each}" for each in tree[name] or () if not left_by_system(each)]
                if paths:
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
