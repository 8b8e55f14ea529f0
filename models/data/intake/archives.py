"""Read a ZIP of image files as a folder; nothing is unpacked but one file at a time."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from models.data import names
from models.data.intake.findings import Findings
from models.data.intake.inputs import Input, InputFile, Inputs
from models.data.intake.layout import IMAGE_FOLDERS, MASK_FOLDERS, Layout, arranged
from models.data.readers.formats import open_stack, opened_file
from models.data.readers.limits import ImageError
from models.data.readers.stack import Ask, Stack

_MAX_MEMBERS = 10_000
_MAX_BYTES = 64 << 30
_MEMBER_BYTES = 8 << 30
_IN_MEMORY_BYTES = 16 << 20
_ZARR_FILES = {".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json"}
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class InputMember:
    """A file in a ZIP; its ``path`` there says where it lies."""

    archive_name: str
    path: str
    archive: zipfile.ZipFile
    member: zipfile.ZipInfo

    @property
    def name(self) -> str:
        return f"{self.archive_name}/{self.path}"

    @property
    def stem(self) -> str:
        return names.stem(self.path)

    @contextmanager
    def open(self, ask: Ask) -> Iterator[Stack]:
        with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as copy:
            self._unpack(cast(BinaryIO, copy))
            copy.seek(0)
            with open_stack(cast(BinaryIO, copy), ask) as stack:
                yield stack

    def again(self) -> "InputMember":
        return self

    def _unpack(self, copy: BinaryIO) -> None:
        """Copy the member's bytes, never more than it declares."""
        if self.member.compress_type not in _PACKINGS:  # others unpack without a bound
            raise ImageError("is not packed by deflate: pack the ZIP again")
        left = self.member.file_size
        try:
            with self.archive.open(self.member) as stream:
                while data := stream.read(1 << 20):
                    left -= len(data)
                    if left < 0:
                        raise ImageError("unpacks into more bytes than it declares")
                    copy.write(data)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ImageError(f"cannot be unpacked: {error}") from error


def unpacked(inputs: Inputs, opened: ExitStack, findings: Findings) -> Inputs:
    """Return the inputs with each ZIP of image files replaced by the files in it.

    A ZIP among the images may hold masks too, in folders of the usual names; one among the masks
    gives masks alone. The archives stay open until ``opened`` is closed. A zipped Zarr array is no
    such ZIP.
    """
    images: list[Input] = []
    masks: list[Input] = []
    passed_over = list(inputs.passed_over)
    for given in inputs.images:
        found = _members(given, opened, findings)
        if found is None:
            images.append(given)
            continue
        images += found.images
        masks += found.masks
        passed_over += found.passed_over
    for given in inputs.masks:
        found = _members(given, opened, findings)
        if found is None:
            masks.append(given)
            continue
        # Files without a folder are what they were sent as.
        masks += found.masks or found.images
        passed_over += [each.name for each in found.images] if found.masks else []
        passed_over += found.passed_over
    return Inputs(images, masks, passed_over)


def _members(given: Input, opened: ExitStack, findings: Findings) -> Inputs | None:
    """Return the files in a ZIP of image files; None if it is something else."""
    if not isinstance(given, InputFile) or not given.name.lower().endswith(".zip"):
        return None
    stream = None
    try:
        stream = opened_file(given.file, opened)
        if stream is None:
            return None
        archive = opened.enter_context(zipfile.ZipFile(stream))
    except (OSError, ImageError, zipfile.BadZipFile):
        return None  # its reader says what is wrong
    finally:
        if stream is not None:
            stream.seek(0)
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if any(PurePosixPath(info.filename).name in _ZARR_FILES for info in infos):
        return None
    members = {info.filename: info for info in infos}
    layout = _layout(list(members))
    if not layout.images and not layout.masks:
        return None
    if problem := _too_much(infos):
        findings.problem(given.name, problem)
        return Inputs(())
    images, masks = (
        [InputMember(given.name, path, archive, members[path]) for path in paths]
        for paths in (layout.images, layout.masks)
    )
    return Inputs(images, masks, [f"{given.name}/{path}" for path in layout.passed_over])


def _layout(paths: Sequence[str]) -> Layout:
    """Find images and masks among the paths of an archive, also inside one outer folder."""
    kept = [path for path in paths if not names.left_by_system(path)]
    outer = _outer_folder(kept)
    tree: dict[str, list[str] | None] = {}
    for path in kept:
        folder, slash, inner = path.removeprefix(outer).partition("/")
        if not slash:
            tree[folder] = None
        elif (known := tree.setdefault(folder, [])) is not None:
            known.append(inner)
    found = arranged(tree)
    images, masks, beside = (
        tuple(f"{outer}{path}" for path in some)
        for some in (found.images, found.masks, found.passed_over)
    )
    left = tuple(path for path in paths if names.left_by_system(path))
    return Layout(images, masks, (*beside, *left))


def _outer_folder(paths: Sequence[str]) -> str:
    """Return the folders that all paths lie in, with a slash, down to one of a usual name."""
    outer = ""
    while True:
        firsts = {path.removeprefix(outer).partition("/")[:2] for path in paths}
        if len(firsts) != 1:
            return outer
        ((folder, slash),) = firsts
        if not slash or folder.casefold() in (*IMAGE_FOLDERS, *MASK_FOLDERS):
            return outer
        outer += f"{folder}/"


def _too_much(infos: Sequence[zipfile.ZipInfo]) -> str | None:
    """Return the words for an archive that is too large, or holds a path twice."""
    if len({info.filename for info in infos}) < len(infos):
        return "holds two files of the same path: pack it again"
    if len(infos) > _MAX_MEMBERS:
        return (
            f"holds {len(infos)} files, and up to {_MAX_MEMBERS} are read from a ZIP: put the "
            "sections into stacks (TIFF or Zarr)"
        )
    if sum(info.file_size for info in infos) > _MAX_BYTES:
        return f"unpacks into more than {_MAX_BYTES >> 30} GiB: divide it"
    if max(info.file_size for info in infos) > _MEMBER_BYTES:
        return f"holds a file of more than {_MEMBER_BYTES >> 30} GiB: divide it"
    return None
