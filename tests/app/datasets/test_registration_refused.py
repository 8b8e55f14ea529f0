"""POST /datasets: what is refused, that every offending file is named, and that nothing is left."""

import io
import json
import os
import resource
import shutil
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from zarr.core.buffer import Buffer

from app.datasets.registration import folder_files
from app.errors import Invalid
from app.registrations.receiving import MOST_FILES
from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.files import (
    METADATA,
    Folder,
    encoded,
    grey,
    mask,
    png,
    problem,
    registered,
    tells,
    tiff,
    upload,
    write_zarr,
    wrong,
    zipped,
)


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    """One engine: a refusal happens before the database is reached."""
    path = tmp_path / "stylefilter.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture(autouse=True)
def _nothing_is_left(settings: Settings, api: httpx.Client) -> Iterator[None]:
    yield
    assert list((settings.data_folder / "incoming").iterdir()) == []
    kept = {path.name for path in (settings.data_folder / "datasets").iterdir()}
    assert kept == {dataset["id"] for dataset in api.get("/datasets").json()["items"]}


def bomb(height: int, width: int) -> bytes:
    """A PNG of a few hundred bytes that declares any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def zarr_metadata(shape: list[int], chunks: list[int], *, stored: bool = False) -> bytes:
    """The zip of a Zarr array that only declares its size, or holds but its first chunk."""
    members: dict[str, Buffer] = {}
    store = zarr.storage.MemoryStore(members)
    array = zarr.create_array(store, shape=shape, chunks=chunks, dtype="uint8")
    if stored:
        array[tuple(slice(0, side) for side in chunks)] = 1
    return archive(**{key: data.to_bytes() for key, data in members.items()})


COLOUR = png(np.stack([grey(1), grey(2), grey(3)], -1))
COLOURED = Image.fromarray(mask(), "L").convert("P")
COLOURED.putpalette([255, 0, 0, 0, 255, 0])
JPEG = encoded(Image.fromarray(grey(1)), "JPEG")
STACK4D = np.zeros((2, 2, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.png", b"", "is of no format that is read"),
        ("a.png", b"GIF89a" + bytes(50), "is a GIF"),
        ("a.png", JPEG, "is a JPEG"),
        ("a.png", png(grey(1))[:-300], "damaged"),
        ("a.png", png(grey(1))[:20], "damaged"),
        ("a.png", COLOUR, "is a colour picture"),
        ("a.png", encoded(COLOURED), "palette"),
        ("a.png", bomb(60_000, 60_000), "60000 x 60000 px"),
        ("a.png", bomb(2**31 - 1, 2**31 - 1), "268435456 pixels"),
        ("a.tif", tiff(grey(1))[:300], "cut off"),
        ("a.tif", b"II*\0" + bytes(4), "holds no page"),
        ("a.tif", tiff(grey(1, 64, 64), compression="zlib")[:-500], "cut off"),
        ("a.tif", tiff(np.full((8, 8), np.nan, np.float32)), "NaN"),
        ("a.zip", archive(readme=b"hello"), "no Zarr array"),
        ("a.zip", archive(**{"..__..__evil": b"x"}), "no Zarr array"),
        ("a.zip", archive(**{"zarr.json": b"{"}), "zarr.json"),
        ("a.zip", archive(readme=b"hello")[:-10], "is not readable"),
        ("a.zip", zarr_metadata([5, 70_000, 70_000], [1, 64, 64]), "is 70000 x 70000 px"),
        ("a.zip", zarr_metadata([5, 0, 64], [1, 1, 64]), "0 x 64 px"),
        ("a.zip", zarr_metadata([0, 64, 64], [1, 64, 64]), "holds no image"),
        ("a.zip", zarr_metadata([9, 64, 64], [1, 64, 64]), "none of the chunks"),
        ("a.zip", zarr_metadata([64], [64]), "(H, W) or (N, H, W)"),
        ("a.zip", zarr_metadata([1, 2**14, 2**14], [1, 1, 1]), "268435456 chunks"),
        (
            "a.zip",
            zarr_metadata([10**6, 2048, 2048], [10**6, 2048, 2048]),
            "chunks of 1000000 x 2048 x 2048",
        ),
        # Many equal sections in a hundred bytes end after a thousand.
        (
            "a.zip",
            zarr_metadata([500_000, 16, 16], [1, 16, 16], stored=True),
            "1001 sections that are blank",
        ),
    ],
)
def test_an_image_that_cannot_be_one_is_named(
    api: httpx.Client, name: str, data: bytes, said: str
) -> None:
    errors = wrong(upload(api, {name: data, "good.png": png(grey(7))}))
    assert list(errors) == [f"images/{name}"]
    assert said in errors[f"images/{name}"]


def test_tiff_of_several_channels_or_dimensions_is_named(api: httpx.Client) -> None:
    rgb = io.BytesIO()
    tifffile.imwrite(rgb, np.stack([grey(1), grey(2), grey(3)], -1), photometric="rgb")
    volume = io.BytesIO()
    tifffile.imwrite(volume, np.zeros((32, 16, 16), np.uint8), volumetric=True, tile=(16, 16, 16))
    errors = wrong(upload(api, {"rgb.tif": rgb.getvalue(), "volume.tif": volume.getvalue()}))
    assert "colour" in errors["images/rgb.tif"]
    assert "volumes" in errors["images/volume.tif"]


def test_damaged_chunks_of_a_zarr_are_named(api: httpx.Client, tmp_path: Path) -> None:
    folder = write_zarr(tmp_path / "z", grey(1))
    chunk = next(path for path in (folder / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:40])
    assert "damaged" in wrong(upload(api, {"a.zip": zipped(folder)}))["images/a.zip"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (png(mask(40, 57)), "40 x 57 px"),
        (tiff(mask().astype(np.float32) / 2), "0.5"),
        (COLOUR, "is a colour picture"),
        (b"no mask", "is of no format that is read"),
        (tiff(np.stack([mask(), mask()])), "holds more masks than its image has sections"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(api: httpx.Client, data: bytes, said: str) -> None:
    errors = wrong(upload(api, {"a.png": png(grey(1))}, {"a.png": data}))
    assert list(errors) == ["masks/a.png"]
    assert said in errors["masks/a.png"]


@pytest.mark.parametrize(
    ("data", "said", "mending"),
    [
        (png(mask() * 5), "5 (10 px)", '{"0": "background", "5": "organelle"}'),
        (
            tiff(mask().astype(np.int16) * -3),
            "-3 (10 px)",
            '{"-3": "background", "0": "organelle"}',
        ),
        (tiff(mask().astype(np.float32) * 7), "7 (10 px)", '{"0": "background", "7": "organelle"}'),
        (png(grey(1)), ", ...", "256 values"),
    ],
)
def test_values_of_no_class_are_counted_with_a_way_to_mend_them(
    api: httpx.Client, data: bytes, said: str, mending: str
) -> None:
    errors = wrong(upload(api, {"a.png": png(grey(1))}, {"a.png": data}))
    tells(errors, {"masks/a.png": [said], "mask_values": [mending]})


def test_every_offending_file_is_named_at_once(api: httpx.Client) -> None:
    same = png(grey(1))
    body = problem(
        upload(
            api,
            {
                "a.png": same,
                "b.png": same,
                "c.tif": tiff(grey(2, dtype="uint16")),
                "d.png": b"broken",
                "e.tif": tiff(grey(3).astype(np.float64)),
                "f.png": png(grey(4)),
                "f.tif": tiff(grey(5)),
                "g.png": png(grey(6)),
            },
            {
                "b.png": png(mask() * 9),
                "g.png": png(mask(8, 8)),
                "nobody.png": png(mask()),
            },
        ),
        422,
    )
    reasons = [
        ("images/f.tif", "same name"),
        ("masks/nobody.png", "no image"),
        ("masks/b.png", "9 (10 px)"),
        ("images/c.tif", "uint16"),
        ("images/d.png", "PNG"),
        ("images/e.tif", "float64"),
        ("masks/g.png", "8 x 8 px"),
        ("mask_values", "9"),
    ]
    for error, (where, reason) in zip(body["errors"], reasons, strict=True):
        assert error["where"] == where
        assert reason in error["message"]
    assert body["code"] == "invalid_request"
    assert body["detail"].startswith("8 ")
    assert "images/f.tif" in body["detail"]


def test_the_section_of_a_stack_is_named(api: httpx.Client) -> None:
    stack = np.stack([grey(1), grey(2), grey(3)])
    masks = np.stack([mask(), mask() * 7, mask() * 8])
    errors = wrong(upload(api, {"a.tif": tiff(stack)}, {"a.tif": tiff(masks)}))
    tells(
        errors,
        {
            "masks/a.tif": ("a/0001", "7 (10 px)"),
            "mask_values": ("7 (10 px)", "8 (10 px)"),
        },
    )
    few = wrong(upload(api, {"a.tif": tiff(stack[:2])}, {"a.tif": tiff(masks[:1])}))
    tells(few, {"masks/a.tif": ("a/0001", "fewer")})


@pytest.mark.parametrize(
    ("metadata", "where", "said"),
    [
        ({"name": ""}, "body.name", "at least 1 character"),
        ({"name": "a\0b"}, "body.name", "holds a control character"),
        ({"name": "a\x7f"}, "body.name", "holds a control character"),
        ({"name": "a\x9b31m"}, "body.name", "holds a control character"),
        ({"name": "a\u202egnp"}, "body.name", "holds a control character"),
        ({"class_names": ["x", "y\u2066"]}, "body.class_names.1", "holds a control character"),
        ({"class_names": ["one"]}, "body.class_names", "at least 2 items"),
        ({"class_names": ["x", "x\0"]}, "body.class_names.1", "holds a control character"),
        ({"class_names": ["x", "x"]}, "body", "class_names holds a name twice"),
        ({"pixel_size_nm": 0}, "body.pixel_size_nm", "greater than or equal to 0.001"),
        ({"pixel_size_nm": "1e999"}, "body.pixel_size_nm", "less than or equal to 1000000"),
        ({"tile_px": 15}, "body.tile_px", "greater than or equal to 16"),
        ({"ignore_value": 1}, "body", "ignore_value 1 is also the id of a class"),
        ({"intensity_window": [5, 5]}, "body", "[5, 5]"),
        ({"intensity_window": [0, "inf"]}, "body.intensity_window.1", "less than or equal"),
        ({"splits": {"train": ["b"]}}, "splits", "train lists 'b'"),
        ({"splits": {"train": ["a"], "val": ["a"]}}, "body.splits", "listed in train and in val"),
        ({"splits": {"holdout": []}}, "body.splits.holdout", "not permitted"),
        ({"groups": {"g": ["b"]}}, "groups", "'g' lists 'b'"),
        ({"groups": {"g": ["a", "a"]}}, "groups", "'a' is listed in group 'g'"),
        ({"groups": {}}, "groups", "'a' is in no group"),
        ({"groups": {"g": []}}, "body.groups.g", "at least 1 item"),
        ({"groups": {"g\n": ["a"]}}, "body.groups.g\n.[key]", "control character"),
        ({"colour": "red"}, "body.colour", "not permitted"),
        ({"folder": "cells"}, "body.folder", "remove"),
    ],
)
def test_wrong_metadata_names_the_field(
    api: httpx.Client, metadata: dict[str, object], where: str, said: str
) -> None:
    errors = wrong(upload(api, {"a.png": png(grey(1))}, **metadata))
    assert list(errors) == [where]
    assert said in errors[where]


def test_a_16_bit_dataset_of_one_grey_value_needs_a_window(api: httpx.Client) -> None:
    flat = tiff(np.full((16, 16), 700, np.uint16))
    assert "700" in wrong(upload(api, {"a.tif": flat}))["intensity_window"]
    registered(upload(api, {"a.tif": flat}, intensity_window=[0, 1000]))


def test_forms_that_lack_or_misuse_a_part(api: httpx.Client) -> None:
    files = [("images", ("a.png", png(grey(1))))]
    assert "text field" in wrong(api.post("/datasets", files=files))["body.metadata"]
    as_file = [*files, ("metadata", ("m.json", json.dumps(METADATA).encode()))]
    assert "text field" in wrong(api.post("/datasets", files=as_file))["body.metadata"]
    not_json = api.post("/datasets", data={"metadata": "{"}, files=files)
    assert "Invalid JSON" in wrong(not_json)["body"]
    a_mask = [("masks", ("a.png", png(mask())))]
    text = api.post(
        "/datasets", data={"metadata": json.dumps(METADATA), "images": "x"}, files=a_mask
    )
    tells(wrong(text), {"body.images": ("'images'", "file")})
    none = api.post("/datasets", data={"metadata": json.dumps(METADATA)}, files=a_mask)
    tells(wrong(none), {"images": ("no image",), "masks/a.png": ("no image",)})


def test_names_that_cannot_be_stored_are_refused(api: httpx.Client, folder: Folder) -> None:
    head = '--x\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
    part = '--x\r\nContent-Disposition: form-data; name="images"; filename="a\0b.png"\r\n\r\n'
    body = f"{head}{json.dumps(METADATA)}\r\n{part}".encode() + png(grey(1)) + b"\r\n--x--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=x"}
    uploaded = wrong(api.post("/datasets", content=body, headers=headers))
    tells(uploaded, {r"'images/a\x00b.png'": ("name",)})
    for name in ("a\x9b.png", "a\u202egnp.png", "a\x7f.png"):
        tells(wrong(upload(api, {name: png(grey(1))})), {repr(f"images/{name}"): ("name",)})
    (Path(os.fsdecode(os.fsencode(folder.path) + b"/images/\xff.png"))).write_bytes(png(grey(1)))
    assert list(wrong(folder.register(api))) == [r"'images/\udcff.png'"]


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "text/csv"}, b"a,b", 415),
        ({}, b"a,b", 415),
        ({"content-type": "multipart/form-data"}, b"x", 400),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--y\r\nnonsense", 400),
        ({"content-type": "application/json"}, b"\xff\xfe{", 422),
        ({"content-type": "application/json"}, b"[" * 100_000, 422),
        ({"content-type": "application/json"}, b'{"\\ud800": 1}', 422),
        ({"content-type": "application/json"}, b"[]", 422),
    ],
)
def test_bodies_of_another_kind(
    api: httpx.Client, headers: dict[str, str], content: bytes, status: int
) -> None:
    problem(api.post("/datasets", content=content, headers=headers), status)


def test_an_upload_past_the_limit_is_refused_before_and_while_it_is_read(
    settings: Settings, serve: Serve
) -> None:
    api = serve(settings.model_copy(update={"max_upload_bytes": 2000}))
    declared = problem(upload(api, {"a.png": png(grey(1))}), 413)
    assert "2000 bytes" in declared["detail"]
    assert declared["code"] == "too_large"
    headers = {"content-type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    chunked = api.post("/datasets", content=iter([part, bytes(1500), bytes(1500)]), headers=headers)
    assert problem(chunked, 413) == declared
    registered(upload(api, {"a.png": png(grey(1, 16, 16))}))


def test_too_many_tiles(api: httpx.Client) -> None:
    wide = zarr_metadata([16, 16_000_016], [16, 1_000_000], stored=True)
    errors = wrong(upload(api, {"a.zip": wide}, tile_px=16))
    tells(errors, {"tile_px": ("1000000", "larger")})


# Folders


def test_folders_outside_the_data_roots(
    api: httpx.Client, folder: Folder, tmp_path: Path, settings: Settings
) -> None:
    folder.image("a.png", png(grey(1)))
    outside = Folder(tmp_path / "outside")
    outside.image("a.png", png(grey(1)))
    root = settings.data_roots[0]
    (root / "link").symlink_to(outside.path)
    (root / "loop").symlink_to(root / "loop")
    (root / "file").write_bytes(b"")
    for name in (
        "../outside",
        "cells/../../outside",
        str(outside.path),
        "link",
        "link/images",
        "loop",
        "file",
        "missing",
        "x" * 5000,
        "a\0b",
    ):
        assert list(wrong(folder.register(api, folder=name))) == ["body.folder"], name
    registered(folder.register(api, folder=str(folder.path)))


def test_links_out_of_the_folder(api: httpx.Client, folder: Folder, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(grey(1)))
    image = folder.path / "images" / "a.png"
    for target in (secret, Path("/nowhere.png"), image):
        image.symlink_to(target)
        tells(wrong(folder.register(api)), {"body.folder": ("images/a.png", "link")})
        image.unlink()


def test_a_link_whose_name_is_no_text_is_still_answered(api: httpx.Client, folder: Folder) -> None:
    os.symlink("/nowhere", os.fsencode(folder.path) + b"/images/\xff.png")
    refused = folder.register(api)
    assert refused.status_code == 422
    assert b"images/\\udcff.png is a link" in refused.content


def test_links_out_of_a_zarr_folder(api: httpx.Client, folder: Folder, tmp_path: Path) -> None:
    array = write_zarr(folder.path / "images" / "a.zarr", grey(1), compressors=None)
    chunk = array / "c" / "0" / "0"
    secret = tmp_path / "secret"
    chunk.rename(secret)
    chunk.symlink_to(secret)
    tells(wrong(folder.register(api)), {"images/a.zarr": ("images/a.zarr/c/0/0", "link")})


@pytest.mark.parametrize(
    "level", ["images", "masks", "images/a.png", "images.zarr", "raw", "b.png"]
)
def test_a_link_at_any_level_leads_to_nothing_outside(
    api: httpx.Client, settings: Settings, tmp_path: Path, level: str
) -> None:
    """Not even the names of files outside are told."""
    outside = tmp_path / "outside"
    secret = Folder(outside)
    secret.image("secret.png", png(grey(1)))
    secret.mask("secret.png", png(mask()))
    write_zarr(outside / "images.zarr", grey(2))
    target = {"images/a.png": "images/secret.png", "b.png": "images/secret.png", "raw": "images"}
    inside = settings.data_roots[0] / "cells"
    (inside / "images").mkdir(parents=True)
    if level != "b.png":
        (inside / "images" / "b.png").write_bytes(png(grey(3)))
    link = inside / level
    if link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(outside / target.get(level, level))
    response = api.post("/datasets", json=METADATA | {"folder": "cells"})
    assert response.status_code == 422, response.text
    assert "leads out" in response.text
    assert "secret" not in response.text


def test_what_may_not_be_read_is_told_before_the_work(anybody: Path) -> None:
    folder = Folder(anybody / "cells")
    folder.image("a.png", png(grey(1)))
    settings = Settings(data_roots=(anybody,))
    assert len(folder_files(settings, "cells").images) == 1
    for path in (folder.path / "images" / "a.png", folder.path / "images", folder.path):
        path.chmod(0)
        with pytest.raises(Invalid, match="permission"):
            folder_files(settings, "cells")
        path.chmod(0o700)


def test_a_pipe_is_no_image(api: httpx.Client, folder: Folder) -> None:
    os.mkfifo(folder.path / "images" / "a.png")
    tells(wrong(folder.register(api)), {"body.folder": ("images/a.png", "file")})


def test_folder_without_images_and_folder_that_is_not_named(
    api: httpx.Client, folder: Folder
) -> None:
    assert "'cells'" in wrong(folder.register(api))["body.folder"]
    assert "multipart/form-data" in wrong(folder.register(api, folder=None))["body.folder"]


def test_no_folder_is_read_where_no_data_root_is_configured(
    settings: Settings, serve: Serve, folder: Folder
) -> None:
    folder.image("a.png", png(grey(1)))
    api = serve(settings.model_copy(update={"data_roots": ()}))
    assert "STYLEFILTER_DATA_ROOTS" in wrong(folder.register(api))["body.folder"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.processes
def test_a_full_disk_keeps_nothing(settings: Settings, serve: Serve, small_disk: Path) -> None:
    api = serve(settings.model_copy(update={"data_folder": small_disk}))
    response = upload(api, {"a.png": png(grey(1, 1500, 1500))})
    assert problem(response, 507)["code"] == "disk_full"
    assert list((small_disk / "incoming").iterdir()) == []
    assert api.get("/datasets").json()["items"] == []
    kept = registered(upload(api, {"a.png": png(grey(1))}))
    assert api.delete(f"/datasets/{kept['id']}").status_code == 204


@pytest.mark.processes
def test_a_temporary_disk_that_is_full_is_told_of(
    api: httpx.Client, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    large = png(grey(1, 1500, 1500))
    predicted = api.post("/predict", files={"image": large})
    assert problem(predicted, 507)["code"] == "disk_full"
    registered(upload(api, {"a.png": large}))  # it goes to the data folder


@contextmanager
def _descriptors(free: int) -> Iterator[None]:
    """So many file descriptors are left to this process, which serves the API too."""
    with ExitStack() as opened:
        for _ in range(80):
            opened.enter_context(open(os.devnull, "rb"))
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + free, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_files_of_an_upload_are_open_one_at_a_time(api: httpx.Client) -> None:
    images = {f"{n}.png": bytes((1 << 20) + 1) for n in range(40)}
    with _descriptors(free=20):
        refused = wrong(upload(api, images))
    assert refused.keys() == {f"images/{n}.png" for n in range(40)}


def test_more_files_than_one_upload_may_have(api: httpx.Client) -> None:
    refused = problem(upload(api, {f"{n}.png": b"x" for n in range(MOST_FILES + 1)}), 413)
    assert refused["code"] == "too_large"
    assert f"{MOST_FILES} files" in refused["detail"]
