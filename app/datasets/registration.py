"""Finds the files of a folder to register.

The folder lies under one of the data roots, which the operator names in STYLEFILTER_DATA_ROOTS.
"""

from pathlib import Path

from app.errors import Invalid, ProblemItem
from app.settings import Settings
from models.data.inputs import Input, InputFile, Inputs
from models.data.layout import folder_inputs


def folder_files(settings: Settings, folder: str) -> Inputs:
    """Return the image and mask files of a folder under a data root; Invalid if it has none."""
    path = _allowed_folder(settings, folder)
    inputs = folder_inputs(path)
    if not inputs.images:
        raise _folder_problem(
            f"{folder!r} holds no images: put PNG or TIFF files into its folder images/, or a "
            "Zarr array into images.zarr"
        )
    for given in (*inputs.images, *inputs.masks):
        _check_inside(path, given)
    return inputs


def _allowed_folder(settings: Settings, folder: str) -> Path:
    roots = [root.resolve() for root in settings.data_roots]
    if not roots:
        raise _folder_problem(
            "this service reads no folders, because STYLEFILTER_DATA_ROOTS names none: upload the "
            "files instead"
        )
    if "\0" in folder:
        raise _folder_problem("the folder's name holds a null character: remove it")
    for root in roots:
        path = _resolved(root / folder)
        if path is not None and path.is_relative_to(root) and path.is_dir():
            return path
    raise _folder_problem(
        f"{folder!r} is no folder under a data root of this service: give its path relative to one "
        "of the folders in STYLEFILTER_DATA_ROOTS"
    )


def _check_inside(folder: Path, given: Input) -> None:
    """Refuse links that lead out of the folder, and anything that is neither file nor folder."""
    assert isinstance(given, InputFile)
    path = given.file
    assert isinstance(path, Path)
    links = [inner for inner in (path, *path.rglob("*")) if inner.is_symlink()]
    for link in links:
        resolved = _resolved(link)
        if resolved is None or not resolved.is_relative_to(folder):
            inside = link.relative_to(folder)
            raise _folder_problem(
                f"{inside} is a link that leads out of the folder, or nowhere: copy the file itself"
            )
    if not path.is_file() and not path.is_dir():
        raise _folder_problem(
            f"{path.relative_to(folder)} is neither a file nor a folder: remove it"
        )


def _folder_problem(message: str) -> Invalid:
    return Invalid(message, [ProblemItem(where="body.folder", message=message)])


def _resolved(path: Path) -> Path | None:
    """Follow all links of a path and return where it is; None if a link leads nowhere."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
