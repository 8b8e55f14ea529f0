"""CUT's discriminator: 70x70 PatchGAN with anti-aliased strides (reference b3ac297)."""

from torch import Tensor, nn

from models.networks.cpu.convolution import Convolution
from models.networks.cpu.instance_norm import InstanceNorm
from models.networks.cpu.resampling import BlurDown
from models.networks.generator import xavier_init


class Discriminator(nn.Module):
    """Score patches of images (B, 1, H, W) in [-1, 1]: (B, 1, h, w), near 1 for real, no sigmoid.

    H and W are at least 32; 32 gives 2, 128 gives 14, 256 gives 30.
    """

    def __init__(self, base_filters: int = 64) -> None:
        super().__init__()
        d = base_filters
        self.model = nn.Sequential(
            Convolution(1, d, 4, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            BlurDown(),
            *_conv_norm_leaky(d, 2 * d),
            BlurDown(),
            *_conv_norm_leaky(2 * d, 4 * d),
            BlurDown(),
            *_conv_norm_leaky(4 * d, 8 * d),
            Convolution(8 * d, 1, 4, padding=1),
        )
        xavier_init(self)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(x)
        return scores


def _conv_norm_leaky(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    return (
        Convolution(channels_in, channels_out, 4, padding=1),
        InstanceNorm(),
        nn.LeakyReLU(0.2, inplace=True),
    )
