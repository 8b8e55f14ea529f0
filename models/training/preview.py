"""Pictures of a network's output for a piece of an image, made while the network trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import nn

from models.data.domain import Domain
from models.data.stylised import StylisedDomain
from models.inference import segment, stylise
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.training.progress import Picture

_SIDE_PX = 256


def translation(generator: Generator, target: Domain) -> Picture:
    """Show a piece of the target's first training section, as it is and in the source's style."""
    image = _middle(target.image(target.training_sections()[0]))
    with _evaluating(generator):
        return Picture(image, stylised=stylise(generator, image))


def segmentation(segmenter: UNet, domain: Domain, crop_px: int) -> Picture:
    """Show a piece of the domain's first training section, and the classes found in it."""
    section = domain.training_sections()[0]
    image = _middle(domain.image(section))
    with _evaluating(segmenter):
        classes = segment(segmenter, image, crop_px).argmax(axis=0).astype(np.uint8)
    if not isinstance(domain, StylisedDomain):
        return Picture(image, classes=classes)
    return Picture(_middle(domain.raw.image(section)), stylised=image, classes=classes)


def _middle(image: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, cols = (max(0, side - _SIDE_PX) // 2 for side in image.shape)
    return image[rows : rows + _SIDE_PX, cols : cols + _SIDE_PX]


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    # In training mode batch norm would learn from the picture.
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
