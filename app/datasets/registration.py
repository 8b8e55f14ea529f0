"""What a dataset is registered from: files under a data root, checked in the API's words."""

from collections.abc import Sequence
from pathlib import Path

from app.datasets.schemas import DatasetCreate
from app.errors import Invalid, ProblemItem
from app.settings import Settings
from models.data.inputs import InputFile, folder_inputs
from models.data.store import DomainRefused, StoredDomain, store_domain

Files = tuple[Sequence[InputFile], Sequence[InputFile]]
"""Images and masks."""


def store(request: DatasetCreate, files: Files, draft: Path, settings: Settings) -> StoredDomain:
    """Check the files and write them to ``draft``; Invalid names each that is wrong."""
    try:
        return store_domain(request, *files, draft, max_pixels=settings.max_section_pixels)
    except DomainRefused as error:
        items = [ProblemItem(where=each.where, message=each.message) for each in error.problems]
        raise Invalid(str(error), items) from error


def folder_files(settings: Settings, folder: str) -> Files:
    """Return the image and mask files of a folder under an allowed data root; Invalid otherwise."""
    path = _allowed_folder(settings, folder)
    images, masks = folder_inputs(path, "images"), folder_inputs(path, "masks")
    if not images:
        raise _folder_problem(f"{folder} holds no images/*.png, images/*.tif or images.zarr")
    for given in (*images, *masks):
        _check_inside(path, given)
    return images, masks


def _allowed_folder(settings: Settings, folder: str) -> Path:
    roots = [root.resolve() for root in settings.data_roots]
    if not roots:
        raise _folder_problem("no data root is configured (STYLEFILTER_DATA_ROOTS): upload files")
    if "\0" in folder:
        raise _folder_problem("the folder's name is not valid")
    for root in roots:
        path = _resolved(root / folder)
        if path is not None and path.is_relative_to(root) and path.is_dir():
            return path
    raise _folder_problem(f"{folder!r} is no folder under an allowed data root")


def _check_inside(folder: Path, given: InputFile) -> None:
    """Refuse links that lead out of the folder, and what is neither a file nor a folder."""
    path = given.file
    assert isinstance(path, Path)
    links = [inner for inner in (path, *path.rglob("*")) if inner.is_symlink()]
    for link in links:
        resolved = _resolved(link)
        if resolved is None or not resolved.is_relative_to(folder):
            inside = link.relative_to(folder)
            raise _folder_problem(f"{inside} is a link that leads out of the folder, or nowhere")
    if not path.is_file() and not path.is_dir():
        raise _folder_problem(f"{path.relative_to(folder)} is no file")


def _folder_problem(message: str) -> Invalid:
    return Invalid(message, [ProblemItem(where="body.folder", message=message)])


def _resolved(path: Path) -> Path | None:
    """Where a path really is, all links followed; None if they lead nowhere."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
