"""The one table of file formats, and the one door through which files are opened.

The declared size and dtype are checked before a pixel is decoded, and no strip, tile or chunk may
unpack into more than it declares, so that a small file cannot take more memory than allowed.
"""

import errno
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import tifffile
from PIL import UnidentifiedImageError

from models.data.readers.dm import open_dm
from models.data.readers.hdf5 import open_hdf5
from models.data.readers.limits import Array, ImageError, check_unpacked
from models.data.readers.mrc import open_mrc
from models.data.readers.numpy_files import open_npy, open_npz
from models.data.readers.places import PlacedFile, placed
from models.data.readers.png import open_png
from models.data.readers.stack import Ask, Opener, Stack
from models.data.readers.tiff import open_tiff
from models.data.readers.zarr_array import open_zarr, open_zarr_zip


@dataclass(frozen=True)
class Format:
    """A file format: its name for people, its suffixes, and the pattern that its files begin with.

    The first format whose pattern matches is taken.
    """

    name: str
    suffixes: tuple[str, ...]
    pattern: bytes
    open: Opener

    def begins(self, start: bytes) -> bool:
        """Tell whether a file that starts so is of this format."""
        return re.match(self.pattern, start, re.DOTALL) is not None


FORMATS = (
    Format("PNG", (".png",), rb"\x89PNG\r\n\x1a\n", open_png),
    Format("TIFF", (".tif", ".tiff"), rb"II[*+]\0|MM\0[*+]", open_tiff),
    Format("MRC", (".mrc", ".mrcs", ".map", ".rec", ".ali", ".st"), rb".{208}MAP", open_mrc),
    Format("DM3", (".dm3",), rb"\0\0\0\x03.{4}\0\0\0[\0\x01]", open_dm),
    Format("DM4", (".dm4",), rb"\0\0\0\x04.{8}\0\0\0[\0\x01]", open_dm),
    # MATLAB leaves 512 bytes for itself.
    Format("HDF5", (".h5", ".hdf5", ".hdf", ".mat"), rb"(.{512})?\x89HDF\r\n\x1a\n", open_hdf5),
    Format("NPY", (".npy",), rb"\x93NUMPY", open_npy),
    # A zip whose first member is an array; the name of the member begins at byte 30.
    Format("NPZ", (".npz",), rb"PK\x03\x04.{26}[^\0]{1,200}?\.npy", open_npz),
    Format("zipped Zarr", (".zarr.zip", ".zip"), rb"PK\x03\x04", open_zarr_zip),
)
"""The formats of files; a folder is a Zarr store."""

SUFFIXES = (*(suffix for each in FORMATS for suffix in each.suffixes), ".zarr")

_LONGEST_FIRST = sorted(SUFFIXES, key=len, reverse=True)


def section_name(file_name: str) -> str:
    """Return a file's name without folders and known suffix; it pairs an image with its mask."""
    name = file_name.replace("\\", "/").rpartition("/")[2]
    lower = name.lower()
    for suffix in _LONGEST_FIRST:
        if lower.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


File = Path | BinaryIO | PlacedFile
"""A path of the user's own, an open file, or a file of a place."""


def opened_file(file: File, opened: ExitStack) -> BinaryIO | None:
    """Open a file until ``opened`` closes; None if it is a folder, or is not there."""
    if isinstance(file, Path):
        file = placed(file)
    if not isinstance(file, PlacedFile):
        return file
    stream = file.place.open(file.key)
    return None if stream is None else opened.enter_context(stream)


@contextmanager
def open_stack(file: File, ask: Ask) -> Iterator[Stack]:
    """Open a file, or the folder of a Zarr store, as a stack of sections.

    Raises:
        ImageError: on opening, and on reading each section: the file has another format, is
            damaged, is not grey, or is too large.
    """
    with ExitStack() as opened:
        with _in_words():
            stack, num_bytes = _open(file, ask, opened)
        yield replace(stack, sections=_told(stack.sections, num_bytes))


