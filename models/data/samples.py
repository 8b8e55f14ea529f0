"""Random square crops of sections, as the batches of every stage.

Every draw comes from the sample's own random numbers (``sampling.py``).

Legend: B batch, C classes, S side of the crop in pixels of the working size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.config.stages import AdaptationConfig, SegmenterTrainingConfig
from models.data.augmentation import photometric
from models.data.domain import IGNORE, Domain, resample_image, resample_mask
from models.data.sampling import Sample
from models.data.sections import Section
from models.data.stylised import StylisedDomain
from models.networks.grey import to_network

A = TypeVar("A", bound=np.generic)


@dataclass(frozen=True)
class Crop:
    """A square window of a section, ``mirrored`` or not, then turned by 90 degrees a few times."""

    section: Section
    y0: int
    x0: int
    side: int
    quarter_turns: int = 0
    mirrored: bool = False

    @property
    def rows(self) -> slice:
        return slice(self.y0, self.y0 + self.side)

    @property
    def cols(self) -> slice:
        return slice(self.x0, self.x0 + self.side)

    def padded(self, array: NDArray[A], fill: float) -> NDArray[A]:
        """Cut (..., H, W) to (..., S, S); below and right of the section it is ``fill``."""
        return self.completed(self._window(array), fill)

    def completed(self, window: NDArray[A], fill: float) -> NDArray[A]:
        """Pad and turn a window that is cut to ``rows`` and ``cols`` already, as in ``padded``."""
        return self._turned(_padded(window, self.side, fill))

    def reflected(self, array: NDArray[A]) -> NDArray[A]:
        """Cut (H, W) to (S, S); smaller sections are continued by reflection."""
        window = self._window(array)
        return self._turned(np.pad(window, _missing(window, self.side), mode="reflect"))

    def _window(self, array: NDArray[A]) -> NDArray[A]:
        return array[..., self.rows, self.cols]

    def _turned(self, array: NDArray[A]) -> NDArray[A]:
        mirrored = array[..., ::-1] if self.mirrored else array
        return np.rot90(mirrored, self.quarter_turns, axes=(-2, -1))


@dataclass(frozen=True)
class SourceBatch:
    """Labelled crops: images (B, 1, S, S) float32 in [0, 1], masks (B, S, S) int64 with 255.

    ``inside``, (B, S, S) bool, is False in padding. Pixels without a class have the mask 255 too.
    """

    images: NDArray[np.float32]
    masks: NDArray[np.int64]
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class TargetBatch:
    """Target crops: the images to label, the views of the student, and the allowed labels.

    ``stylised`` is (B, 1, S, S) float32 in [0, 1]. ``students`` is (B, V, 1, S, S): the V views
    that the student sees (stylised, raw, or both in this order), with photometric noise.
    ``allowed`` is (B, C, S, S) bool. ``inside``, (B, S, S) bool, is False in padding. ``crops`` are
    the B windows that were cut.
    """

    stylised: NDArray[np.float32]
    students: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    crops: tuple[Crop, ...]


BatchT = TypeVar("BatchT", SourceBatch, TargetBatch)


def random_crop(domain: Domain, section: Section, side: int, rng: np.random.Generator) -> Crop:
    """Return a window at a random place; along a side that is too short it starts at 0."""
    height, width = domain.working_shape(section)
    y0 = int(rng.integers(max(0, height - side) + 1))
    x0 = int(rng.integers(max(0, width - side) + 1))
    return Crop(section, y0, x0, side)


def segmentation_crop(
    domain: Domain,
    section: Section,
    config: SegmenterTrainingConfig,
    rng: np.random.Generator,
    *,
    side: int | None = None,
) -> Crop:
    """Return a random window of ``side`` pixels, or ``crop_px``, with the paper's rotation."""
    crop = random_crop(domain, section, side or config.crop_px, rng)
    turns = int(rng.integers(4)) if config.augmentation.rotate else 0
    return Crop(section, crop.y0, crop.x0, crop.side, turns)


