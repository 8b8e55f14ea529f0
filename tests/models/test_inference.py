"""Whole images, tiles, scores and files."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.baselines.histogram import HistogramMatch
from models.checkpoint import (
    CheckpointError,
    load_generator,
    load_segmenter,
    save_generator,
    save_segmenter,
)
from models.config.stages import NormName, SegmenterConfig, StyleConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import IGNORE, Tile
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.evaluation import evaluate
from models.inference import (
    Prediction,
    Predictor,
    Styliser,
    segment,
    stylise,
    stylise_domain,
)
from models.metadata import DomainMeta, ModelMeta
from models.networks.cpu.convolution import Convolution
from models.networks.generator import Generator
from models.networks.tiling import Tiling, apply_tiled
from models.networks.unet import UNet
from models.scores import Evaluation, confusion_matrix
from models.training.progress import Progress
from tests.models.domains import ignore, square_domain, write_domain

CPU = torch.device("cpu")
SMALL = StyleFilterConfig(
    style=StyleConfig(base_filters=4, num_blocks=5), segmenter=SegmenterConfig(base_filters=4)
)
CROP_PX = 32
TILING = Tiling(whole_px=32, tile_px=24, overlap_px=7)


def generator(seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    network = Generator(base_filters=4, num_blocks=5)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


def unet(seed: int = 0, depth: int = 4) -> UNet:
    torch.manual_seed(seed)
    return UNet(2, SegmenterConfig(base_filters=4, depth=depth)).eval()


class Threshold(UNet):
    """A segmenter that calls class 1 what is brighter than mid grey."""

    def __init__(self) -> None:
        super().__init__(2, SegmenterConfig(base_filters=4, depth=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-100 * x, 100 * x], dim=1)


@pytest.mark.parametrize("size", [(33, 33), (24, 90), (57, 40), (20, 41), (100, 71)])
def test_tiled_identity_returns_the_input(size: tuple[int, int]) -> None:
    image = torch.rand(1, 1, *size)
    seen = []

    def identity(tile: Tensor) -> Tensor:
        seen.append(tuple(tile.shape[-2:]))
        return torch.cat([tile, -tile], dim=1)

    output = apply_tiled(identity, image, TILING)
    torch.testing.assert_close(output, torch.cat([image, -image], dim=1))
    assert len(seen) > 1
    assert set(seen) == {(min(24, size[0]), min(24, size[1]))}


def test_images_within_the_limit_are_taken_whole() -> None:
    sizes = []
    apply_tiled(lambda x: sizes.append(x.shape) or x, torch.rand(1, 1, 32, 32), TILING)
    assert sizes == [(1, 1, 32, 32)]


def test_tiles_blend_without_a_step() -> None:
    values = iter(range(100))
    output = apply_tiled(
        lambda x: torch.full_like(x, next(values)), torch.zeros(1, 1, 24, 41), TILING
    )
    assert (output[..., 0, 0], output[..., 0, 40]) == (0, 1)
    assert float(output.diff(dim=-1).abs().max()) < 0.2


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (32, 32), (37, 50)])
def test_stylise_keeps_size_and_range(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(size, dtype=np.float32)
    stylised = stylise(generator(), image)
    assert stylised.shape == size
    assert stylised.dtype == np.float32
    assert 0 <= stylised.min() <= stylised.max() <= 1


def test_a_network_trains_on_after_it_was_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Convolution, "winograd_from", 4)
    network = generator()
    image = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    for _ in range(2):
        stylise(network, image)
        network(torch.from_numpy(image)[None, None]).square().mean().backward()
    assert all(bool(parameter.grad.any()) for parameter in network.parameters())


def test_stylise_scales_to_and_from_the_generators_range() -> None:
    image = np.random.default_rng(0).random((16, 20), dtype=np.float32)
    network = generator()
    with torch.no_grad():
        expected = (network(torch.from_numpy(image)[None, None] * 2 - 1)[0, 0] + 1) / 2
    np.testing.assert_allclose(stylise(network, image), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 5), (15, 40), (50, 33)])
def test_segment_gives_probabilities_at_any_size(size: tuple[int, int]) -> None:
    probabilities = segment(unet(), np.zeros(size, np.float32), CROP_PX)
    assert probabilities.shape == (2, *size)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_a_small_image_is_segmented_as_the_padded_crop_of_training(norm: NormName) -> None:
    torch.manual_seed(0)
    network = UNet(2, SegmenterConfig(base_filters=4, depth=1, norm=norm)).eval()
    image = np.random.default_rng(0).random((20, 40), dtype=np.float32)
    padded = np.zeros((32, 40), np.float32)
    padded[:20] = image
    with torch.no_grad():
        logits = network(torch.from_numpy(padded)[None, None] * 2 - 1)[0]
    expected = logits.softmax(dim=0)[:, :20].numpy()
    np.testing.assert_allclose(segment(network, image, 32), expected, atol=1e-6)
    assert np.abs(segment(network, image, 20) - expected).max() > 1e-3


def test_predict_returns_the_native_size() -> None:
    image = np.zeros((40, 61), np.uint16)
    image[:, 30:] = 1000
    predictor = Predictor(Threshold(), 8.0, CROP_PX)
    prediction = predictor.predict(image, 4.0, intensity_window=(0, 1000), stylise=False)
    assert prediction.mask.dtype == np.uint8
    assert prediction.probabilities.shape == (2, 40, 61)
    assert prediction.probabilities.dtype == np.float32
    assert (prediction.mask[:, :28] == 0).all()
    assert (prediction.mask[:, 32:] == 1).all()


def test_predict_stylises_on_demand_only() -> None:
    dark = np.full((16, 16), 10, np.uint8)
    predictor = Predictor(Threshold(), 4.0, CROP_PX, style=lambda image: 1 - image)
    raw = predictor.predict(dark, 4.0, intensity_window=(0, 255), stylise=False)
    stylised = predictor.predict(dark, 4.0, intensity_window=(0, 255), stylise=True)
    assert (raw.mask == 0).all()
    assert (stylised.mask == 1).all()


def test_predict_refuses_what_it_cannot_do() -> None:
    predictor = Predictor(Threshold(), 4.0, CROP_PX)
    with pytest.raises(ValueError, match="no style model"):
        predictor.predict(np.zeros((8, 8)), 4.0, intensity_window=(0, 1), stylise=True)
    with pytest.raises(ValueError, match=r"\(8, 8, 3\)"):
        predictor.predict(np.zeros((8, 8, 3)), 4.0, intensity_window=(0, 1), stylise=False)


def test_stylise_domain_writes_what_adaptation_reads(tmp_path: Path) -> None:
    target, reports = square_domain(tmp_path / "t.zarr", side=30), []
    network = generator()
    stylised = stylise_domain(Styliser.by(network), target, tmp_path / "out.zarr", reports.append)
    assert [s.split for s in stylised.sections] == ["train"] * 3 + ["val"]
    for section in stylised.sections:
        expected = stylise(network, target.image(section))
        assert np.array_equal(stylised.image(section), expected)
    assert reports[-1] == Progress("stylise", 4, 4, {})


MASK = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)


@pytest.mark.parametrize(
    ("prediction", "dice"),
    [
        (MASK, (1, 1, None)),
        (1 - MASK, (0, 0, None)),
        ([[0, 1, 0, 1], [0, 1, 0, 1]], (0.5, 0.5, None)),
        ([[2, 2, 1, 1], [2, 2, 1, 1]], (0, 1, None)),
    ],
    ids=["equal", "opposite", "half overlap", "absent class predicted"],
)
def test_dice(prediction: NDArray[np.uint8], dice: tuple[float | None, ...]) -> None:
    confusion = confusion_matrix(MASK, np.asarray(prediction, np.uint8), 3)
    evaluation = Evaluation.of(("a", "b", "c"), confusion)
    assert evaluation.dice == dice
    assert evaluation.mean_dice == pytest.approx((dice[0] + dice[1]) / 2)
    assert evaluation.values() == {
        "dice/a": dice[0],
        "dice/b": dice[1],
        "dice/mean": sum(dice[:2]) / 2,
    }


def test_confusion_ignores_255_and_refuses_unknown_classes() -> None:
    mask = np.array([[0, 1, IGNORE]], np.uint8)
    assert confusion_matrix(mask, np.array([[1, 1, 1]], np.uint8), 2).tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ValueError, match="class 2 "):
        confusion_matrix(mask, np.array([[2, 1, 1]], np.uint8), 2)
    nothing = confusion_matrix(np.full((2, 2), IGNORE, np.uint8), np.zeros((2, 2), np.uint8), 2)
    assert Evaluation.of(("a", "b"), nothing).mean_dice is None
    assert Evaluation.of(("a", "b"), nothing).values() == {}


def test_evaluate_pools_sections_at_native_size(tmp_path: Path) -> None:
    bright, dark = np.full((10, 14), 255, np.uint8), np.zeros((10, 14), np.uint8)
    masks = [np.ones((10, 14), np.uint8), np.ones((10, 14), np.uint8), None]
    domain = write_domain(
        tmp_path / "d.zarr", [bright, dark, bright], masks, ["test"] * 3, working_nm=8.0
    )
    reports: list[Progress] = []
    predictor = Predictor(Threshold(), 8.0, CROP_PX)
    evaluated = evaluate(predictor, domain, "test", report=reports.append)
    assert evaluated.pooled.confusion == ((0, 0), (140, 140))
    assert evaluated.pooled.dice == (None, pytest.approx(2 / 3))
    assert evaluated.sections == domain.sections[:2]
    assert [e.confusion for e in evaluated.each] == [((0, 0), (0, 140)), ((0, 0), (140, 0))]
    assert [e.mean_dice for e in evaluated.each] == [1, 0]
    assert [(p.step, p.total) for p in reports] == [(1, 2), (2, 2)]
    with pytest.raises(ValueError, match="val .*masks"):
        evaluate(predictor, domain, "val", report=reports.append)


def test_evaluate_stylises_with_the_predictors_style(tmp_path: Path) -> None:
    dark, mask = np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)
    domain = write_domain(tmp_path / "d.zarr", [dark], [mask], ["test"])
    scores = [
        evaluate(Predictor(Threshold(), 4.0, CROP_PX, style), domain, "test", report=ignore)
        for style in (None, lambda image: 1 - image)
    ]
    assert [evaluated.pooled.mean_dice for evaluated in scores] == [0, 1]


def test_labels_of_the_test_tiles_filter_the_prediction(tmp_path: Path) -> None:
    """All is bright, so class 1 is predicted wherever its tile's labels do not call it absent."""
    bright, mask = np.full((40, 40), 255, np.uint8), np.zeros((40, 40), np.uint8)
    tiles = [
        Tile(0, 0, 0, 20, 20, (PRESENT, ABSENT)),
        Tile(0, 0, 20, 20, 20, (UNKNOWN, UNKNOWN)),
        Tile(0, 20, 0, 20, 20, (ABSENT, ABSENT)),
        Tile(0, 20, 20, 20, 20, (UNKNOWN, ABSENT)),
    ]
    domain = write_domain(tmp_path / "d.zarr", [bright], [mask], ["test"], tiles, working_nm=8.0)
    predictor = Predictor(Threshold(), 8.0, CROP_PX)
    filtered, plain = (
        evaluate(predictor, domain, "test", filtered=filtered, report=ignore).pooled
        for filtered in (True, False)
    )
    assert filtered.confusion == ((800, 800), (0, 0))
    assert plain.confusion == ((0, 1600), (0, 0))


