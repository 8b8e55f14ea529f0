"""The segmenter's network."""

import pytest
import torch

from models.config.stages import SegmenterConfig
from models.networks.unet import UNet


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
@pytest.mark.parametrize("size", [(32, 32), (33, 50), (61, 125), (49, 32)])
def test_unet_keeps_any_size(norm: str, size: tuple[int, int]) -> None:
    unet = UNet(3, SegmenterConfig(base_filters=4, norm=norm)).eval()
    assert unet(torch.zeros(2, 1, *size)).shape == (2, 3, *size)


def test_unet_refuses_what_its_poolings_would_erase() -> None:
    with pytest.raises(ValueError, match="31x40 px.* 32 px"):
        UNet(3, SegmenterConfig(base_filters=4))(torch.zeros(1, 1, 31, 40))


@torch.no_grad()
def test_unet_concatenates_the_skip_first() -> None:
    """Without the weights of the second half of the channels, nothing deeper is seen."""
    unet = UNet(2, SegmenterConfig(base_filters=4, depth=1)).eval()
    x = torch.randn(1, 1, 8, 8, generator=torch.manual_seed(0))
    unet.ups[0].conv[0].weight[:, 4:] = 0
    shallow = unet(x)
    unet.downs[0][0].weight.mul_(2)
    assert torch.equal(unet(x), shallow)
    unet.ups[0].conv[0].weight[:, 4:] = 1
    assert not torch.equal(unet(x), shallow)
