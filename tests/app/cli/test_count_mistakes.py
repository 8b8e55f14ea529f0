"""`stylefilter count-mistakes`, against the running service and a network that predicts one class.

Its answers are counted by hand: the network predicts `organelle` for every pixel.
"""

import re
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from app.cli.count_mistakes import Mistakes, count
from app.cli.main import cli
from app.client.client import Client
from app.database import Database
from app.datasets.schemas import DatasetCreate, ImageRead
from app.labels.schemas import ImageLabels, LabelsRead, LabelsUpdate
from app.settings import Settings
from models.checkpoint import save_segmenter
from models.data.labels import LabelState
from models.metadata import DomainMeta, ModelMeta
from models.networks.unet import UNet
from tests.app.files import METADATA, grey, png
from tests.app.records import SMOKE, add_job, add_model

PRESENT, ABSENT, UNKNOWN = LabelState.PRESENT, LabelState.ABSENT, LabelState.UNKNOWN
NAMES = ("background", "organelle")


def tile(n: int, x0: int, split: str = "train") -> ImageRead:
    place = {"y0": 0, "x0": x0, "height": 2, "width": 2, "class_pixels": None}
    return ImageRead.model_validate({"n": n, "section": "s", "split": split, **place})


def labels(n: int, **classes: LabelState) -> LabelsRead:
    return LabelsRead(image=n, section="s", tile=n, classes=classes)


def test_each_tile_is_counted_by_its_own_part_of_the_mask() -> None:
    mask = np.array([[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.uint8)
    tiles = [
        (tile(0, 0), labels(0, background=PRESENT, organelle=PRESENT)),
        (tile(1, 2), labels(1, background=UNKNOWN, organelle=ABSENT)),
        (tile(2, 4, "val"), labels(2, background=ABSENT, organelle=ABSENT)),
    ]
    counted: dict[tuple[str, str], Mistakes] = {}
    count(counted, tiles, mask, NAMES, min_pixels=1)
    assert counted == {
        ("train", "background"): Mistakes(present=1),
        ("train", "organelle"): Mistakes(absent=1, false_alarms=1, present=1, misses=1),
        ("val", "background"): Mistakes(absent=1, false_alarms=1),
        ("val", "organelle"): Mistakes(absent=1),
    }
    counted.clear()
    count(counted, tiles, mask, NAMES, min_pixels=2)
    assert counted["train", "organelle"] == Mistakes(absent=1, present=1, misses=1)


@pytest.fixture
def dataset(api: httpx.Client, tmp_path: Path) -> UUID:
    """A dataset of two sections of 40 x 56 pixels, each cut into tiles; no tile has a label."""
    (tmp_path / "images").mkdir()
    files = [tmp_path / "images" / f"{name}.png" for name in ("a", "b")]
    for seed, file in enumerate(files):
        file.write_bytes(png(grey(seed)))
    with Client(str(api.base_url)) as client:
        return client.upload_dataset(DatasetCreate(**METADATA, tile_px=28), files).id


@pytest.fixture
def model(database: Database, settings: Settings, dataset: UUID) -> UUID:
    """A segmenter that predicts class 1, organelle, for every pixel."""
    segmenter = UNet(2, SMOKE.segmenter).eval()
    *_, last = (layer for layer in segmenter.modules() if isinstance(layer, torch.nn.Conv2d))
    assert last.bias is not None
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.0, 1.0])
    source = DomainMeta(name="cells", pixel_size_nm=4.0, intensity_window=(0.0, 255.0))
    meta = ModelMeta(
        kind="segmenter",
        config=SMOKE,
        class_names=NAMES,
        working_nm=4.0,
        source=source,
        target=None,
    )
    job = add_job(database, str(dataset))
    save_segmenter(
        settings.data_folder / "jobs" / str(job) / "1" / "segmenter", segmenter, meta, {}
    )
    return add_model(database, job, str(dataset))


def run(api: httpx.Client, *arguments: object) -> tuple[int, str]:
    words = ["count-mistakes", *map(str, arguments), "--no-stylise", "--url", str(api.base_url)]
    result = CliRunner().invoke(cli, words, env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_labels_are_compared_with_the_predictions_of_whole_sections(
    api: httpx.Client, dataset: UUID, model: UUID, tmp_path: Path
) -> None:
    given = [
        ImageLabels(image=0, classes={"organelle": ABSENT, "background": PRESENT}),
        ImageLabels(image=1, classes={"organelle": PRESENT}),
        ImageLabels(section="b", tile=3, classes={"organelle": ABSENT, "background": ABSENT}),
    ]
    with Client(str(api.base_url)) as client:
        client.put_labels(dataset, LabelsUpdate(labels=given))
    code, shown = run(api, dataset, model, tmp_path / "images")
    rows = [re.findall(r"\w+", line) for line in shown.splitlines() if "train" in line]
    assert code == 0
    assert rows == [
        ["train", "background", "1", "0", "1", "1"],
        ["train", "organelle", "2", "2", "1", "0"],
    ]


def test_what_is_missing_is_named(
    api: httpx.Client, dataset: UUID, model: UUID, tmp_path: Path
) -> None:
    code, shown = run(api, dataset, model, tmp_path / "images")
    assert (code, str(dataset) in " ".join(shown.split())) == (2, True)
    with Client(str(api.base_url)) as client:
        one = ImageLabels(section="b", tile=0, classes={"organelle": ABSENT})
        client.put_labels(dataset, LabelsUpdate(labels=[one]))
    (tmp_path / "images" / "b.tif").write_bytes(b"")
    code, shown = run(api, dataset, model, tmp_path / "images")
    assert (code, "2 files" in shown, "'b'" in shown) == (2, True, True)
    (tmp_path / "images" / "b.tif").unlink()
    (tmp_path / "images" / "b.png").unlink()
    code, shown = run(api, dataset, model, tmp_path / "images")
    assert (code, "'b'" in shown) == (2, True)
