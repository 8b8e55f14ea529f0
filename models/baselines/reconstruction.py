"""Y-Net's second decoder (Roels et al. 2019): an image from the bottleneck alone.

Legend: B batch, H height, W width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.config.stages import SegmenterConfig
from models.networks.unet import DoubleConv


class ReconstructionDecoder(nn.Module):
    """A decoder of the U-Net encoder's coarsest features into grey images (B, 1, H, W).

    It is as deep and as wide as the U-Net's own decoder, but has no skips: through them the image
    would pass unencoded. The images are meant for [0, 1], but the output is linear and not clipped.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        filters = [config.base_filters * 2**level for level in range(config.depth, -1, -1)]
        pairs = list(zip(filters, filters[1:], strict=False))
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for coarse, fine in pairs
        )
        self.convs = nn.ModuleList(DoubleConv(fine, fine, config.norm) for _, fine in pairs)
        self.head = nn.Conv2d(filters[-1], 1, 1)

    def forward(self, code: Tensor, height: int, width: int) -> Tensor:
        """Return images (B, 1, H, W) of a code (B, filters * 2^depth, H / 2^depth, W / 2^depth)."""
        x, levels = code, range(len(self.ups) - 1, -1, -1)
        for level, up, conv in zip(levels, self.ups, self.convs, strict=True):
            x = conv(_padded(up(x), height >> level, width >> level))
        image: Tensor = self.head(x)
        return image


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    """Pad with 0, as the U-Net's decoder does, to the size that poolings halved and floored."""
    rows, cols = height - x.shape[-2], width - x.shape[-1]
    return F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
