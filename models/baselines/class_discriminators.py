"""Paul et al.'s discriminators of domains, by the features of each class and by the output.

Both put out logits: high says target, low says source.

Legend: B batch, C classes, D width of a feature, R regions, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STRIDE = 32  # of OutputDiscriminator's five convolutions together


class ClassDiscriminators(nn.Module):
    """Fully connected layers D-D-D-1 for each class: features (R, C, D) -> logits (R, C)."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, 1),
            )
            for _ in range(num_classes)
        )

    def forward(self, features: Tensor) -> Tensor:
        scores = [
            mlp(of_class) for mlp, of_class in zip(self.mlps, features.unbind(1), strict=True)
        ]
        return torch.cat(scores, dim=1)


class OutputDiscriminator(nn.Module):
    """AdaptSegNet's discriminator (Tsai et al. 2018) of softmax maps (B, C, H, W).

    It gives logits (B, 1, H/32, W/32) by five 4x4 convolutions of stride 2, so H and W are at
    least 32.
    """

    def __init__(self, num_classes: int, base_filters: int = 64) -> None:
        super().__init__()
        widths = [num_classes, *(base_filters * factor for factor in (1, 2, 4, 8))]
        layers: list[nn.Module] = []
        for channels_in, channels_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.model = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, stride=2, padding=1))

    def forward(self, maps: Tensor) -> Tensor:
        scores: Tensor = self.model(maps)
        return scores

    @staticmethod
    def judged(inside: Tensor) -> Tensor:
        """Mark logits that judge more than padding: bool (B, H, W) inside -> bool (B, 1, h, w)."""
        size = [side // _STRIDE for side in inside.shape[-2:]]
        return F.adaptive_max_pool2d(inside[:, None].float(), size) > 0
