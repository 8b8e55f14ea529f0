"""POST /predict with real, tiny, untrained networks."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest
import tifffile
import torch

from app.database import Database
from app.settings import Settings
from app.tables import ModelKind
from models.checkpoint import load_segmenter, save_generator, save_segmenter
from models.inference import Predictor, stylise
from models.metadata import DomainMeta, ModelMeta, ViewMeta
from models.networks.generator import Generator
from models.networks.unet import UNet
from tests.app.conftest import Serve
from tests.app.files import (
    grey,
    mask,
    pixels,
    png,
    problem,
    registered,
    tells,
    tiff,
    upload,
    wrong,
)
from tests.app.records import SMOKE, add_job, add_model

WINDOW = (0.0, 255.0)
CLASSES = ("background", "organelle")
IMAGE = grey(3, 41, 57)


@dataclass(frozen=True)
class Networks:
    """A generator and a segmenter that work at 4 nm, and the folder they are saved in."""

    generator: Generator
    segmenter: UNet
    folder: Path

    def predict(self, image: np.ndarray, pixel_size_nm: float, *, styled: bool) -> Any:
        style = partial(stylise, self.generator) if styled else None
        predictor = Predictor(self.segmenter, 4.0, SMOKE.pretrain.crop_px, style)
        return predictor.predict(image, pixel_size_nm, intensity_window=WINDOW, stylise=styled)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    generator = Generator(SMOKE.style.base_filters, SMOKE.style.num_blocks).eval()
    segmenter = UNet(2, SMOKE.segmenter).eval()
    for parameter in generator.parameters():
        parameter.data *= 20  # CUT's first weights are so small that all images come out grey
    _balance(segmenter)
    domain = DomainMeta(name="cells", pixel_size_nm=4.0, intensity_window=WINDOW)
    common = {"config": SMOKE, "class_names": CLASSES, "working_nm": 4.0, "source": domain}
    of_generator = ModelMeta(kind="generator", target=domain, **common)
    of_segmenter = ModelMeta(kind="segmenter", target=None, **common)
    save_generator(folder / "style", generator, of_generator, {})
    save_segmenter(folder / "segmenter", segmenter, of_segmenter, {})
    return Networks(generator, segmenter, folder)


def _balance(segmenter: UNet) -> None:
    """Shift the last bias so that an untrained network predicts both classes."""
    *_, last = (layer for layer in segmenter.modules() if isinstance(layer, torch.nn.Conv2d))
    with torch.no_grad():
        logits = segmenter(torch.from_numpy(IMAGE / np.float32(127.5) - 1)[None, None])[0]
        last.bias[1] -= (logits[1] - logits[0]).median()


@dataclass(frozen=True)
class World:
    """A source at 4 nm, a target at 3 nm, and the three models of an adaptation."""

    source: str
    target: str
    style: str
    segmenter: str
    adapted: str


@pytest.fixture
def world(api: httpx.Client, database: Database, settings: Settings, networks: Networks) -> World:
    source = registered(
        upload(api, {"s.png": png(grey(1))}, {"s.png": png(mask())}, intensity_window=WINDOW)
    )["id"]
    target = registered(
        upload(api, {"t.png": png(grey(2))}, pixel_size_nm=3.0, intensity_window=WINDOW)
    )["id"]
    job = add_job(database, source, target)
    folder = settings.data_folder / "jobs" / str(job) / "1"
    shutil.copytree(networks.folder, folder)
    shutil.copytree(networks.folder / "segmenter", folder / "adapted")
    made = {"target_id": UUID(target)}

    def model(kind: ModelKind, name: str, **columns: Any) -> UUID:
        path = str((folder / name).relative_to(settings.data_folder))
        return add_model(database, job, source, kind=kind, path=path, **columns)

    style = model(ModelKind.STYLE, "style", **made)
    segmenter = model(ModelKind.SEGMENTER, "segmenter")
    adapted = model(
        ModelKind.STYLEFILTER,
        "adapted",
        style_model_id=style,
        segmenter_model_id=segmenter,
        **made,
    )
    return World(source, target, str(style), str(segmenter), str(adapted))


def predict(
    api: httpx.Client, image: bytes = png(IMAGE), accept: str = "image/png", **fields: Any
) -> httpx.Response:
    return api.post(
        "/predict",
        data={name: str(value) for name, value in fields.items()},
        files={"image": ("image", image)},
        headers={"accept": accept},
    )


def test_png_tiff_and_npz_hold_the_prediction_of_the_networks(
    api: httpx.Client, world: World, networks: Networks
) -> None:
    expected = networks.predict(IMAGE, 3.0, styled=True)
    answers = {
        kind: predict(api, accept=kind, model=world.adapted)
        for kind in ("image/png", "image/tiff", "application/x-npz")
    }
    for kind, answer in answers.items():
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    archive = np.load(io.BytesIO(answers["application/x-npz"].content))
    masks = (
        pixels(answers["image/png"].content),
        tifffile.imread(io.BytesIO(answers["image/tiff"].content)),
        archive["mask"],
    )
    for found in masks:
        assert (found.dtype, found.shape) == (np.uint8, IMAGE.shape)
        np.testing.assert_array_equal(found, expected.mask)
    assert set(np.unique(expected.mask)) == {0, 1}
    assert archive["probabilities"].dtype == np.float16
    np.testing.assert_allclose(archive["probabilities"], expected.probabilities, atol=1e-3)
    assert archive["class_names"].tolist() == list(CLASSES)


def test_a_models_view_is_applied_to_every_image(
    api: httpx.Client, database: Database, settings: Settings, world: World, networks: Networks
) -> None:
    meta = load_segmenter(networks.folder / "segmenter", torch.device("cpu"))[1]
    inverted = meta.model_copy(update={"view": ViewMeta(name="inverted")})
    job = add_job(database, world.source, world.target)
    folder = settings.data_folder / "jobs" / str(job) / "1" / "chosen"
    save_segmenter(folder, networks.segmenter, inverted, {})
    path = str(folder.relative_to(settings.data_folder))
    model = add_model(database, job, world.source, kind=ModelKind.CHOSEN, path=path)
    expected = networks.predict(255 - IMAGE, 4.0, styled=False).mask
    # Nothing has to be said of styles, because the model has none.
    for fields in ({}, {"stylise": False}):
        answer = predict(api, model=model, **fields)
        assert answer.status_code == 200
        assert np.array_equal(pixels(answer.content), expected)
    assert not np.array_equal(expected, networks.predict(IMAGE, 4.0, styled=False).mask)


def test_style_and_pixel_size_come_from_the_model_unless_given(
    api: httpx.Client, world: World, networks: Networks
) -> None:
    raw = {"stylise": "false"}
    cases: list[tuple[dict[str, Any], float, bool]] = [
        ({"model": world.adapted}, 3.0, True),
        ({"model": world.adapted, "dataset": world.source}, 4.0, True),
        ({"model": world.adapted, "dataset": world.source, "pixel_size_nm": 8}, 8.0, True),
        ({"model": world.adapted} | raw, 3.0, False),
        ({"model": world.segmenter} | raw, 4.0, False),
        ({"model": world.segmenter}, 4.0, False),
        # With a style model of its own, the image is of that model's target.
        ({"model": world.segmenter, "style_model": world.style}, 3.0, True),
    ]
    found = set()
    for fields, pixel_size_nm, styled in cases:
        answer = predict(api, accept="application/x-npz", **fields)
        assert answer.status_code == 200, answer.text
        expected = networks.predict(IMAGE, pixel_size_nm, styled=styled)
        archive = np.load(io.BytesIO(answer.content))
        np.testing.assert_array_equal(archive["mask"], expected.mask)
        found.add(archive["probabilities"].tobytes())
    assert len(found) == 5  # only the first and the last are the same


def test_images_of_one_pixel_and_of_odd_sizes_keep_their_size(
    api: httpx.Client, world: World
) -> None:
    for shape in ((1, 1), (3, 100), (33, 2)):
        answer = predict(api, png(grey(1, *shape)), model=world.adapted)
        assert pixels(answer.content).shape == shape


def test_16_bit_images_are_read_through_the_window_of_their_dataset(
    api: httpx.Client, world: World
) -> None:
    deep = registered(
        upload(
            api,
            {"d.tif": tiff(grey(5, dtype="uint16"))},
            intensity_window=[1000, 1000 + 255 * 16],
            pixel_size_nm=3.0,
        )
    )["id"]
    image = IMAGE.astype(np.uint16) * 16 + 1000
    answer = predict(api, tiff(image, byteorder=">"), model=world.adapted, dataset=deep)
    assert answer.content == predict(api, model=world.adapted).content


def test_a_section_is_read_through_its_own_window_and_pixel_size(
    api: httpx.Client, world: World
) -> None:
    bright = (IMAGE.astype(np.uint16) * 16 + 1000).astype(np.uint16)
    dark = (bright // 2).astype(np.uint16)
    dataset = registered(
        upload(
            api,
            {"bright.tif": tiff(bright), "dark.tif": tiff(dark)},
            intensity_window_of="section",
            pixel_size_nm=3.0,
            pixel_sizes_nm={"dark": 4.0},
        )
    )["id"]

    def predicted(image: np.ndarray, **fields: Any) -> bytes:
        answer = predict(api, tiff(image), model=world.adapted, dataset=dataset, **fields)
        assert answer.status_code == 200, answer.text
        return answer.content

    # Each section by its own grey values: at one pixel size both look alike.
    first = predicted(bright, section="bright")
    assert predicted(dark, section="dark", pixel_size_nm=3.0) == first
    assert predicted(dark, pixel_size_nm=3.0) != first
    assert predicted(dark, section="dark") != first
    unknown = predict(api, tiff(dark), model=world.adapted, dataset=dataset, section="grey")
    tells(wrong(unknown), {"body.section": ("'grey'", dataset)})


def test_a_model_outlives_its_datasets(api: httpx.Client, world: World) -> None:
    before = predict(api, model=world.adapted).content
    for dataset in (world.source, world.target):
        assert api.delete(f"/datasets/{dataset}").status_code == 204
    assert predict(api, model=world.adapted).content == before
    gone = predict(api, model=world.adapted, dataset=world.target)
    assert f"dataset {world.target}" in problem(gone, 404)["detail"]


def test_models_that_cannot_do_it(api: httpx.Client, world: World) -> None:
    unknown = uuid4()
    assert f"model {unknown}" in problem(predict(api, model=unknown), 404)["detail"]
    problem(predict(api, model=world.adapted, style_model=unknown), 404)
    problem(predict(api, model=world.adapted, dataset=unknown), 404)
    tells(wrong(predict(api, model=world.style)), {"body.model": ("style",)})
    lacking = predict(api, model=world.segmenter, stylise=True)
    assert list(wrong(lacking)) == ["body.style_model"]
    no_style = wrong(predict(api, model=world.adapted, style_model=world.segmenter))
    tells(no_style, {"body.style_model": ("kind segmenter",)})


def test_fields_that_are_missing_wrong_or_unknown(api: httpx.Client, world: World) -> None:
    assert list(wrong(predict(api))) == ["body.model"]
    assert list(wrong(predict(api, model="1"))) == ["body.model"]
    assert list(wrong(predict(api, model=world.adapted, stylize="true"))) == ["body.stylize"]
    assert list(wrong(predict(api, model=world.adapted, stylise="perhaps"))) == ["body.stylise"]
    for size in ("0", "-1", "nan", "inf", "x"):
        refused = predict(api, model=world.adapted, pixel_size_nm=size)
        assert list(wrong(refused)) == ["body.pixel_size_nm"], size
    no_image = api.post("/predict", files={"model": (None, world.adapted)})
    assert list(wrong(no_image)) == ["body.image"]
    text = api.post("/predict", files={"model": (None, world.adapted), "image": (None, "text")})
    assert list(wrong(text)) == ["body.image"]
    problem(api.post("/predict", json={"model": world.adapted}), 415)


def test_files_that_are_no_grey_image(api: httpx.Client, world: World) -> None:
    cases = {
        b"": "of no format that is read",
        b"hello": "of no format that is read",
        png(IMAGE)[:200]: "damaged",
        png(np.stack([IMAGE, IMAGE, 255 - IMAGE], -1)): "colour",
        tiff(np.stack([IMAGE, IMAGE])): "stack of 2 sections",
    }
    for data, said in cases.items():
        refused = problem(predict(api, data, model=world.adapted), 415)
        assert refused["detail"].startswith("the image ")
        assert said in refused["detail"]


def test_an_image_of_another_dtype_than_the_dataset(api: httpx.Client, world: World) -> None:
    errors = wrong(predict(api, png(grey(1, dtype="uint16")), model=world.adapted))
    tells(errors, {"body.image": ("uint16", "'cells'", "uint8")})


def test_images_that_are_too_large(settings: Settings, serve: Serve, world: World) -> None:
    changes = {"max_predict_pixels": 41 * 57, "max_predict_bytes": 4000}
    small = serve(settings.model_copy(update=changes))
    fits = {"model": world.adapted, "dataset": world.source}
    assert predict(small, **fits).status_code == 200
    wide = problem(predict(small, png(grey(1, 41, 58)), **fits), 415)
    assert "41 x 58 px" in wide["detail"]
    assert list(wrong(predict(small, **fits, pixel_size_nm=4.1))) == ["body.pixel_size_nm"]
    long = problem(predict(small, png(IMAGE) + bytes(4000), **fits), 413)
    assert "4000 bytes" in long["detail"]
    longer = problem(predict(small, bytes(2 << 20), **fits), 413)
    assert f"{4000 + (1 << 20)} bytes" in longer["detail"]


def test_a_pixel_size_that_would_fill_the_memory(api: httpx.Client, world: World) -> None:
    errors = wrong(predict(api, model=world.adapted, pixel_size_nm=1e6))
    assert "10250000 x 14250000 px" in errors["body.pixel_size_nm"]


def test_the_answer_is_negotiated(api: httpx.Client, world: World) -> None:
    accepted = {
        "*/*": "image/png",
        "image/*": "image/png",
        "text/html, image/tiff;q=0.9, */*;q=0.1": "image/tiff",
        "APPLICATION/X-NPZ": "application/x-npz",
    }
    for accept, kind in accepted.items():
        answer = predict(api, accept=accept, model=world.adapted)
        assert answer.headers["content-type"] == kind
    for accept in ("application/json", "image/jpeg", "text/html"):
        refused = problem(predict(api, accept=accept, model=world.adapted), 406)
        for kind in (accept, "image/png", "image/tiff", "application/x-npz"):
            assert kind in refused["detail"]


def test_models_of_different_pixel_sizes_do_not_mix(
    api: httpx.Client, database: Database, settings: Settings, networks: Networks, world: World
) -> None:
    domain = DomainMeta(name="cells", pixel_size_nm=8.0, intensity_window=WINDOW)
    meta = ModelMeta(
        kind="generator",
        config=SMOKE,
        class_names=CLASSES,
        working_nm=8.0,
        source=domain,
        target=domain,
    )
    save_generator(settings.data_folder / "jobs" / "coarse", networks.generator, meta, {})
    job = add_job(database, world.source, world.target)
    coarse = add_model(
        database,
        job,
        world.source,
        kind=ModelKind.STYLE,
        target_id=UUID(world.target),
        path="jobs/coarse",
    )
    refused = problem(predict(api, model=world.adapted, style_model=coarse), 422)
    assert "8.0 nm" in refused["detail"]


def test_a_full_queue_is_busy_and_gets_free_again(
    settings: Settings, serve: Serve, world: World
) -> None:
    narrow = serve(settings.model_copy(update={"predict_queue": 1}))
    slow = png(np.tile(grey(1, 64, 64), (16, 16)))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: predict(narrow, slow, model=world.adapted), range(6)))
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert served
    assert refused
    for answer in refused:
        body = problem(answer, 503)
        assert body["code"] == "busy"
        assert answer.headers["retry-after"] == "5"
    assert predict(narrow, model=world.adapted).status_code == 200


def test_weights_that_are_gone_fail_in_words(
    api: httpx.Client, settings: Settings, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(settings.data_folder / "jobs")
    failed = problem(predict(api, model=world.adapted), 503)
    assert failed["code"] == "model_unreadable"
    assert str(settings.data_folder) not in failed["detail"]
    (record,) = [record for record in caplog.records if "model_unreadable" in record.message]
    assert str(settings.data_folder) in record.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the device")
def test_a_device_that_is_not_there_fails_in_words(
    settings: Settings, serve: Serve, world: World
) -> None:
    on_gpu = serve(settings.model_copy(update={"predict_device": "cuda"}))
    failed = problem(predict(on_gpu, model=world.adapted), 503)
    assert failed["code"] == "device_unavailable"


def test_a_model_is_dropped_before_the_next_is_loaded(
    settings: Settings, serve: Serve, world: World
) -> None:
    narrow = serve(settings.model_copy(update={"predict_models": 1}))
    assert predict(narrow, model=world.adapted).status_code == 200
    folder = next((settings.data_folder / "jobs").rglob("segmenter"))
    shutil.rmtree(folder)
    raw = {"model": world.segmenter, "stylise": "false"}
    problem(predict(narrow, **raw), 503)
    shutil.rmtree(folder.parent / "adapted")
    problem(predict(narrow, model=world.adapted), 503)


def test_a_zip_is_no_image(api: httpx.Client, world: World) -> None:
    refused = problem(predict(api, b"PK\x03\x04" + bytes(100), model=world.adapted), 415)
    assert "zip" in refused["detail"]
