"""One small dataset in every container is one dataset: equal pixels, masks, labels and digest."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import httpx
import mrcfile
import numpy as np
import pytest
import zarr

from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.faults.kit import write_ome_zarr
from tests.app.files import METADATA, grey, mask, png, registered, tiff, write_zarr
from tests.s3 import S3Server

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SECTIONS = 5
IMAGES = np.stack([grey(n, 40, 56) for n in range(SECTIONS)])
MASKS = np.stack([mask(organelle=10 * n) for n in range(SECTIONS)])
LAYERS = {"images": IMAGES, "masks": MASKS}

Write = Callable[[Path, str, np.ndarray], None]
"""Writes one layer (N, H, W) into the folder of a dataset."""


def _pngs(folder: Path, layer: str, array: np.ndarray) -> None:
    (folder / layer).mkdir()
    for number, section in enumerate(array):
        (folder / layer / f"s{number}.png").write_bytes(png(section))


def _file(name: str, data: Callable[[np.ndarray], bytes]) -> Write:
    def write(folder: Path, layer: str, array: np.ndarray) -> None:
        (folder / layer).mkdir()
        (folder / layer / name).write_bytes(data(array))

    return write


def _zip_of_pngs(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, section in enumerate(array):
            archive.writestr(f"outer/s{number}.png", png(section))
    return buffer.getvalue()


def _mrc(folder: Path, layer: str, array: np.ndarray) -> None:
    (folder / layer).mkdir()
    with mrcfile.new(folder / layer / "s.mrc") as file:
        file.set_data(array.astype(np.uint16))


def _hdf5(folder: Path, layer: str, array: np.ndarray) -> None:
    (folder / layer).mkdir()
    with h5py.File(folder / layer / "s.h5", "w") as file:
        file.create_dataset("data", data=array, chunks=(2, 16, 16), compression="gzip")


def _zarr(**options: Any) -> Write:
    def write(folder: Path, layer: str, array: np.ndarray) -> None:
        write_zarr(folder / f"{layer}.zarr", array, **options)

    return write


def _ome(version: str) -> Write:
    def write(folder: Path, layer: str, array: np.ndarray) -> None:
        write_ome_zarr(folder / f"{layer}.zarr", array, version, (40.0, 4.0, 4.0))

    return write


CONTAINERS: dict[str, Write] = {
    "PNG": _pngs,
    "ZIP of PNG": _file("s.zip", _zip_of_pngs),
    "TIFF stack": _file("s.tif", tiff),
    "ImageJ, one IFD": _file(
        "s.tif", lambda a: tiff(a, imagej=True, metadata={"axes": "ZYX"}, truncate=True)
    ),
    "OME-TIFF": _file("s.ome.tif", lambda a: tiff(a, ome=True, metadata={"axes": "ZYX"})),
    "HDF5": _hdf5,
    "Zarr v2": _zarr(zarr_format=2, chunks=(2, 16, 16)),
    "Zarr v3": _zarr(zarr_format=3, chunks=(3, 16, 16)),
    "sharded Zarr": _zarr(zarr_format=3, chunks=(1, 8, 8), shards=(5, 40, 56)),
    "OME-Zarr 0.4": _ome("0.4"),
    "OME-Zarr 0.5": _ome("0.5"),
}


def _facts(api: httpx.Client, settings: Settings, response: httpx.Response) -> dict[str, Any]:
    """What must be equal of a registered dataset: all but names and identities."""
    report = registered(response)
    group = zarr.open_group(str(settings.data_folder / "datasets" / report["id"]), mode="r")
    for layer, array in LAYERS.items():
        found = np.stack([np.asarray(group[f"{layer}/{n:06d}"]) for n in range(SECTIONS)])
        np.testing.assert_array_equal(found, array)
    derived = api.post(f"/datasets/{report['id']}/labels/derive", json={"min_pixels": 15})
    labels = api.get(f"/datasets/{report['id']}/labels").json()["items"]
    same = ("pixels_digest", "class_pixels", "intensity_window", "num_sections", "num_masks")
    return {name: report[name] for name in same} | {
        "counts": derived.json()["counts"],
        "labels": [each["classes"] for each in labels],
        "splits": [section["split"] for section in report["sections"]],
    }


def test_every_container_holds_the_same_dataset(
    s3: S3Server, settings: Settings, serve: Serve
) -> None:
    root = settings.data_roots[0]
    api = serve(settings.model_copy(update={"data_roots": (root, "s3://cells/data")}))
    found = {}
    for number, (name, write) in enumerate(CONTAINERS.items()):
        folder = root / str(number)
        folder.mkdir()
        for layer, array in LAYERS.items():
            write(folder, layer, array)
        request = METADATA | {"name": name, "folder": str(number)}
        found[name] = _facts(api, settings, api.post("/datasets", json=request))
    for source in (0, 6):
        s3.put_folder("cells", f"data/{source}", root / str(source))
        request = METADATA | {"name": f"S3 {source}", "folder": f"s3://cells/data/{source}"}
        found[f"S3 {source}"] = _facts(api, settings, api.post("/datasets", json=request))
    (first, *others) = found.values()
    assert first["class_pixels"]["organelle"] == sum(10 * n for n in range(SECTIONS))
    assert first["counts"]["organelle"] == {"present": 3, "absent": 2, "unknown": 0}
    assert {name for name, each in found.items() if each != first} == set()
    assert len(others) == len(CONTAINERS) + 1


def test_mrc_has_no_8_bits_without_sign_and_holds_the_same_values(
    api: httpx.Client, settings: Settings
) -> None:
    folder = settings.data_roots[0] / "mrc"
    folder.mkdir()
    for layer, array in LAYERS.items():
        _mrc(folder, layer, array)
    response = api.post("/datasets", json=METADATA | {"folder": "mrc"})
    facts = _facts(api, settings, response)
    assert registered(response)["dtype"] == "uint16"
    assert facts["counts"]["organelle"] == {"present": 3, "absent": 2, "unknown": 0}