def test_a_prediction_within_what_is_allowed_at_another_size() -> None:
    probabilities = np.tile(np.array([0.2, 0.3, 0.5], np.float32)[:, None, None], (1, 5, 3))
    prediction = Prediction(np.full((5, 3), 2, np.uint8), probabilities)
    allowed = np.ones((3, 2, 1), bool)
    allowed[2, 1] = False
    assert prediction.within(allowed)[:, 0].tolist() == [2, 2, 1, 1, 1]
    allowed[:, 0] = False
    assert prediction.within(allowed)[:, 2].tolist() == [2, 2, 1, 1, 1]
    larger = np.ones((3, 10, 3), bool)
    larger[1:, ::2] = False  # the second row of each pair is the nearest of a pixel's centre
    assert (prediction.within(larger) == 2).all()


def test_histogram_matching_stands_in_for_the_generator(tmp_path: Path) -> None:
    source = square_domain(tmp_path / "s.zarr", side=64)
    section = source.split("test")[0]
    darkened = (source.native_image(section) // 4).astype(np.uint8)
    square = source.native_mask(section) == 1
    predictor = Predictor(Threshold(), 4.0, CROP_PX, HistogramMatch.to(source))
    raw = predictor.predict(darkened, 4.0, intensity_window=(0, 255), stylise=False)
    matched = predictor.predict(darkened, 4.0, intensity_window=(0, 255), stylise=True)
    assert (raw.mask[square] == 0).all()
    assert (matched.mask[square] == 1).all()


def meta(tmp_path: Path, kind: str) -> ModelMeta:
    domain = DomainMeta.of(square_domain(tmp_path / "meta.zarr"))
    return ModelMeta(
        kind=kind,
        config=SMALL,
        class_names=("background", "square"),
        working_nm=4.0,
        source=domain,
        target=None,
    )


def test_saved_networks_give_bit_equal_output(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((40, 33), dtype=np.float32)
    segmenter, translator = unet(), generator()
    segmenter.stem[1].running_mean += 1
    save_segmenter(tmp_path / "seg", segmenter, meta(tmp_path, "segmenter"), {"dice/mean": 0.5})
    save_generator(tmp_path / "style", translator, meta(tmp_path, "generator"), {})
    loaded, loaded_meta = load_segmenter(tmp_path / "seg", CPU)
    assert loaded_meta == meta(tmp_path, "segmenter")
    assert np.array_equal(segment(loaded, image, CROP_PX), segment(segmenter, image, CROP_PX))
    style = partial(stylise, load_generator(tmp_path / "style", CPU)[0])
    assert np.array_equal(style(image), stylise(translator, image))
    assert json.loads((tmp_path / "seg" / "metrics.json").read_text()) == {"dice/mean": 0.5}
    assert {path.name for path in tmp_path.iterdir()} == {"seg", "style", "meta.zarr"}


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "seg"
    save_segmenter(folder, unet(), meta(tmp_path, "segmenter"), {})
    with pytest.raises(OSError, match="not empty"):
        save_segmenter(folder, unet(1), meta(tmp_path, "segmenter"), {})
    assert {path.name for path in tmp_path.iterdir()} == {"seg", "meta.zarr"}
    image = np.random.default_rng(0).random((16, 16), dtype=np.float32)
    loaded = load_segmenter(folder, CPU)[0]
    assert np.array_equal(segment(loaded, image, CROP_PX), segment(unet(), image, CROP_PX))


def test_loading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing"):
        load_segmenter(tmp_path / "nothing", CPU)
    folder = tmp_path / "seg"
    save_segmenter(folder, unet(), meta(tmp_path, "segmenter"), {})
    with pytest.raises(CheckpointError, match="segmenter.*generator"):
        load_generator(folder, CPU)
    weights = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="weights.safetensors"):
        load_segmenter(folder, CPU)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="weights.safetensors"):
        load_segmenter(folder, CPU)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json is damaged"):
        load_segmenter(folder, CPU)


def test_loading_is_strict_about_shapes(tmp_path: Path) -> None:
    wider = UNet(2, SegmenterConfig(base_filters=8))
    save_segmenter(tmp_path / "seg", wider, meta(tmp_path, "segmenter"), {})
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_segmenter(tmp_path / "seg", CPU)
