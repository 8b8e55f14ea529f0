"""U-Net (Ronneberger et al. 2015) for images of any size; layout of Simael/mlds-unet f541501.

Legend: B batch, C classes, H height, W width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config.stages import NormName, SegmenterConfig


class DoubleConv(nn.Sequential):
    """Twice a 3x3 convolution (zero padding), a normalisation and a ReLU."""

    def __init__(self, channels_in: int, channels_out: int, norm: NormName) -> None:
        super().__init__(
            *_conv_norm_relu(channels_in, channels_out, norm),
            *_conv_norm_relu(channels_out, channels_out, norm),
        )


class Up(nn.Module):
    """A transposed 2x2 convolution, zero-padded to the skip's size; then ``DoubleConv`` of both."""

    def __init__(self, channels_in: int, channels_out: int, norm: NormName) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2)
        self.conv = DoubleConv(2 * channels_out, channels_out, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        rows, cols = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
        # Poolings round down, so the skip may be a pixel larger.
        x = F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
        merged: Tensor = self.conv(torch.cat([skip, x], dim=1))
        return merged


class UNet(nn.Module):
    """The U-Net: grey images (B, 1, H, W) float in [-1, 1] -> logits (B, C, H, W).

    A grey value x in [0, 1] is given as 2x - 1. Every class has a channel of its own; there is no
    extra background channel. H and W are at least ``min_px``.
    """

    def __init__(self, num_classes: int, config: SegmenterConfig) -> None:
        super().__init__()
        filters = [config.base_filters * 2**level for level in range(config.depth + 1)]
        self.num_classes = num_classes
        self.min_px = config.min_px
        self.stem = DoubleConv(1, filters[0], config.norm)
        self.downs = nn.ModuleList(
            DoubleConv(fine, coarse, config.norm)
            for fine, coarse in zip(filters, filters[1:], strict=False)
        )
        self.ups = nn.ModuleList(
            Up(coarse, fine, config.norm)
            for coarse, fine in zip(filters[:0:-1], filters[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(filters[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decode(self.encode(x)))
        return logits

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return features (B, filters * 2^level, H / 2^level, W / 2^level), from fine to coarse.

        Raises:
            ValueError: a side of the image is shorter than ``min_px``.
        """
        if min(x.shape[-2:]) < self.min_px:
            raise ValueError(
                f"image of {x.shape[-2]}x{x.shape[-1]} px is smaller than {self.min_px} px"
            )
        features = [self.stem(x)]
        for down in self.downs:
            features.append(down(F.max_pool2d(features[-1], 2)))
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the features (B, filters, H, W) that the head reads, from those of the encoder."""
        *skips, x = features
        for up in self.ups:
            x = up(x, skips.pop())
        return x


def _conv_norm_relu(channels_in: int, channels_out: int, norm: NormName) -> tuple[nn.Module, ...]:
    # Without bias, because the norm that follows has a shift.
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return conv, _normalisation(norm, channels_out), nn.ReLU(inplace=True)


def _normalisation(norm: NormName, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    return nn.GroupNorm(channels, channels)  # instance norm; torch's own has a wrong gradient
