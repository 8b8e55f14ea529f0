"""Write Gatan's DM3 and DM4 files, as far as their images go."""

import struct
from collections.abc import Mapping

import numpy as np

KINDS = {"h": 2, "i": 3, "H": 4, "I": 5, "f": 6, "d": 7, "B": 8, "b": 9, "q": 11}
DATA_TYPES = {"i2": 1, "f4": 2, "u1": 6, "i4": 7, "i1": 9, "u2": 10, "u4": 11, "f8": 12}

Tree = Mapping[str, object]


class DmWriter:
    """Writes a tree of numbers, texts and arrays; ``version`` is 3 or 4."""

    def __init__(self, version: int, order: str = "<") -> None:
        self.version, self.order = version, order
        self.length = ">Q" if version == 4 else ">I"

    def file(self, tree: Tree) -> bytes:
        body = self.group(tree)
        little = 1 if self.order == "<" else 0
        start = struct.pack(">I", self.version) + struct.pack(self.length, len(body))
        return start + struct.pack(">I", little) + body + bytes(8)

    def group(self, tree: Tree) -> bytes:
        body = b"\1\0" + struct.pack(self.length, len(tree))
        for name, value in tree.items():
            is_group = isinstance(value, Mapping)
            label = b"" if name.isdigit() else name.encode("latin-1")
            content = self.group(value) if isinstance(value, Mapping) else self.value(value)
            body += struct.pack(">BH", 20 if is_group else 21, len(label)) + label
            if self.version == 4:
                body += struct.pack(self.length, len(content))
            body += content
        return body

    def value(self, value: object) -> bytes:
        if isinstance(value, str):
            value = np.frombuffer(value.encode("utf-16-le"), "<u2").astype(self.order + "u2")
        if isinstance(value, np.ndarray):
            form = [20, KINDS[value.dtype.newbyteorder("=").char], value.size]
            data = value.astype(value.dtype.newbyteorder(self.order)).tobytes()
        elif isinstance(value, tuple):  # a structure of whole numbers
            form = [15, 0, len(value), *(n for _ in value for n in (0, 3))]
            data = struct.pack(f"{self.order}{len(value)}i", *value)
        else:
            kind = "f" if isinstance(value, float) else "I"
            form, data = [KINDS[kind]], struct.pack(self.order + kind, value)
        return b"%%%%" + b"".join(struct.pack(self.length, n) for n in (len(form), *form)) + data


def image(pixels: np.ndarray, sizes: tuple[float, ...] = (), unit: str = "nm") -> Tree:
    """The tags of an image; ``sizes`` are those of pixels along z, y and x."""
    lengths = reversed(pixels.shape)
    axes = {
        str(n): {"Origin": 0.0, "Scale": float(size), "Units": unit}
        for n, size in enumerate(reversed(sizes))
    }
    data = {
        "Calibrations": {"Brightness": {"Units": ""}, "Dimension": axes},
        "Data": pixels.ravel(),
        "DataType": DATA_TYPES[pixels.dtype.str[1:]],
        "Dimensions": {str(n): length for n, length in enumerate(lengths)},
        "PixelDepth": pixels.dtype.itemsize,
    }
    return {"ImageData": data, "Name": "a micrograph"}


THUMBNAIL: Tree = {
    "ImageData": {
        "Data": np.zeros(16, np.int32),
        "DataType": 23,
        "Dimensions": {"0": 4, "1": 4},
    }
}


def dm(pixels: np.ndarray, version: int = 3, order: str = "<", **calibration: object) -> bytes:
    """A file with a thumbnail before its image, as DigitalMicrograph writes it."""
    tree = {
        "ApplicationBounds": (0, 0, 900, 1600),
        "ImageList": {"0": THUMBNAIL, "1": image(pixels, **calibration)},  # type: ignore[arg-type]
        "Thumbnails": {"0": {"ImageIndex": 0}},
    }
    return DmWriter(version, order).file(tree)
