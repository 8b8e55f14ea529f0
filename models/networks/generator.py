"""CUT's generator: ResNet with anti-aliased resampling (Park et al. 2020, reference b3ac297).

One flat sequence: the index of a layer matters, because PatchNCE taps are indices into it.
Legend: B batch, C channels, H height, W width, c base filters.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.losses import full_precision
from models.networks.convolution import Convolution
from models.networks.instance_norm import InstanceNorm

TAPS = (0, 4, 8, 12, 16)
"""Layers whose output PatchNCE compares: padded input, two convolutions, blocks one and five."""

XAVIER_GAIN = 0.02


class BlurDown(nn.Module):
    """Halve H and W (rounded up) behind the blur outer([1, 2, 1], [1, 2, 1]) / 16; in float32."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps) / 16, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        padded = F.pad(full_precision(x), (1, 1, 1, 1), mode="reflect")
        weight = self.kernel.expand(channels, 1, 3, 3)
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(padded, weight, stride=2, groups=channels).to(x.dtype)


class BlurUp(nn.Module):
    """Double H and W; the reference's [1, 3, 3, 1] blur is bilinear interpolation exactly."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """x + two reflect-padded 3x3 convolutions; no activation behind the sum.

    The convolutions pad; an ``Identity`` stands where the reference has a layer that does, so that
    weights keep their names.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Identity(),
            Convolution(channels, channels, 3, padding=1, reflect=True),
            InstanceNorm(),
            nn.ReLU(inplace=True),
            nn.Identity(),
            Convolution(channels, channels, 3, padding=1, reflect=True),
            InstanceNorm(),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv_block(x)
        return x + residual


class Generator(nn.Module):
    """Translate grey images (B, 1, H, W) in [-1, 1] to the same shape and range.

    H and W are multiples of 4 and at least 8.
    """

    def __init__(self, base_filters: int = 64, num_blocks: int = 9) -> None:
        super().__init__()
        c = base_filters
        self.tap_channels = (1, 2 * c, 4 * c, 4 * c, 4 * c)
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_conv_norm_relu(Convolution(1, c, 7, padding=0)),
            *_conv_norm_relu(Convolution(c, 2 * c, 3, padding=1)),
            BlurDown(),
            *_conv_norm_relu(Convolution(2 * c, 4 * c, 3, padding=1)),
            BlurDown(),
            *(ResidualBlock(4 * c) for _ in range(num_blocks)),
            BlurUp(),
            *_conv_norm_relu(Convolution(4 * c, 2 * c, 3, padding=1)),
            BlurUp(),
            *_conv_norm_relu(Convolution(2 * c, c, 3, padding=1)),
            nn.ReflectionPad2d(3),
            Convolution(c, 1, 7, padding=0),
            nn.Tanh(),
        )
        xavier_init(self)

    def forward(self, x: Tensor) -> Tensor:
        translated: Tensor = self.model(x)
        return translated

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the five tapped features of ``x``, each (B, C, H', W')."""
        return _run(list(self.model)[: TAPS[-1] + 1], x)[1]

    def translate(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the translation and the tapped features of ``x``: one pass for both."""
        return _run(self.model, x)


def tap_sizes(height: int, width: int) -> tuple[int, ...]:
    """Number of positions of each tap's map for an input of height x width, multiples of 4."""
    full, quarter = height * width, (height // 4) * (width // 4)
    return ((height + 6) * (width + 6), full, 4 * quarter, quarter, quarter)


def xavier_init(module: nn.Module) -> None:
    """The reference's default: Xavier normal with gain 0.02 for all weights, biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(layer.weight, gain=XAVIER_GAIN)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _conv_norm_relu(conv: Convolution) -> tuple[nn.Module, ...]:
    return conv, InstanceNorm(), nn.ReLU(inplace=True)


def _run(layers: Iterable[nn.Module], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    taps = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in TAPS:
            taps.append(x)
    return x, taps
