"""Devices and precisions: given as asked for, or refused before any work."""

import pytest
import torch

from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.notebook import Description, adapt, open_arrays
from models.training import device
from models.training.device import DeviceUnavailable, check_stages, resolve
from models.training.loop import autocast
from models.training.progress import Progress, Stage
from tests.models.domains import NEEDS_BF16, squares

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_missing_cuda_is_refused() -> None:
    assert resolve("cpu") == CPU
    with pytest.raises(DeviceUnavailable, match="no CUDA GPU"):
        resolve("cuda")
    with pytest.raises(DeviceUnavailable, match="no CUDA GPU"):
        check_stages(preset("smoke").changed({"device": "cuda"}), ())


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand on a processor of before bfloat16: torch asks it what it can."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "bf16": False})


@NEEDS_BF16
def test_bf16_is_given_where_the_processor_has_it() -> None:
    assert resolve("cpu", "bf16") == CPU
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with autocast(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with autocast(CPU, "float32"):
        assert layer(x).dtype == torch.float32


@pytest.mark.usefixtures("without_bf16")
def test_bf16_is_refused_where_the_processor_lacks_it() -> None:
    assert not device.cpu_has_bf16()
    assert resolve("cpu", "float32") == CPU
    with pytest.raises(DeviceUnavailable, match="set precision to float32"):
        resolve("cpu", "bf16")


@pytest.mark.usefixtures("without_bf16")
@pytest.mark.parametrize(
    ("part", "stage"), [("style", "style"), ("pretrain", "pretrain"), ("adaptation", "adapt")]
)
def test_only_stages_that_run_are_checked(part: str, stage: Stage) -> None:
    config = preset("smoke").changed({part: {"precision": "bf16"}})
    others: set[Stage] = {"style", "pretrain", "stylise", "adapt", "evaluate"}
    check_stages(config, others - {stage})
    with pytest.raises(DeviceUnavailable, match="bf16"):
        check_stages(config, others)


@pytest.mark.usefixtures("without_bf16")
def test_an_adaptation_is_refused_before_its_first_step() -> None:
    images, masks = zip(*(squares(48, seed) for seed in range(5)), strict=True)
    cells = Description(class_names=["background", "square"], pixel_size_nm=4)
    domain = open_arrays(images, cells, masks=masks)
    config: StyleFilterConfig = preset("smoke").changed({"adaptation": {"precision": "bf16"}})
    reports: list[Progress] = []
    with pytest.raises(DeviceUnavailable):
        adapt(domain, domain, config, on_progress=reports.append)
    assert reports == []
