"""A 2D convolution that takes the quickest way on a CPU; on other devices torch's own.

In channels-last layout throughout. One channel in or out, where torch's convolution reaches a tenth
of the speed, is one matrix product beside im2col; wide layers go by Winograd's algorithm.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.losses import full_precision
from models.networks.cpu.winograd import winograd_conv2d
from models.networks.sizes import WINOGRAD_FROM


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class RoundedProducts(TorchFunctionMode):
    """For autocast on a CPU without bfloat16, where torch's own convolutions take 100 times longer.

    Convolutions inside compute the same products in float32: of operands rounded to bfloat16, with
    a result, and gradients, that are stored as bfloat16.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in (F.conv2d, F.conv_transpose2d) or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        x, weight, *rest = args
        half = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return func(x.to(half).float(), weight.to(half).float(), *rest, **kwargs).to(half)


class Convolution(nn.Conv2d):
    """Square kernel, stride 1; ``padding`` pixels of zeros, or reflected ones, on every side."""

    winograd_from = WINOGRAD_FROM

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        padding: int,
        reflect: bool = False,
    ) -> None:
        super().__init__(
            channels_in,
            channels_out,
            kernel,
            padding=padding,
            padding_mode="reflect" if reflect else "zeros",
        )
        self._reflect = reflect

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        if not torch.is_autocast_enabled("cpu"):
            return self._on_cpu(x, self.weight)
        if cpu_has_bf16():
            return super().forward(x)
        # torch's bfloat16 is a hundred times slower here: the same products in float32.
        half = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return self._on_cpu(x.to(half), self.weight.to(half).to(self.weight.dtype))

    def _on_cpu(self, x: Tensor, weight: Tensor) -> Tensor:
        """Computed in the weight's type; ``x`` and the result may be stored as bfloat16."""
        assert self.bias is not None
        padding = int(self.padding[0])
        least = min(self.in_channels, self.out_channels)
        if least >= self.winograd_from and padding == 1 and self.kernel_size[0] in (3, 4):
            return winograd_conv2d(x, weight, self.bias, reflect=self._reflect)
        wide = full_precision(x)
        if self._reflect:
            wide, padding = F.pad(wide, (padding,) * 4, mode="reflect"), 0
        if self.in_channels == 1:
            y = _from_one_channel(wide, weight, self.bias, padding)
        elif self.out_channels == 1:
            y = _to_one_channel(wide, weight, self.bias, padding)
        else:
            y = F.conv2d(wide, weight, self.bias, padding=padding)
        return y.to(x.dtype)


def _from_one_channel(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """(B, 1, H, W) -> (B, C, h, w): every pixel's window times the kernels."""
    kernel = weight.shape[-1]
    height, width = _size(x, kernel, padding)
    windows = F.unfold(x, kernel, padding=padding).transpose(1, 2)  # (B, h * w, k * k)
    y = torch.addmm(bias, windows.flatten(0, 1), weight.flatten(1).T)  # (B * h * w, C)
    return y.view(len(x), height, width, -1).permute(0, 3, 1, 2)


def _to_one_channel(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """(B, C, H, W) -> (B, 1, h, w): what every pixel adds to the outputs around it, summed."""
    kernel = weight.shape[-1]
    flipped = weight[0].flip(1, 2).flatten(1)  # (C, k * k)
    shares = x.permute(0, 2, 3, 1).flatten(1, 2) @ flipped  # (B, H * W, k * k)
    size = _size(x, kernel, padding)
    return F.fold(shares.transpose(1, 2), size, kernel, padding=kernel - 1 - padding) + bias


def _size(x: Tensor, kernel: int, padding: int) -> tuple[int, int]:
    margin = 2 * padding - kernel + 1
    return x.shape[2] + margin, x.shape[3] + margin
