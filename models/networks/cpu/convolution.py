"""A 2D convolution that takes the quickest way on a CPU, and torch's own on other devices.

It works in channels-last layout. A layer with one channel in or out, where torch's convolution
reaches a tenth of the speed, is one matrix product with im2col (Chellapilla, Puri and Simard 2006,
"High Performance Convolutional Neural Networks for Document Processing") or its adjoint. Wide
layers go by Winograd's algorithm (``winograd.py``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.cpu.winograd import winograd_conv2d
from models.networks.sizes import WINOGRAD_FROM


class Convolution(nn.Conv2d):
    """A convolution of stride 1 with a square kernel: (B, C, H, W) -> (B, D, h, w).

    ``padding`` pixels, zeros or reflected ones, are added on every side. ``winograd_from`` is the
    number of channels in and out from which a layer on a CPU goes by Winograd's algorithm.
    """

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
        if torch.is_autocast_enabled("cpu"):
            return super().forward(x)  # torch's own is the quickest in bfloat16
        assert self.bias is not None
        padding = int(self.padding[0])
        least = min(self.in_channels, self.out_channels)
        if least >= self.winograd_from and padding == 1 and self.kernel_size[0] in (3, 4):
            return winograd_conv2d(x, self.weight, self.bias, reflect=self._reflect)
        if self._reflect:
            x, padding = F.pad(x, (padding,) * 4, mode="reflect"), 0
        if self.in_channels == 1:
            return _from_one_channel(x, self.weight, self.bias, padding)
        if self.out_channels == 1:
            return _to_one_channel(x, self.weight, self.bias, padding)
        return F.conv2d(x, self.weight, self.bias, padding=padding)


def _from_one_channel(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """Convolve (B, 1, H, W) to (B, C, h, w): multiply every pixel's window with the kernels."""
    kernel = weight.shape[-1]
    height, width = _size(x, kernel, padding)
    windows = F.unfold(x, kernel, padding=padding).transpose(1, 2)  # (B, h * w, k * k)
    y = torch.addmm(bias, windows.flatten(0, 1), weight.flatten(1).T)  # (B * h * w, C)
    return y.view(len(x), height, width, -1).permute(0, 3, 1, 2)


def _to_one_channel(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """Convolve (B, C, H, W) to (B, 1, h, w): sum what every pixel adds to the outputs around it."""
    kernel = weight.shape[-1]
    flipped = weight[0].flip(1, 2).flatten(1)  # (C, k * k)
    shares = x.permute(0, 2, 3, 1).flatten(1, 2) @ flipped  # (B, H * W, k * k)
    size = _size(x, kernel, padding)
    return F.fold(shares.transpose(1, 2), size, kernel, padding=kernel - 1 - padding) + bias


def _size(x: Tensor, kernel: int, padding: int) -> tuple[int, int]:
    margin = 2 * padding - kernel + 1
    return x.shape[2] + margin, x.shape[3] + margin
