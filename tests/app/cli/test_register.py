"""`stylefilter datasets register` and `list`: a new user's ordinary files, as they are."""

import json
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from app.cli.main import cli
from app.settings import Settings
from tests.app.files import grey, mask, png, write_zarr

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def run(api: httpx.Client, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["datasets", *words, "--url", str(api.base_url)])
    return result.exit_code, result.output


def registered(api: httpx.Client, *words: str) -> tuple[dict, str]:
    """The dataset that a command registers, and what the command says."""
    code, said = run(api, "register", *words)
    assert code == 0, said
    dataset = UUID(said.split()[-1])
    return api.get(f"/datasets/{dataset}").json(), said


@pytest.fixture
def hers(tmp_path: Path) -> Path:
    """ImageJ TIFFs of 12 bits in 16, 4 nm in their tags, with a strip that has a scale bar."""
    folder = tmp_path / "my microscope"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, 12):
        field = rng.normal(2600, 250, (128, 138)).clip(1900, 3500).astype(np.uint16)
        strip = np.zeros((40, 138), np.uint16)
        strip[18:24, 12:62] = 4080
        tifffile.imwrite(
            folder / f"section {number}.tif",
            np.concatenate([field, strip]),
            imagej=True,
            resolution=(250.0, 250.0),
            metadata={"unit": "um"},
        )
    return folder


@pytest.fixture
def colleagues(tmp_path: Path) -> Path:
    """A folder of raw/ and labels/, whose masks hold 0, 128 and 255."""
    folder = tmp_path / "from Anna"
    for inner in ("raw", "labels"):
        (folder / inner).mkdir(parents=True)
    for number in range(6):
        ids = mask(64, 64, organelle=300 + number)
        ids[40:, 40:] = 2
        (folder / "raw" / f"c{number}.png").write_bytes(png(grey(number, 64, 64)))
        values = np.array([0, 128, 255], np.uint8)[ids]
        (folder / "labels" / f"c{number}.png").write_bytes(png(values))
    return folder


def test_imagej_files_with_a_scale_bar_are_registered_by_one_command(
    api: httpx.Client, hers: Path
) -> None:
    dataset, said = registered(api, str(hers), "--classes", "cytoplasm,Mito,PM", "--tile-px", "64")
    assert (dataset["pixel_size_nm"], dataset["pixel_size_from"]) == (4.0, "file")
    names = [section["name"] for section in dataset["sections"]]
    assert names == [f"section {number}" for number in range(1, 12)]
    low, high = dataset["intensity_window"]
    assert 1800 < low < 2200 < 3000 < high < 3600  # the tissue, without the strip
    # Rows 0 to 128 in tiles of 64 px; the strip below makes none.
    assert dataset["num_images"] == 11 * 2 * 3
    assert "scale bar" in said.replace("\n", " ")
    cropped, _ = registered(
        api, str(hers), "--classes", "cytoplasm,Mito,PM", "--crop", "0,0,128,138"
    )
    assert {section["height"] for section in cropped["sections"]} == {128}


def test_a_colleagues_folder_is_registered_by_one_command(
    api: httpx.Client, colleagues: Path
) -> None:
    values = ("0=cytosol", "128=mitochondrion", "255=membrane")
    dataset, _ = registered(
        api,
        str(colleagues),
        *("--classes", "cytosol,mitochondrion,membrane", "--pixel-size-nm", "5"),
        *(word for value in values for word in ("--mask-value", value)),
    )
    assert (dataset["name"], dataset["num_masks"]) == ("from Anna", 6)
    membrane = 6 * 24 * 24
    organelle = sum(300 + number for number in range(6))
    assert dataset["class_pixels"] == {
        "cytosol": 6 * 64 * 64 - membrane - organelle,
        "mitochondrion": organelle,
        "membrane": membrane,
    }
    code, listed = run(api, "list")
    assert (code, dataset["id"] in listed) == (0, True)


def test_meta_json_describes_a_folder_and_options_prevail(
    api: httpx.Client, colleagues: Path
) -> None:
    meta = {
        "name": "hers",
        "classes": ["a", "b", "c"],
        "pixel_size_nm": 5,
        "mask_values": {"0": "a", "128": "b", "255": "c"},
        "splits": {"train": [0, 1, 2], "test": [4, 5]},
        "remarks": "a field that nobody reads",
    }
    (colleagues / "meta.json").write_text(json.dumps(meta))
    dataset, _ = registered(api, str(colleagues), "--pixel-size-nm", "6")
    assert (dataset["name"], dataset["pixel_size_nm"]) == ("hers", 6)
    splits = [section["split"] for section in dataset["sections"]]
    assert splits == ["train", "train", "train", "unused", "test", "test"]


def test_zarr_folders_and_single_files_and_folders_of_the_service(
    api: httpx.Client, settings: Settings, tmp_path: Path
) -> None:
    volume = np.stack([grey(n) for n in range(3)])
    folder = settings.data_roots[0] / "cell"
    folder.mkdir()
    write_zarr(folder / "images.zarr", volume, chunks=(2, 16, 16))
    options = ("--classes", "rest,mitochondrion", "--pixel-size-nm", "4")
    digests = set()
    tifffile.imwrite(tmp_path / "v.tif", volume, photometric="minisblack")
    for words in ((str(folder),), (str(tmp_path / "v.tif"),), ("cell", "--on-service")):
        dataset, _ = registered(api, *words, *options)
        assert dataset["num_sections"] == 3
        digests.add(dataset["pixels_digest"])
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mask-value", "128"), "128=myelin"),
        (("--crop", "1,2"), "0,0,512,552"),
        (("--fields", "gone.json"), "gone.json"),
        ((), "class_names"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_sent(
    api: httpx.Client, hers: Path, words: tuple[str, ...], said: str
) -> None:
    code, output = run(api, "register", str(hers), *words)
    assert (code, said in output.replace("\n", "")) == (1, True)
    assert api.get("/datasets").json()["items"] == []


def test_a_folder_without_images_is_said(api: httpx.Client, tmp_path: Path) -> None:
    code, output = run(api, "register", str(tmp_path), "--classes", "a,b")
    assert (code, "holds no images" in output.replace("\n", " ")) == (1, True)
    code, output = run(api, "register", str(tmp_path / "gone"), "--classes", "a,b")
    assert (code, "gone" in output) == (1, True)
