"""The device and the precision that a config asks for, or a refusal before any work."""

from collections.abc import Collection

import torch

from models.config.stages import Device, Precision
from models.config.stylefilter import StyleFilterConfig
from models.training.progress import Stage


class DeviceUnavailable(ValueError):
    """The machine lacks the device that was asked for, or the device lacks the precision."""


def resolve(device: Device, precision: Precision = "float32") -> torch.device:
    """Return the torch device that was asked for, never another, able to compute in ``precision``.

    Raises:
        DeviceUnavailable: there is no GPU, or bf16 is asked of a CPU without such instructions.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "device 'cuda' was asked for, but this machine offers no CUDA GPU: set device to cpu, "
            "or use a machine with a GPU and a build of PyTorch for it"
        )
    if device == "cpu" and precision == "bf16" and not cpu_has_bf16():
        # torch would emulate it, a hundred times slower than float32.
        raise DeviceUnavailable(
            "precision 'bf16' was asked for, but this machine's processor has no bfloat16 "
            "instructions: set precision to float32, or device to cuda on a machine with a GPU"
        )
    return torch.device(device)


def check_stages(config: StyleFilterConfig, stages: Collection[Stage]) -> None:
    """Refuse a config, before the first of its stages, if a later one could not run here.

    Raises:
        DeviceUnavailable: as ``resolve`` does for one stage.
    """
    resolve(config.device)
    parts = {"style": config.style, "pretrain": config.pretrain, "adapt": config.adaptation}
    for stage in stages:
        if stage in parts:
            resolve(config.device, parts[stage].precision)


def cpu_has_bf16() -> bool:
    """Tell whether this processor has instructions that multiply bfloat16."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