def style_image(
    domain: Domain, section: Section, side: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a CUT crop (S, S), float32 in [-1, 1].

    Its window is random, mirrored and rotated at random, and never resized.
    """
    crop = random_crop(domain, section, side, rng)
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    crop = Crop(section, crop.y0, crop.x0, side, turns, mirrored)
    # Reflected, not zero-padded: black borders would become part of the style.
    return to_network(crop.reflected(domain.image(section)))


def source_batch(
    domain: Domain, samples: Sequence[Sample], config: SegmenterTrainingConfig
) -> SourceBatch:
    """Return one augmented labelled crop of each sample; padding is 0 with mask 255.

    A zoomed crop is resampled: its image with interpolation, its mask by the class of most area.
    """
    images, masks, insides = [], [], []
    shape = config.crop_px, config.crop_px
    for sample in samples:
        side = _zoomed(config, sample.rng)
        crop = segmentation_crop(domain, sample.section, config, sample.rng, side=side)
        image = resample_image(crop.padded(domain.image(sample.section), 0), shape)
        insides.append(_resample_inside(_inside(crop, domain), shape))
        images.append(_noisy(image, insides[-1], config, sample.rng))
        mask = resample_mask(crop.padded(domain.mask(sample.section), IGNORE), shape)
        # Where resampling mixed padding in, image and mask must agree on what is inside.
        masks.append(np.where(insides[-1], mask, IGNORE).astype(np.int64))
    return SourceBatch(np.stack(images)[:, None], np.stack(masks), np.stack(insides))


def target_batch(
    target: StylisedDomain, samples: Sequence[Sample], config: AdaptationConfig
) -> TargetBatch:
    """Return one crop of each sample, of the same geometry in all views and in ``allowed``."""
    crops = [segmentation_crop(target, s.section, config, s.rng) for s in samples]
    insides = [_inside(crop, target) for crop in crops]
    views = {
        "stylised": (target,),
        "raw": (target.raw,),
        "both": (target, target.raw),
    }[config.student_view]
    students = [
        [
            _noisy(crop.padded(view.image(crop.section), 0), inside, config, sample.rng)
            for view in views
        ]
        for crop, inside, sample in zip(crops, insides, samples, strict=True)
    ]
    allowed = [c.completed(target.allowed(c.section, c.rows, c.cols), fill=False) for c in crops]
    return TargetBatch(
        stylised=np.stack([c.padded(target.image(c.section), 0) for c in crops])[:, None],
        students=np.stack([np.stack(images)[:, None] for images in students]),
        allowed=np.stack(allowed),
        inside=np.stack(insides),
        crops=tuple(crops),
    )


def parts(batch: BatchT, number: int) -> list[BatchT]:
    """Divide a batch along its first axis into ``number`` equal parts."""
    of_batch = {field.name: getattr(batch, field.name) for field in fields(batch)}
    size = len(batch.inside) // number  # the config checks that nothing remains
    return [
        replace(batch, **{name: each[i * size : (i + 1) * size] for name, each in of_batch.items()})
        for i in range(number)
    ]


def _noisy(
    image: NDArray[np.float32],
    inside: NDArray[np.bool_],
    config: SegmenterTrainingConfig,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    return photometric(image, config.augmentation, rng) * inside  # padding stays 0


def _zoomed(config: SegmenterTrainingConfig, rng: np.random.Generator) -> int:
    """Return the side of the window that a random zoom enlarges or shrinks to a crop."""
    zoom = config.augmentation.zoom
    # Without a draw where there is no zoom, as in ``photometric``.
    return round(config.crop_px * np.exp(rng.uniform(-zoom, zoom))) if zoom else config.crop_px


def _resample_inside(inside: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    return resample_mask(inside.astype(np.uint8), shape).astype(np.bool_)


def _inside(crop: Crop, domain: Domain) -> NDArray[np.bool_]:
    # Broadcast, because a section of True takes no memory in this form.
    everywhere = np.broadcast_to(np.True_, domain.working_shape(crop.section))
    return crop.padded(everywhere, fill=False)


def _padded(window: NDArray[A], side: int, fill: float) -> NDArray[A]:
    lead = [(0, 0)] * (window.ndim - 2)
    return np.pad(window, lead + _missing(window, side), constant_values=fill)


def _missing(window: NDArray[A], side: int) -> list[tuple[int, int]]:
    return [(0, side - window.shape[-2]), (0, side - window.shape[-1])]
