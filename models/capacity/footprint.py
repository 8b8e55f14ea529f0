"""Count the networks' parameters and the values that they keep for the gradient; free of torch.

Both are counted layer by layer from the architectures in ``models/networks``; kept values are those
of one image in float32. tests/models/capacity/test_estimate.py compares with the real networks.

Legend: c, d, f filters, px side of a square image.
"""

from models.config.stages import Device, SegmenterConfig, StyleConfig
from models.networks.sizes import WINOGRAD_FROM

TAPPED_BLOCKS = 5
"""The number of residual blocks that PatchNCE's encoder runs through."""


def generator_parameters(style: StyleConfig) -> int:
    """Count the parameters of CUT's generator."""
    c = style.base_filters
    ends = _conv(1, c, 7) + _conv(c, 1, 7)
    down = _conv(c, 2 * c, 3) + _conv(2 * c, 4 * c, 3)
    up = _conv(4 * c, 2 * c, 3) + _conv(2 * c, c, 3)
    return ends + down + up + 2 * style.num_blocks * _conv(4 * c, 4 * c, 3)


def discriminator_parameters(style: StyleConfig) -> int:
    """Count the parameters of CUT's discriminator."""
    d = style.base_filters
    pairs = ((1, d), (d, 2 * d), (2 * d, 4 * d), (4 * d, 8 * d), (8 * d, 1))
    return sum(_conv(inside, outside, 4) for inside, outside in pairs)


def projector_parameters(style: StyleConfig) -> int:
    """Count the parameters of CUT's patch projector."""
    width = style.projector_width
    return sum(_conv(inside, width, 1) + _conv(width, width, 1) for inside in tap_channels(style))


def segmenter_parameters(segmenter: SegmenterConfig, num_classes: int) -> int:
    """Count the parameters of the U-Net."""
    filters = _filters(segmenter)
    down = sum(_double_conv(i, f) for i, f in zip((1, *filters), filters, strict=False))
    up = sum(_conv(2 * fine, fine, 2) + _double_conv(2 * fine, fine) for fine in filters[:-1])
    return down + up + _conv(filters[0], num_classes, 1)


def tap_channels(style: StyleConfig) -> tuple[int, ...]:
    """Return the channels of the five features that PatchNCE compares."""
    c = style.base_filters
    return 1, 2 * c, 4 * c, 4 * c, 4 * c


def tap_values(style: StyleConfig) -> int:
    """Count the values of the five features that PatchNCE compares."""
    c, px = style.base_filters, style.crop_px
    return (px + 6) ** 2 + 2 * c * px**2 + 4 * c * (px // 2) ** 2 + 2 * 4 * c * (px // 4) ** 2


def encoder_values(style: StyleConfig, num_blocks: int, device: Device) -> int:
    """Count the values that the generator keeps of a crop, through ``num_blocks`` blocks."""
    c, px = style.base_filters, style.crop_px
    half, quarter = px // 2, px // 4
    # On a CPU a convolution of one channel keeps its windows.
    first = 49 * px**2 if device == "cpu" else (px + 6) ** 2
    # After a convolution the norm and ReLU keep a map each, and the blur keeps nothing.
    full_size = 2 * c * px**2 + 2 * 2 * c * px**2
    half_size = 2 * c * half**2 + 2 * 4 * c * half**2
    # Winograd's algorithm pads inside itself.
    padded = 0 if device == "cpu" and 4 * c >= WINOGRAD_FROM else 2 * 4 * c * (quarter + 2) ** 2
    return first + full_size + half_size + num_blocks * (4 * 4 * c * quarter**2 + padded)


def generator_values(style: StyleConfig, device: Device) -> int:
    """Count the values that the generator keeps of a crop that it translates."""
    c, px = style.base_filters, style.crop_px
    half = px // 2
    up = 4 * c * half**2 + 2 * 2 * c * half**2 + 2 * c * px**2 + 2 * c * px**2
    last = c * (px + 6) ** 2 + px**2
    return encoder_values(style, style.num_blocks, device) + up + last


def discriminator_values(style: StyleConfig, device: Device) -> int:
    """Count the values that the discriminator keeps of a crop."""
    d, px = style.base_filters, style.crop_px
    side = px - 1
    values = (16 if device == "cpu" else 1) * side**2 - d * side**2  # no norm after the first
    for filters in (d, 2 * d, 4 * d):
        blurred = -(-side // 2)
        values += filters * (2 * side**2 + blurred**2)
        side = blurred - 1
    return values + 2 * 8 * d * side**2


def projection_values(style: StyleConfig) -> int:
    """Count the values that the projector and PatchNCE keep of a crop."""
    width, px = style.projector_width, style.crop_px
    taps = ((px + 6) ** 2, px**2, (px // 2) ** 2, (px // 4) ** 2, (px // 4) ** 2)
    values = 0
    for channels, size in zip(tap_channels(style), taps, strict=True):
        patches = min(style.num_patches, size)
        values += patches * (channels + 3 * width) + patches**2
    return values


def segmenter_values(segmenter: SegmenterConfig, num_classes: int, px: int) -> int:
    """Count the values that the U-Net and its cross-entropy keep of a crop of side ``px``."""
    *finer, coarsest = _filters(segmenter)
    side, values = px, px**2
    for filters in finer:
        double_convs = 2 * 4 * filters * side**2
        merged = 2 * filters * side**2
        side //= 2
        pooled = 3 * filters * side**2  # with indices in 64 bits
        values += double_convs + merged + pooled
    return values + 4 * coarsest * side**2 + (num_classes + 2) * px**2


def _filters(segmenter: SegmenterConfig) -> list[int]:
    return [segmenter.base_filters * 2**level for level in range(segmenter.depth + 1)]


def _conv(inside: int, outside: int, kernel: int) -> int:
    return inside * outside * kernel**2 + outside


def _double_conv(inside: int, outside: int) -> int:
    """Count two 3x3 convolutions without bias, each followed by a scale and a shift."""
    return 9 * (inside + outside) * outside + 4 * outside
