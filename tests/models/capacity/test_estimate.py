"""The estimate against what it estimates: real networks, autograd's tensors, real processes."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.capacity import choosing, footprint
from models.capacity import estimate as capacity
from models.capacity.estimate import Extent
from models.capacity.limits import DoesNotFit, Room, check, shortages
from models.config.presets import preset
from models.config.stages import AdaptationConfig, PretrainConfig, SegmenterConfig, StyleConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.sections import Section
from models.labels_used.training_labels import LABEL_CACHE_BYTES
from models.losses import cross_entropy
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator, tap_sizes
from models.networks.unet import UNet
from models.segmentation import pretrain
from models.style_transfer import Cut
from models.training.loop import Run
from models.training.progress import Stage
from models.training.resume import Checkpoints
from tests.models.domains import NEEDS_BF16, ignore, square_domain
from tests.models.stage_process import train_stage

STYLES = [
    StyleConfig(base_filters=4, num_blocks=5, crop_px=32, projector_width=16),
    StyleConfig(base_filters=16, num_blocks=6, crop_px=96),
    StyleConfig(base_filters=32, num_blocks=9, crop_px=64),
    StyleConfig(base_filters=64, num_blocks=5, crop_px=32, projector_width=64),
]
SEGMENTERS = [
    (SegmenterConfig(base_filters=4, depth=2), 2, 32),
    (SegmenterConfig(base_filters=16), 3, 96),
    (SegmenterConfig(base_filters=8, depth=3, norm="group"), 5, 50),
    (SegmenterConfig(base_filters=8, depth=1, norm="instance"), 4, 33),
]


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def kept_values(compute: Callable[[], object], *networks: nn.Module) -> float:
    """Float32 values that autograd keeps of a computation, but for parameters."""
    known = {p.untyped_storage().data_ptr() for net in networks for p in net.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in known:
            kept.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    assert result is not None
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 4


@pytest.mark.parametrize("style", STYLES, ids=lambda style: f"{style.base_filters} filters")
def test_parameters_of_cut_are_counted_exactly(style: StyleConfig) -> None:
    cut = Cut(style)
    assert footprint.generator_parameters(style) == num_parameters(cut.generator)
    assert footprint.discriminator_parameters(style) == num_parameters(cut.discriminator)
    assert footprint.projector_parameters(style) == num_parameters(cut.projector)
    assert footprint.tap_channels(style) == cut.generator.tap_channels


@pytest.mark.parametrize(("segmenter", "num_classes", "px"), SEGMENTERS)
def test_the_u_net_is_counted(segmenter: SegmenterConfig, num_classes: int, px: int) -> None:
    network = UNet(num_classes, segmenter)
    counted = footprint.segmenter_parameters(segmenter, num_classes)
    assert counted == num_parameters(network)
    images, labels = torch.randn(2, 1, px, px), torch.zeros(2, px, px, dtype=torch.int64)
    kept = kept_values(lambda: cross_entropy(network(images), labels), network)
    estimated = 2 * footprint.segmenter_values(segmenter, num_classes, px)
    assert estimated == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: f"{style.base_filters} filters")
def test_what_cut_keeps_is_counted(style: StyleConfig) -> None:
    px = style.crop_px
    generator, discriminator = (
        Generator(style.base_filters, style.num_blocks),
        Discriminator(style.base_filters),
    )
    x = torch.randn(2, 1, px, px, requires_grad=True)
    kept = kept_values(lambda: generator(x), generator)
    assert 2 * footprint.generator_values(style, "cpu") == pytest.approx(kept, rel=0.1)
    kept = kept_values(lambda: generator.encode(x), generator)
    estimated = footprint.encoder_values(style, footprint.TAPPED_BLOCKS, "cpu")
    assert 2 * estimated == pytest.approx(kept, rel=0.1)
    kept = kept_values(lambda: discriminator(x), discriminator)
    assert 2 * footprint.discriminator_values(style, "cpu") == pytest.approx(kept, rel=0.1)
    taps = sum(tap[0].numel() for tap in generator.encode(x))
    assert footprint.tap_values(style) == taps


@pytest.mark.parametrize("style", STYLES, ids=lambda style: f"{style.base_filters} filters")
def test_what_patch_nce_keeps_is_counted(style: StyleConfig) -> None:
    cut, px = Cut(style), style.crop_px
    sizes = tap_sizes(px, px)
    features = [
        torch.randn(1, channels, int(size**0.5), int(size**0.5), requires_grad=True)
        for channels, size in zip(cut.generator.tap_channels, sizes, strict=True)
    ]
    at = [torch.randperm(size)[: style.num_patches] for size in sizes]
    kept = kept_values(lambda: cut._nce(features, features, at), cut.projector)
    assert footprint.projection_values(style) == pytest.approx(kept, rel=0.1)


def extent(side: int, *, working_nm: float = 4.0) -> Extent:
    """The sections of ``square_domain``."""
    splits = ["train", "train", "train", "val", "test"]
    sections = [Section(i, f"s{i}", split, side, side, True) for i, split in enumerate(splits)]  # type: ignore[arg-type]
    return Extent(2, 4.0, working_nm, sections)


def style_config(**changes: Any) -> StyleFilterConfig:
    return StyleFilterConfig(style=StyleConfig(**changes))


def segmenting(norm: Any = "batch", **changes: Any) -> StyleFilterConfig:
    """A U-Net of 16 filters, for both of its stages."""
    return StyleFilterConfig(
        segmenter=SegmenterConfig(base_filters=16, norm=norm),
        pretrain=PretrainConfig(
            **{k: v for k, v in changes.items() if k in PretrainConfig.model_fields}
        ),
        adaptation=AdaptationConfig(**changes),
    )


def choosing_one(**changes: Any) -> StyleFilterConfig:
    """Rounds train one candidate, and no view but the raw one is tried."""
    choice = {"max_trained": 1, "views": (), "target_statistics": False}
    return segmenting(**changes).changed({"method": "chosen", "choice": choice})


PEAKS: list[tuple[Stage, StyleFilterConfig, int]] = [
    ("style", style_config(base_filters=32, crop_px=128, steps=2), 160),
    ("style", style_config(base_filters=16, num_blocks=6, crop_px=96, steps=2), 160),
    ("style", style_config(base_filters=32, crop_px=64, batch_size=4, accumulate=2, steps=2), 96),
    ("pretrain", segmenting(crop_px=128, batch_size=4, steps=2), 160),
    ("pretrain", segmenting("group", crop_px=64, steps=2), 768),
    ("adapt", segmenting(crop_px=128, batch_size=4, steps=2, student_view="both"), 160),
    ("adapt", choosing_one(crop_px=128, batch_size=4, steps=2), 160),
]


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peaks are read from /proc")
@pytest.mark.parametrize(("stage", "config", "side"), PEAKS)
def test_the_peak_of_a_real_training_process(
    stage: Stage, config: StyleFilterConfig, side: int, tmp_path: Path
) -> None:
    """Never more than 10 % under it and 40 % over it."""
    command = [sys.executable, "-m", "tests.models.peak_process"]
    arguments = [str(tmp_path), stage, config.model_dump_json(), str(side)]
    ran = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    measured = int(ran.stdout)
    target = None if stage == "pretrain" else extent(side)
    estimated = capacity.estimate(config, [stage], extent(side), target).memory_bytes
    told = f"estimated {estimated:,}, measured {measured:,}: {estimated / measured:.2f}"
    assert 0.9 * measured < estimated < 1.4 * measured, told


def test_the_extent_of_a_domain(tmp_path: Path) -> None:
    found = Extent.of(square_domain(tmp_path / "d.zarr", side=40))
    assert (found.num_classes, found.pixel_size_nm, found.working_nm) == (2, 4.0, 4.0)
    assert [found.count(split, masked=True) for split in ("train", "val", "test")] == [3, 1, 1]
    assert found.shapes("val") == [(40, 40)]
    assert replace(found, working_nm=8.0).shapes("train", "test") == [(20, 20)] * 4


def test_the_disk_that_a_stage_takes(tmp_path: Path) -> None:
    """Its last state, once more while it is written, and the weights that stay."""
    config = segmenting(crop_px=32, batch_size=1, steps=1)
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_seconds=0)
    source = square_domain(tmp_path / "source.zarr")
    network = pretrain(source, config, Run(ignore, checkpoints))
    (state,) = (tmp_path / "checkpoints").iterdir()
    weights = sum(value.nbytes for value in network.state_dict().values())
    taken = 2 * state.stat().st_size + weights
    estimated = capacity.estimate(config, ["pretrain"], Extent.of(source)).disk_bytes
    assert estimated == pytest.approx(taken + (1 << 20), rel=0.02)


def test_the_disk_of_all_stages_and_of_the_stylised_target() -> None:
    config, wide = preset("smoke"), extent(1000)
    style, pretraining, adaptation, everything = (
        capacity.estimate(config, stages, wide, wide).disk_bytes - (1 << 20)
        for stages in (["style"], ["pretrain"], ["adapt"], ["style", "pretrain", "adapt"])
    )
    sizes = [footprint.generator_parameters(config.style), 0, 0]
    sizes[1:] = [footprint.segmenter_parameters(config.segmenter, 2)] * 2
    states = [
        (total - 4 * size) // 2
        for total, size in zip((style, pretraining, adaptation), sizes, strict=True)
    ]
    assert everything == sum(states) + max(states) + 4 * sum(sizes)
    stylising = capacity.estimate(config, ["stylise", "adapt"], wide, wide).disk_bytes
    assert stylising - (1 << 20) - adaptation == 4 * 1000**2 * 4  # 3 of training, 1 of validation


def test_the_state_of_rounds_is_counted_for_each_candidate(tmp_path: Path) -> None:
    config = choosing_one(crop_px=32, batch_size=1, steps=1)
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_seconds=0)
    pair = square_domain(tmp_path / "s.zarr"), square_domain(tmp_path / "t.zarr", bright=False)
    train_stage("adapt", pair, config, Run(ignore, checkpoints), tmp_path, "rounds")
    (state,) = (tmp_path / "checkpoints").iterdir()
    one, three = (
        capacity.estimate(
            config.changed({"choice": {"max_trained": number}}),
            ["adapt"],
            *map(Extent.of, pair),
        ).disk_bytes
        for number in (1, 3)
    )
    assert (three - one) / 2 == pytest.approx(state.stat().st_size, rel=0.02)


def test_each_view_is_a_copy_of_the_target_on_the_disk_and_in_memory() -> None:
    wide, stages = extent(1000), ["verdict", "stylise"]

    def told(**choice: Any) -> tuple[int, int]:
        config = segmenting(crop_px=32, steps=1).changed({"method": "chosen", "choice": choice})
        found = capacity.estimate(config, stages, wide, wide)  # type: ignore[arg-type]
        return found.disk_bytes, found.stages[0].memory_bytes

    raw = told(views=())
    two = told(views=("inverted", "histogram"))
    copy = 4 * 1000**2 * 4  # 3 sections of training and 1 of validation
    assert two[0] - raw[0] == 2 * copy
    assert two[1] - raw[1] == 2 * copy * 5 // 4  # with their masks
    smaller = told(views=(), pixel_factors=(0.5,))
    assert smaller[0] - raw[0] == 2 * 4 * copy  # for the best two views


def test_caches_of_labels_hold_all_or_as_much_as_they_may() -> None:
    assert choosing.label_cache_bytes([(10, 20), (10, 10)], 3) == 300 * (4 * 3 + 1 + 1)
    assert choosing.label_cache_bytes([(1000, 1000)] * 1000, 3) == 3 * LABEL_CACHE_BYTES
    assert choosing.label_cache_bytes([], 3) == 0
    plain, chosen = (
        memory(config, "adapt", 1000)
        for config in (segmenting(crop_px=32, steps=1), choosing_one(crop_px=32, steps=1))
    )
    networks = (
        4
        * (choosing.ROUNDS_NETWORKS + 1)
        * footprint.segmenter_parameters(SegmenterConfig(base_filters=16), 2)
    )
    assert chosen - plain == networks + choosing.label_cache_bytes([(1000, 1000)] * 3, 2)


def memory(config: StyleFilterConfig, stage: Stage = "style", side: int = 64) -> int:
    return capacity.estimate(config, [stage], extent(side), extent(side)).memory_bytes


def test_what_needs_more_is_estimated_higher() -> None:
    base = memory(style_config(crop_px=128, batch_size=4))
    assert memory(style_config(crop_px=256, batch_size=4)) > base
    assert memory(style_config(crop_px=128, batch_size=8)) > base
    assert memory(style_config(crop_px=128, batch_size=4, num_patches=4096)) > base
    assert memory(style_config(crop_px=128, batch_size=4, accumulate=4)) < base
    assert memory(style_config(crop_px=128, batch_size=4, nce_identity=False)) < base
    assert memory(style_config(crop_px=128, batch_size=4, base_filters=32)) < base
    adapting = memory(segmenting(crop_px=256), "adapt")
    assert memory(segmenting(crop_px=256, student_view="both"), "adapt") > adapting
    assert memory(segmenting(crop_px=256, pseudo_labeler="ema"), "adapt") > adapting
    assert memory(segmenting(crop_px=256, precision="bf16"), "adapt") < adapting


def test_large_images_are_applied_in_tiles() -> None:
    config = segmenting(crop_px=32, steps=1)
    whole, tiled, finer = (memory(config, "pretrain", side) for side in (2048, 2049, 4096))
    assert tiled < whole
    assert finer < whole + 4096**2 * (4 * 4 * 2 + 12) + 5 * 5 * 4096**2
    assert capacity.estimate(config, ["pretrain"], extent(2048)).stages[0].cause == "images"
    assert capacity.estimate(config, ["pretrain"], extent(32)).stages[0].cause == "training"


def test_processes_share_the_machine_and_the_steps() -> None:
    config = StyleFilterConfig(pretrain=PretrainConfig(crop_px=64, batch_size=1, epochs=4))
    one, three = (
        capacity.estimate(config, ["pretrain"], extent(64), num_processes=n).stages[0]
        for n in (1, 3)
    )
    assert (one.steps, three.steps) == (12, 4)
    assert three.memory_bytes == 3 * one.memory_bytes


def test_a_gpu_takes_what_else_main_memory_would() -> None:
    config = segmenting(crop_px=512, batch_size=8)
    on_cpu, on_gpu = (
        capacity.estimate(config.model_copy(update={"device": d}), ["pretrain"], extent(64))
        for d in ("cpu", "cuda")
    )
    working = on_cpu.memory_bytes - on_gpu.memory_bytes + capacity.CUDA_PROCESS_BYTES
    working -= capacity.PROCESS_BYTES
    assert on_gpu.gpu_memory_bytes == working + capacity.GPU_PROCESS_BYTES
    assert on_cpu.gpu_memory_bytes == 0


def test_what_does_not_fit_is_told_in_words() -> None:
    config = segmenting(crop_px=512, batch_size=8)
    told = capacity.estimate(config, ["pretrain"], extent(64))
    check(told, Room())
    check(told, Room(told.memory_bytes, None, told.disk_bytes))
    with pytest.raises(DoesNotFit, match=r"^stage pretrain .* \d\.\d\d GB"):
        check(told, Room(memory_bytes=told.memory_bytes - 1))
    (short,) = shortages(told, Room(disk_bytes=told.disk_bytes - 1))
    assert (short.field, "GB of disk" in short.message) == ("", True)
    (large,) = shortages(
        capacity.estimate(config, ["pretrain"], extent(2000)), Room(memory_bytes=10**6)
    )
    assert large.field == "pretrain"
    whole = segmenting(crop_px=32, steps=1)
    for stage in ("pretrain", "stylise", "adapt", "evaluate", "verdict"):
        told = capacity.estimate(whole, [stage], extent(1500), extent(1500))
        (large,) = shortages(told, Room(memory_bytes=10**6))
        assert (large.field, large.message[:7]) == ("pixel_size_factor", f"stage {stage[0]}")


@NEEDS_BF16
def test_bf16_takes_no_more_than_its_share() -> None:
    style, (segmenter, num_classes, px) = STYLES[1], SEGMENTERS[1]
    generator = Generator(style.base_filters, style.num_blocks)
    network = UNet(num_classes, segmenter)
    side = style.crop_px
    x, images = torch.randn(1, 1, side, side), torch.randn(1, 1, px, px)
    with torch.autocast("cpu", torch.bfloat16):
        of_style = kept_values(lambda: generator(x), generator)
        of_segmenter = kept_values(lambda: network(images), network)
    shares = capacity.BF16_SHARES
    assert of_style < shares["style"] * footprint.generator_values(style, "cpu")
    of_activations = of_segmenter - num_parameters(network) / 2
    assert of_activations < shares["segmenter"] * footprint.segmenter_values(
        segmenter, num_classes, px
    )
