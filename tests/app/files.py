"""Image files as users bring them, and their registration."""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tifffile
import zarr
from PIL import Image

METADATA = {"name": "cells", "class_names": ["background", "organelle"], "pixel_size_nm": 4.0}


def grey(seed: int, height: int = 40, width: int = 56, dtype: str = "uint8") -> np.ndarray:
    """Random pixels over the whole range of the dtype."""
    rng = np.random.default_rng(seed)
    return rng.integers(np.iinfo(dtype).max, size=(height, width), endpoint=True, dtype=dtype)


def mask(height: int = 40, width: int = 56, *, organelle: int = 10) -> np.ndarray:
    """Background, with ``organelle`` pixels of class 1 at the top left, in reading order."""
    flat = np.zeros(height * width, np.uint8)
    flat[:organelle] = 1
    return flat.reshape(height, width)


def png(array: np.ndarray) -> bytes:
    return encoded(Image.fromarray(array))


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="minisblack", **options)
    return buffer.getvalue()


def write_zarr(folder: Path, array: np.ndarray, **options: Any) -> Path:
    zarr.create_array(str(folder), data=array, **options)
    return folder


def zipped(folder: Path) -> bytes:
    """The zip of a Zarr folder, its root at the top."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@dataclass
class Folder:
    """A folder on the service's machine, registered by its name."""

    path: Path
    metadata: dict[str, Any] = field(default_factory=lambda: METADATA | {"folder": "cells"})

    def __post_init__(self) -> None:
        for kind in ("images", "masks"):
            (self.path / kind).mkdir(parents=True)

    def image(self, name: str, data: bytes) -> None:
        (self.path / "images" / name).write_bytes(data)

    def mask(self, name: str, data: bytes) -> None:
        (self.path / "masks" / name).write_bytes(data)

    def register(self, api: httpx.Client, **metadata: Any) -> httpx.Response:
        return api.post("/datasets", json=self.metadata | metadata)


def upload(
    api: httpx.Client,
    images: dict[str, bytes],
    masks: dict[str, bytes] | None = None,
    **metadata: Any,
) -> httpx.Response:
    """POST /datasets with files."""
    files = [("images", item) for item in images.items()]
    files += [("masks", item) for item in (masks or {}).items()]
    return api.post("/datasets", data={"metadata": json.dumps(METADATA | metadata)}, files=files)


def registered(response: httpx.Response) -> dict[str, Any]:
    """The report of a registration that must have gone well."""
    assert response.status_code == 201, response.text
    report: dict[str, Any] = response.json()
    return report


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The body of a refusal, checked to be a problem with this status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["detail"]
    return body


def wrong(response: httpx.Response, status: int = 422) -> dict[str, str]:
    """What a refusal says is wrong, by where."""
    return {item["where"]: item["message"] for item in problem(response, status)["errors"]}


def tells(messages: Mapping[str, str], expected: Mapping[str, Iterable[object]]) -> None:
    """Check that these places have a message each, and that it names what matters there."""
    assert messages.keys() == expected.keys()
    for where, words in expected.items():
        for word in words:
            assert str(word) in messages[where]
