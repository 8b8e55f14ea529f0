"""Count the bytes of images: in the cache of a domain, and while a network is applied to them.

Free of torch. Legend: H height, W width.
"""

from collections.abc import Sequence

from models.data.domain import CACHE_BYTES
from models.networks.sizes import TILE_PX, WHOLE_PX

FLOAT_BYTES = 4


def pixels(shapes: Sequence[tuple[int, int]]) -> int:
    """Count the pixels of images of shapes (H, W)."""
    return sum(height * width for height, width in shapes)


def cached(shapes: Sequence[tuple[int, int]]) -> int:
    """Return the bytes of cached sections: all, or as many as the cache holds, at least one."""
    # Five bytes a pixel: an image in float32 and a mask.
    largest = max((height * width for height, width in shapes), default=0)
    return max(min(5 * pixels(shapes), CACHE_BYTES), 5 * largest)


def applied(shapes: Sequence[tuple[int, int]], per_pixel: int, channels: int) -> int:
    """Return the bytes that a network takes for the largest image, whole or in summed-up tiles."""
    most = 0
    for height, width in shapes:
        area = height * width
        if max(height, width) <= WHOLE_PX:
            most = max(most, area * per_pixel)
        else:
            tile = min(height, TILE_PX) * min(width, TILE_PX)
            most = max(most, tile * per_pixel + 4 * channels * area)
    return FLOAT_BYTES * most
