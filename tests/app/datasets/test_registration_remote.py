"""Datasets are registered from buckets and web servers, and from nowhere outside a data root."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import numpy as np
import pytest
import zarr

from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.files import METADATA, grey, mask, pixels, png, registered, tiff, write_zarr, wrong
from tests.s3 import S3Server

ROOT = "s3://cells/data"


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    """One engine: where files lie does not concern the database."""
    path = tmp_path / "stylefilter.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture
def api(s3: S3Server, settings: Settings, serve: Serve) -> httpx.Client:  # noqa: ARG001 - its environment
    return serve(settings.model_copy(update={"data_roots": (*settings.data_roots, ROOT)}))


def register(api: httpx.Client, folder: str) -> httpx.Response:
    # Named by its folder: a name and content that were there before make no new dataset.
    return api.post("/datasets", json=METADATA | {"name": folder[-90:], "folder": folder})


def stored(api: httpx.Client, dataset: str, number: int, layer: str = "images") -> np.ndarray:
    return pixels(api.get(f"/datasets/{dataset}/{layer}/{number}").content)


@pytest.mark.parametrize("folder", ["d", f"{ROOT}/d", f"{ROOT}//d/"])
def test_images_and_masks_of_a_bucket(api: httpx.Client, s3: S3Server, folder: str) -> None:
    s3.put("cells", "data/d/images/a.png", png(grey(1)))
    s3.put("cells", "data/d/images/b.tif", tiff(grey(2)))
    s3.put("cells", "data/d/masks/b_mask.png", png(mask()))
    s3.put("cells", "data/d/README.txt", b"of the microscope")
    report = registered(register(api, folder))
    assert [(s["name"], s["has_mask"]) for s in report["sections"]] == [("a", False), ("b", True)]
    np.testing.assert_array_equal(stored(api, report["id"], 1), grey(2))


def test_zarr_of_a_bucket(api: httpx.Client, s3: S3Server, tmp_path: Path) -> None:
    images = np.stack([grey(n) for n in range(6)])
    for version in (2, 3):
        folder = tmp_path / str(version)
        chunks = {"chunks": (4, 16, 16), "zarr_format": version}
        write_zarr(folder / "images.zarr", images, **chunks)
        write_zarr(folder / "masks.zarr", np.stack([mask()] * 6), **chunks)
        s3.put_folder("cells", f"data/{version}", folder)
        report = registered(register(api, str(version)))
        assert [section["has_mask"] for section in report["sections"]] == [True] * 6
        np.testing.assert_array_equal(stored(api, report["id"], 5), images[5])


def test_label_images_beside_the_levels_are_masks(
    api: httpx.Client, settings: Settings, s3: S3Server
) -> None:
    folder = settings.data_roots[0] / "ome"
    images, masks = np.stack([grey(n) for n in range(6)]), np.stack([mask()] * 6)
    for path, array in (("", images), ("labels/organelle", masks)):
        group = zarr.open_group(str(folder / "images.zarr" / path), mode="a")
        group.create_array("0", data=array)
        axes = [{"name": name, "type": "space"} for name in "zyx"]
        scale = [{"type": "scale", "scale": [1, 1, 1]}]
        level = {"path": "0", "coordinateTransformations": scale}
        described = {"axes": axes, "datasets": [level]}
        group.attrs["ome"] = {"version": "0.5", "multiscales": [described]}
    s3.put_folder("cells", "data/far", folder)
    for name in ("ome", "far"):
        report = registered(register(api, name))
        assert report["num_masks"] == 6
        assert report["class_pixels"]["organelle"] == 60


@pytest.mark.parametrize(
    "folder",
    [
        "s3://cells/secret",
        "s3://cells/data-secret",
        "s3://cells",
        "s3://other/data/d",
        f"{ROOT}/../secret",
        f"{ROOT}/%2e%2e/secret",
        "../secret",
        "http://127.0.0.1:9/data/d",
        "https://cells/data/d",
        "file:///etc",
        "s3://user:password@cells/data",
        f"{ROOT}?versionId=1",
        "gopher://cells/data",
        "missing",
        f"{ROOT}/missing",
    ],
)
def test_what_is_not_under_a_root_is_refused(api: httpx.Client, s3: S3Server, folder: str) -> None:
    for key in ("secret", "data-secret"):
        s3.put("cells", f"{key}/images/a.png", png(grey(1)))
    s3.put("cells", "data/d/images/a.png", png(grey(1)))
    assert list(wrong(register(api, folder))) == ["body.folder"]


def test_an_address_of_a_file_may_name_a_local_root(api: httpx.Client, settings: Settings) -> None:
    images = settings.data_roots[0] / "my cells" / "images"
    images.mkdir(parents=True)
    (images / "a.png").write_bytes(png(grey(1)))
    address = (images.parent).as_uri()
    assert "%20" in address
    registered(register(api, address))


def test_a_bucket_that_is_not_there_and_keys_that_are_wrong_are_told(
    api: httpx.Client, s3: S3Server, settings: Settings, serve: Serve
) -> None:
    s3.put("cells", "data/d/images/a.png", png(grey(1)))
    other = serve(settings.model_copy(update={"data_roots": ("s3://missing/data",)}))
    assert "no such bucket" in wrong(register(other, "d"))["body.folder"]
    s3.deny_strangers()
    assert "AWS_ACCESS_KEY_ID" in wrong(register(api, "d"))["body.folder"]


def test_a_file_that_is_damaged_is_named(api: httpx.Client, s3: S3Server) -> None:
    s3.put("cells", "data/d/images/a.png", png(grey(1))[:-300])
    s3.put("cells", "data/d/images/b.png", png(grey(2)))
    assert list(wrong(register(api, "d"))) == ["images/a.png"]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_zarr_of_a_web_server(settings: Settings, serve: Serve, tmp_path: Path) -> None:
    """It lists no folders, but what is asked for by name is found."""
    images = np.stack([grey(n) for n in range(6)])
    write_zarr(tmp_path / "web" / "d" / "images.zarr", images, chunks=(4, 16, 16))
    write_zarr(tmp_path / "web" / "d" / "masks.zarr", np.stack([mask()] * 6))
    handler = partial(_Quiet, directory=tmp_path / "web")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            root = f"http://127.0.0.1:{server.server_port}"
            api = serve(settings.model_copy(update={"data_roots": (root,)}))
            report = registered(register(api, "d"))
            assert report["num_masks"] == 6
            np.testing.assert_array_equal(stored(api, report["id"], 5), images[5])
            assert list(wrong(register(api, "e"))) == ["body.folder"]
        finally:
            server.shutdown()
            thread.join()
