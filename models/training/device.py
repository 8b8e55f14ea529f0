"""The device a config asks for, or a refusal."""

import torch

from models.config import Device


class DeviceUnavailable(ValueError):
    """The machine lacks the device a config asks for."""


def resolve(device: Device) -> torch.device:
    """Return the torch device; never falls back from ``cuda`` to ``cpu``."""
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("device 'cuda' was asked for, but this machine offers no CUDA GPU")
    return torch.device(device)