def _open(file: File, ask: Ask, opened: ExitStack) -> tuple[Stack, int | None]:
    """Return the stack, and the bytes of the file if it is one."""
    file = placed(file) if isinstance(file, Path) else file
    # On web servers a folder may be a file, too: a page of what it holds.
    is_store = isinstance(file, PlacedFile) and file.key.lower().endswith(".zarr")
    stream = None if is_store else opened_file(file, opened)
    if stream is None:
        assert isinstance(file, PlacedFile)
        return opened.enter_context(open_zarr(file.place.at(file.key), ask)), None
    num_bytes = stream.seek(0, 2)
    stream.seek(0)
    start = stream.read(_START_BYTES)
    stream.seek(0)
    for each in FORMATS:
        if each.begins(start):
            return opened.enter_context(each.open(stream, ask)), num_bytes
    for pattern, name, advice in _NOT_READ:
        if re.match(pattern, start, re.DOTALL):
            raise ImageError(f"is {name}, which is not read: {advice}")
    names = ", ".join(each.name for each in FORMATS)
    raise ImageError(f"is of no format that is read: these are {names}")


_START_BYTES = 1024
_AS_TIFF = "open it in Fiji and save it as TIFF"
_UNPACK = "unpack it"
_NOT_READ = (
    (
        rb"\xff\xd8\xff",
        "a JPEG",
        "its compression has changed the pixels; give the original file, "
        "or if there is none, save it as PNG",
    ),
    (rb"BM....\0\0\0\0", "a BMP", "save it as PNG"),
    (rb"GIF8", "a GIF", "save it as PNG"),
    (rb"RIFF....WEBP", "a WebP", "give the original file, or if there is none, save it as PNG"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000", _AS_TIFF),
    (rb"ZISRAWFILE", "a Zeiss CZI", _AS_TIFF),
    (rb"\x70\0\0\0", "a Leica LIF", _AS_TIFF),
    (rb"\xda\xce\xbe\x0a", "a Nikon ND2", _AS_TIFF),
    (rb"\x49\x49\x97\x01", "a TIA series (SER)", _AS_TIFF),
    (rb"NRRD0", "an NRRD", _AS_TIFF),
    (rb".{344}(n\+1|ni1)\0|\x1f\x8b", "packed by gzip, or a NIfTI", _UNPACK + ", or " + _AS_TIFF),
    (rb".{128}DICM", "a DICOM", _AS_TIFF),
    (rb"7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar", "an archive", _UNPACK),
    (rb"%PDF|%!PS", "a document", "give the original image"),
)
"""Files that people bring: the pattern that they begin with, their name, and what to do."""


def _told(sections: Iterator[Array], num_bytes: int | None) -> Iterator[Array]:
    """Yield the sections; an error of a decoder becomes an ImageError, as does too much output."""
    unpacked = 0
    while True:
        with _in_words():
            section = next(sections, None)
        if section is None:
            return
        unpacked += section.nbytes
        if num_bytes is not None:
            check_unpacked(unpacked, num_bytes)
        yield section


@contextmanager
def _in_words() -> Iterator[None]:
    """Turn what decoders raise at damaged bytes into ImageError."""
    try:
        yield
    except ImageError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    except (UnidentifiedImageError, tifffile.TiffFileError, zipfile.BadZipFile) as error:
        raise ImageError(f"is not readable: {error}") from error
    except (SyntaxError, EOFError, KeyError) as error:
        raise ImageError(f"is damaged: {error}") from error
    except (ArithmeticError, struct.error, zlib.error) as error:
        raise ImageError(f"is damaged: {error}") from error
    except (OSError, ValueError, TypeError, RuntimeError, LookupError, AttributeError) as error:
        # Decoders answer damaged bytes with all of these; none of them is a fault of the service.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's failure, not the file's; a seek to a damaged place is EINVAL
        raise ImageError(f"is damaged or not supported: {error}") from error
