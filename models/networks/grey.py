"""The grey scale of the networks' inputs and outputs; free of torch.

Images are kept in [0, 1]; the generator and the U-Net see them in [-1, 1], as CUT's authors do.
"""

import numpy as np
from numpy.typing import NDArray


def to_network(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map grey values of any shape from [0, 1] to [-1, 1]; float32."""
    return images * 2 - 1


def from_network(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map grey values of any shape from [-1, 1] to [0, 1]; float32."""
    return (images + 1) / np.float32(2)
