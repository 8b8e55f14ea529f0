"""POST /datasets: what is registered, from folders and uploads, of every format."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import Uuid, column, select, table, update

from app.columns import Json
from app.database import Database
from app.datasets.domains import load_domain
from app.settings import Settings
from app.storage import Storage
from tests.app.files import (
    METADATA,
    Folder,
    encoded,
    grey,
    mask,
    pixels,
    png,
    registered,
    tiff,
    upload,
    write_zarr,
    wrong,
    zipped,
)

TRAINING = {"split": "train", "group": None, "pixel_size_nm": None, "intensity_window": None}


def test_upload_is_reported_in_full(api: httpx.Client) -> None:
    response = upload(
        api, {"b.png": png(grey(1)), "a.tif": tiff(grey(2, 24, 30))}, {"b.png": png(mask())}
    )
    report = registered(response)
    assert response.headers["location"] == f"/datasets/{report['id']}"
    expected = METADATA | {
        "tile_px": None,
        "dtype": "uint8",
        "intensity_window": [1.0, 255.0],
        "num_sections": 2,
        "num_masks": 1,
        "num_images": 2,
        "num_bytes": 2 * 40 * 56 + 24 * 30,
        "sections": [
            TRAINING | {"name": "a", "height": 24, "width": 30, "has_mask": False},
            TRAINING | {"name": "b", "height": 40, "width": 56, "has_mask": True},
        ],
        "class_pixels": {"background": 2230, "organelle": 10},
    }
    assert {name: report[name] for name in expected} == expected
    assert api.get(response.headers["location"]).json() == report


def test_folder_and_upload_of_the_same_files_have_the_same_digest(
    api: httpx.Client, folder: Folder
) -> None:
    files = {f"{n}.png": png(grey(n)) for n in range(3)}
    for name, data in files.items():
        folder.image(name, data)
    folder.mask("1.tif", tiff(mask()))
    from_folder = registered(folder.register(api))
    uploaded = registered(upload(api, files, {"1.png": png(mask())}, name="another name"))
    assert from_folder["digest"] == uploaded["digest"]
    assert [s["has_mask"] for s in from_folder["sections"]] == [False, True, False]


def test_digest_changes_with_one_pixel_of_image_or_mask_and_with_metadata(
    api: httpx.Client,
) -> None:
    image, labels = grey(1), mask()
    other_image, other_labels = image.copy(), labels.copy()
    other_image[39, 55] ^= 1
    other_labels[39, 55] = 1
    digests = {
        registered(upload(api, {"a.png": png(i)}, {"a.png": png(m)}, **metadata))["digest"]
        for i, m, metadata in [
            (image, labels, {}),
            (image, labels, {"name": "another name"}),
            (other_image, labels, {}),
            (image, other_labels, {}),
            (image, labels, {"pixel_size_nm": 4.5}),
            (image, labels, {"tile_px": 16}),
        ]
    }
    assert len(digests) == 5


FORMATS = {
    "png8": ("a.png", lambda _: png(grey(1))),
    "png16": ("a.PNG", lambda _: png(grey(1, dtype="uint16"))),
    "tiff16_big_endian": ("a.tiff", lambda _: tiff(grey(1, dtype="uint16"), byteorder=">")),
    "tiff_deflate_tiled": ("a.tif", lambda _: tiff(grey(1), compression="zlib", tile=(16, 16))),
    "bigtiff": ("a.TIF", lambda _: tiff(grey(1), bigtiff=True)),
    "zarr": ("a.zarr.zip", lambda tmp: zipped(write_zarr(tmp / "z", grey(1)))),
    "zarr2": ("a.zip", lambda tmp: zipped(write_zarr(tmp / "z", grey(1), zarr_format=2))),
    "zarr16_big_endian": (
        "a.zip",
        lambda tmp: zipped(write_zarr(tmp / "z", grey(1, dtype="uint16").astype(">u2"))),
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_back_the_same_pixels(
    api: httpx.Client, tmp_path: Path, name: str
) -> None:
    file_name, make = FORMATS[name]
    report = registered(upload(api, {file_name: make(tmp_path)}))
    expected = grey(1, dtype=report["dtype"])
    assert report["dtype"] == ("uint16" if "16" in name else "uint8")
    assert report["sections"][0]["name"] == "a"
    preview = api.get(f"/datasets/{report['id']}/images/0")
    assert preview.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(pixels(preview.content), expected)


def test_byte_order_does_not_change_the_digest(api: httpx.Client) -> None:
    image = grey(1, dtype="uint16")
    reports = [
        registered(upload(api, {"a.tif": tiff(image, byteorder=order)}, name=order))
        for order in ("<", ">")
    ]
    assert reports[0]["digest"] == reports[1]["digest"]


def test_stacks_are_numbered_sections_with_masks_in_step(api: httpx.Client, folder: Folder) -> None:
    stack = np.stack([grey(n) for n in range(3)])
    masks = np.stack([mask(organelle=n) for n in range(3)])
    folder.image("pages.tif", tiff(stack))
    folder.mask("pages.tif", tiff(masks))
    write_zarr(folder.path / "images" / "volume.zarr", stack[:2] ^ 1, chunks=(2, 16, 16))
    report = registered(folder.register(api))
    assert [s["name"] for s in report["sections"]] == [
        "pages/0000",
        "pages/0001",
        "pages/0002",
        "volume/0000",
        "volume/0001",
    ]
    assert report["num_masks"] == 3
    assert report["class_pixels"] == {"background": 3 * 2240 - 3, "organelle": 3}
    last = api.get(f"/datasets/{report['id']}/images/4").content
    np.testing.assert_array_equal(pixels(last), stack[1] ^ 1)


def test_a_folder_may_hold_one_zarr_of_images_and_one_of_masks(
    api: httpx.Client, settings: Settings
) -> None:
    root = settings.data_roots[0] / "volume"
    write_zarr(root / "images.zarr", np.stack([grey(n) for n in range(6)]))
    write_zarr(root / "masks.zarr", np.stack([mask()] * 6))
    report = registered(api.post("/datasets", json=METADATA | {"folder": "volume"}))
    assert [s["name"] for s in report["sections"]][::5] == ["stack/0000", "stack/0005"]
    assert report["num_masks"] == 6


def test_tiles_cover_sections_whose_size_the_tile_does_not_divide(api: httpx.Client) -> None:
    labels = mask(organelle=17)
    report = registered(upload(api, {"a.png": png(grey(1))}, {"a.png": png(labels)}, tile_px=24))
    assert report["num_images"] == 6
    images = api.get(f"/datasets/{report['id']}/images").json()["items"]
    assert [(i["y0"], i["x0"], i["height"], i["width"]) for i in images] == [
        (0, 0, 24, 24),
        (0, 24, 24, 24),
        (0, 48, 24, 8),
        (24, 0, 16, 24),
        (24, 24, 16, 24),
        (24, 48, 16, 8),
    ]
    assert {i["section"] for i in images} == {"a"}
    assert images[0]["class_pixels"] == {"background": 24 * 24 - 17, "organelle": 17}
    assert images[1]["class_pixels"] == {"background": 24 * 24, "organelle": 0}


def test_sections_are_split_in_blocks_by_default_and_by_name_on_request(
    api: httpx.Client,
) -> None:
    images = {f"{n:02}.png": png(grey(n, 16, 16)) for n in range(10)}
    masks = {name: png(mask(16, 16)) for name in images}
    blocks = registered(upload(api, images, masks))
    assert [s["split"] for s in blocks["sections"]] == (
        ["train"] * 4 + ["unused"] + ["val"] * 2 + ["unused"] + ["test"] * 2
    )
    unlabelled = registered(upload(api, images))
    assert {s["split"] for s in unlabelled["sections"]} == {"train"}
    wanted = {"train": ["09", "00"], "val": ["05"], "test": []}
    named = registered(upload(api, images, masks, splits=wanted))
    splits = {s["name"]: s["split"] for s in named["sections"] if s["split"] != "unused"}
    assert splits == {"09": "train", "00": "train", "05": "val"}


def test_groups_are_kept_with_the_sections(
    api: httpx.Client, database: Database, settings: Settings
) -> None:
    images = {f"{n}.png": png(grey(n)) for n in range(3)}
    groups = {"crop 7": ["2", "0"], "crop 9": ["1"]}
    report = registered(upload(api, images, groups=groups))
    kept = {section["name"]: section["group"] for section in report["sections"]}
    assert kept == {"0": "crop 7", "1": "crop 9", "2": "crop 7"}
    assert api.get(f"/datasets/{report['id']}").json()["sections"] == report["sections"]
    plain = registered(upload(api, images))
    assert {section["group"] for section in plain["sections"]} == {None}
    assert plain["digest"] != report["digest"]
    with database.session() as session:
        domain = load_domain(session, Storage(settings.data_folder), UUID(report["id"]))
        assert [section.group for section in domain.sections] == ["crop 7", "crop 9", "crop 7"]


def test_no_group_is_in_two_splits_by_default(api: httpx.Client) -> None:
    names = [f"{n}" for n in range(6)]
    images = {f"{name}.png": png(grey(n)) for n, name in enumerate(names)}
    masks = {f"{name}.png": png(mask()) for name in names}
    groups = {f"crop {n}": names[n::3] for n in range(3)}
    report = registered(upload(api, images, masks, groups=groups))
    split_of = {section["name"]: section["split"] for section in report["sections"]}
    of_groups = [{split_of[name] for name in members} for members in groups.values()]
    assert sorted(of_groups, key=min) == [{"test"}, {"train"}, {"val"}]
    two = registered(upload(api, images, masks, groups={"a": names[:3], "b": names[3:]}))
    assert {section["split"] for section in two["sections"]} == {"train"}


def test_sections_stored_by_other_versions_are_read(
    api: httpx.Client, database: Database, settings: Settings
) -> None:
    report = registered(upload(api, {"a.png": png(grey(1))}))
    dataset_id = UUID(report["id"])
    stored = column("sections", Json)
    rows = table("datasets", column("id", Uuid()), stored)
    with database.session() as session:
        (section,) = session.scalars(select(stored).where(rows.c.id == dataset_id)).one()
        section.pop("group", None)  # of before there were groups
        section["unheard of"] = 1
        session.execute(update(rows).where(rows.c.id == dataset_id).values(sections=[section]))
        session.commit()
        domain = load_domain(session, Storage(settings.data_folder), dataset_id)
        assert [section.group for section in domain.sections] == [None]
    assert api.get(f"/datasets/{report['id']}").json() == report


def test_intensity_window_is_by_percentiles_unless_named(api: httpx.Client) -> None:
    ramp = (np.arange(10_000, dtype=np.uint16) + 500).reshape(100, 100)
    report = registered(upload(api, {"a.tif": tiff(ramp)}))
    assert report["intensity_window"] == [549.0, 10449.0]  # values 50 and 9950 of the ramp
    eight_bit = np.repeat(np.arange(200, dtype=np.uint8), 50).reshape(100, 100)
    report = registered(upload(api, {"a.png": png(eight_bit)}))
    assert report["intensity_window"] == [0.0, 198.0]
    named = registered(upload(api, {"a.tif": tiff(ramp)}, intensity_window=[100, 20000]))
    assert named["intensity_window"] == [100.0, 20000.0]


def test_ignored_mask_pixels_count_for_no_class(api: httpx.Client) -> None:
    labels = mask().astype(np.uint16)
    labels[1:] = 999
    report = registered(
        upload(api, {"a.png": png(grey(1))}, {"a.tif": tiff(labels)}, ignore_value=999)
    )
    assert report["class_pixels"] == {"background": 46, "organelle": 10}
    layer = api.get(f"/datasets/{report['id']}/images/0", params={"layer": "masks"}).content
    assert set(np.unique(pixels(layer))) == {0, 1, 255}


def test_masks_may_be_palette_or_binary_pictures(api: httpx.Client) -> None:
    labels = mask()
    palette = Image.fromarray(labels, "L").convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    for name, picture in (("p", palette), ("b", Image.fromarray(labels.astype(bool)))):
        data = encoded(picture)
        report = registered(upload(api, {"a.png": png(grey(1))}, {"a.png": data}, name=name))
        assert report["class_pixels"] == {"background": 2230, "organelle": 10}


def test_what_systems_leave_in_a_folder_is_passed_over(api: httpx.Client, folder: Folder) -> None:
    folder.image("a.png", png(grey(1)))
    for name in ("._a.png", ".DS_Store"):
        folder.image(name, b"\0\5\26\7")
    assert [s["name"] for s in registered(folder.register(api))["sections"]] == ["a"]
    folder.image("b.jpg", b"\xff\xd8\xff\xe0")
    assert "PNG" in wrong(folder.register(api))["images/b.jpg"]


def test_names_beyond_ascii_are_kept(api: httpx.Client) -> None:
    report = registered(upload(api, {"Zelle µ 1.png": png(grey(1))}, name="Zürich, 4 µm"))
    assert report["name"] == "Zürich, 4 µm"
    assert report["sections"][0]["name"] == "Zelle µ 1"


def test_uploads_are_in_natural_order_without_what_systems_leave(api: httpx.Client) -> None:
    names = ["img_10", "img_2", "img_1"]
    images = {f"{name}.png": png(grey(n)) for n, name in enumerate(names)}
    masks = {f"{name}_seg.png": png(mask() * 255) for name in names}
    report = registered(upload(api, images | {"Thumbs.db": b"\xd0\xcf"}, masks))
    assert [section["name"] for section in report["sections"]] == ["img_1", "img_2", "img_10"]
    assert report["class_pixels"] == {"background": 3 * 2230, "organelle": 30}


def test_two_registrations_at_once_are_both_kept(api: httpx.Client, settings: Settings) -> None:
    def register(seed: int) -> str:
        files = {f"{n}.png": png(grey(10 * seed + n, 64, 64)) for n in range(4)}
        digest: str = registered(upload(api, files, tile_px=16))["digest"]
        return digest

    with ThreadPoolExecutor(4) as pool:
        digests = set(pool.map(register, range(6)))
    listed = api.get("/datasets").json()["items"]
    assert {d["digest"] for d in listed} == digests
    assert len(listed) == 6
    assert len(list((settings.data_folder / "datasets").iterdir())) == 6


def test_upload_needs_no_content_length(api: httpx.Client) -> None:
    whole = api.build_request(
        "POST",
        "/datasets",
        data={"metadata": json.dumps(METADATA)},
        files=[("images", ("a.png", png(grey(1))))],
    )
    headers = {"content-type": whole.headers["content-type"]}
    response = api.post("/datasets", content=iter([whole.read()]), headers=headers)
    assert registered(response)["num_sections"] == 1
