"""CUT's generator: ResNet with anti-aliased resampling (Park et al. 2020, reference b3ac297).

The layers are one flat sequence: PatchNCE's taps, and the names of weights, are indices into it.
Legend: B batch, C channels, H height, W width, c base filters.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from models.networks.cpu.convolution import Convolution
from models.networks.cpu.instance_norm import InstanceNorm
from models.networks.cpu.resampling import BlurDown, BlurUp

TAPS = (0, 4, 8, 12, 16)
"""Layers whose output PatchNCE compares: padded input, two convolutions, blocks one and five."""

XAVIER_GAIN = 0.02  # the reference's


class ResidualBlock(nn.Module):
    """x + two reflect-padded 3x3 convolutions; no activation behind the sum.

    The convolutions pad themselves. An ``Identity`` takes the place of the reference's padding
    layers, so that weights have the reference's names.
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
        """Return the translation (B, 1, H, W) of ``x`` and its tapped features, in one pass."""
        return _run(self.model, x)


def tap_sizes(height: int, width: int) -> tuple[int, ...]:
    """Return the number of positions of each tap's map.

    ``height`` and ``width`` of the input are multiples of 4.
    """
    # The first tap is the input padded by 3 pixels on each side.
    full, quarter = height * width, (height // 4) * (width // 4)
    return ((height + 6) * (width + 6), full, 4 * quarter, quarter, quarter)


def xavier_init(module: nn.Module) -> None:
    """Initialise as the reference does: Xavier normal with gain 0.02 for weights, biases zero."""
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
