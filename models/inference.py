"""Apply trained networks to whole images: stylise, segment, predict.

Legend: C classes, H height, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from models.data.domain import Domain, normalise, resample_image, working_shape
from models.data.stylised import StylisedDomain, array_name
from models.networks.generator import Generator
from models.networks.grey import from_network, to_network
from models.networks.statistics import norms
from models.networks.tiling import apply_tiled
from models.networks.unet import UNet
from models.training import identity
from models.training.progress import Progress, Report

Style = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A function that stylises a target image (H, W) in [0, 1]: CUT's generator, or a plain method."""


@dataclass(frozen=True)
class View:
    """A change of a target image that needs no model: of its grey values, and of its pixel size.

    The network sees the image at ``pixel_factor`` times the working pixel size.
    """

    grey: Style
    pixel_factor: float = 1.0

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Change the grey values of an image (H, W) in [0, 1]."""
        return self.grey(image)


# The generator halves an image twice, and then reflects a pixel at each border.
_GENERATOR_MULTIPLE, _GENERATOR_MIN_PX = 4, 8


def stylise(generator: Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return x* = theta_style(x) of an image (H, W) float32 in [0, 1], in the same shape and range.

    The image is reflect-padded to a multiple of 4 and cropped back. It is passed whole, because
    InstanceNorm normalises by the statistics of its input; only images too large for memory are
    cut into tiles.
    """
    height, width = image.shape
    missing = [
        (0, max(_GENERATOR_MIN_PX, -(-side // _GENERATOR_MULTIPLE) * _GENERATOR_MULTIPLE) - side)
        for side in image.shape
    ]
    padded = np.pad(image, missing, mode="reflect")
    return from_network(_apply(generator, padded, {})[0, :height, :width].numpy())


def segment(segmenter: UNet, image: NDArray[np.float32], crop_px: int) -> NDArray[np.float32]:
    """Return the probabilities (C, H, W) float32 of each class in an image (H, W) in [0, 1].

    ``segmenter`` is in eval mode. A side shorter than ``crop_px``, the side of the training crops,
    is padded with 0, as small sections were in training.
    """
    height, width = image.shape
    padded = np.pad(image, [(0, max(0, crop_px - side)) for side in image.shape])
    logits = _apply(segmenter, padded, _laid_out(segmenter))[:, :height, :width]
    probabilities: NDArray[np.float32] = logits.softmax(dim=0).numpy()
    return probabilities


@dataclass(frozen=True)
class Styliser:
    """A way to stylise target images; no other way has the same ``identity``."""

    style: Style
    identity: str

    @classmethod
    def by(cls, generator: Generator) -> Self:
        """Return the styliser that applies theta_style."""
        return cls(partial(stylise, generator), identity.of_weights(generator))


def stylise_domain(styliser: Styliser, target: Domain, out: Path, report: Report) -> StylisedDomain:
    """Stylise the target's training sections, and its validation sections with a mask.

    Adaptation reads no others. The images go to ``out``, a Zarr group that is replaced: (H, W)
    float32 in [0, 1] at the working pixel size. ``report`` is called after each section.
    """
    sections = target.split("train") + target.split("val", masked=True)
    group = zarr.open_group(str(out), mode="w")
    for step, section in enumerate(sections, start=1):
        group.create_array(array_name(section), data=styliser.style(target.image(section)))
        report(Progress("stylise", step, len(sections), {}))
    return StylisedDomain(target, out, styliser.identity)


@dataclass(frozen=True)
class Prediction:
    """The segmentation of one image, at the image's own size.

    ``mask`` (H, W) uint8 holds class ids, ``probabilities`` is (C, H, W) float32 in [0, 1].
    """

    mask: NDArray[np.uint8]
    probabilities: NDArray[np.float32]

    def within(self, allowed: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the most likely class of each pixel among the allowed ones: (H, W) uint8.

        ``allowed`` is bool (C, h, w) at any pixel size; a pixel takes its nearest value. Where
        nothing is allowed, the class of ``mask`` stays.
        """
        # (i + 1/2) * given / side, rounded down: in integers, so that no border is rounded away.
        rows, cols = (
            (2 * np.arange(side) + 1) * given // (2 * side)
            for side, given in zip(self.mask.shape, allowed.shape[1:], strict=True)
        )
        allowed = allowed[:, rows[:, None], cols]
        chosen = np.where(allowed, self.probabilities, -1).argmax(axis=0)
        return np.where(allowed.any(axis=0), chosen, self.mask).astype(np.uint8)


@dataclass(frozen=True)
class Predictor:
    """A segmenter with its ``style``, which work at ``working_nm`` nanometres per pixel.

    ``view`` changes every image first, its grey values and its size. Without ``style`` only raw
    images are predicted. ``crop_px`` is the side of the crops that the segmenter was trained on.
    """

    segmenter: UNet
    working_nm: float
    crop_px: int
    style: Style | None = None
    view: View | None = None

    @property
    def seen_nm(self) -> float:
        """The pixel size at which the segmenter sees images: the working size times the view's."""
        return self.working_nm * (1.0 if self.view is None else self.view.pixel_factor)

    def probabilities(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (C, H, W) float32 for an image (H, W) in [0, 1] at the pixel size ``seen_nm``.

        Its grey values pass through ``view`` and ``style`` first, if they are there.
        """
        for change in (self.view, self.style):
            image = image if change is None else change(image)
        return segment(self.segmenter, image, self.crop_px)

    def predict(
        self,
        image: NDArray[np.generic],
        pixel_size_nm: float | tuple[float, float],
        *,
        intensity_window: tuple[float, float],
        stylise: bool,
    ) -> Prediction:
        """Segment an image (H, W) of grey values, as it is stored, at its own size.

        ``pixel_size_nm`` is the size along both axes, or along y and x. ``intensity_window``
        (low, high) holds the grey values that become 0 and 1. ``stylise``
        passes the image through ``style`` first.

        Raises:
            ValueError: the image is not (H, W), or there is no style to pass it through.
        """
        shape = working_shape(_size(image), pixel_size_nm, self.seen_nm)
        working = resample_image(normalise(image, intensity_window), shape)
        if stylise and self.style is None:
            raise ValueError("a stylised prediction was asked for, but there is no style model")
        applied = self if stylise else replace(self, style=None)
        probabilities = applied.probabilities(working)
        # Probabilities are resampled, not classes: a border then runs between the coarse pixels.
        native = np.stack([resample_image(p, _size(image)) for p in probabilities])
        return Prediction(native.argmax(axis=0).astype(np.uint8), native)


def _apply(network: nn.Module, image: NDArray[np.float32], weights: dict[str, Tensor]) -> Tensor:
    """Return the network's output (C, H, W) float32, on the CPU, for an image (H, W) in [0, 1].

    ``weights`` takes the place of the network's own weights of the same names.
    """
    weight = next(network.parameters())

    def run(tile: Tensor) -> Tensor:
        output: Tensor = functional_call(network, weights, tile.to(weight))
        return output.to("cpu", torch.float32)

    # Not inference_mode: the convolutions keep tensors for the next call, which may train.
    with torch.no_grad():
        return apply_tiled(run, torch.from_numpy(to_network(image))[None, None])[0]


def _size(image: NDArray[np.generic]) -> tuple[int, int]:
    if image.ndim != 2:
        raise ValueError(f"a grey image (H, W) is needed, not one of shape {image.shape}")
    return image.shape[0], image.shape[1]


def _laid_out(segmenter: UNet) -> dict[str, Tensor]:
    """Return the weights of convolutions with the channels of a pixel side by side, on a CPU.

    A processor convolves a large image up to twice as fast in this layout. The network keeps its
    own layout, so that its training goes on with the same rounding. Networks with another norm than
    batch norm get none: group norm is less exact in this layout.
    """
    if not norms(segmenter):
        return {}
    return {
        name: weight.contiguous(memory_format=torch.channels_last)
        for name, weight in segmenter.named_parameters()
        if weight.ndim == 4 and weight.device.type == "cpu"
    }
