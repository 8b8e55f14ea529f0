"""Small datasets for the tests of ``models``: two grey levels, and a square of class 1."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor, nn

from models.data.domain import Domain, DomainInfo, Tile
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.data.sections import Section, Split
from models.training.device import cpu_has_bf16
from models.training.loop import Run
from models.training.progress import Progress

WINDOW = (0.0, 255.0)

NEEDS_BF16 = pytest.mark.skipif(not cpu_has_bf16(), reason="no bfloat16 on this processor")


def write_domain(
    store: Path,
    images: Sequence[NDArray[np.generic]],
    masks: Sequence[NDArray[np.uint8] | None],
    splits: Sequence[Split],
    tiles: Sequence[Tile] = (),
    **info: object,
) -> Domain:
    """Write a store and open it; ``info`` overrides name, classes, pixel size, window, nm."""
    group = zarr.open_group(str(store), mode="w")
    sections = []
    for index, (image, mask, split) in enumerate(zip(images, masks, splits, strict=True)):
        group.create_array(f"images/{index:06d}", data=image)
        if mask is not None:
            group.create_array(f"masks/{index:06d}", data=mask)
        sections.append(Section(index, f"s{index}", split, *image.shape, mask is not None))
    working_nm = info.pop("working_nm", None)
    facts = {
        "name": store.stem,
        "class_names": ("background", "square"),
        "pixel_size_nm": 4.0,
        "intensity_window": WINDOW,
        "digest": str(store),
        **info,
    }
    return Domain(store, DomainInfo(**facts), sections, tiles, working_nm=working_nm)


def squares(
    side: int, seed: int, *, bright: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A noisy image (side, side) with one square brighter (or darker) than the rest; its mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((side, side), np.uint8)
    y, x = rng.integers(side // 2, size=2)
    mask[y : y + side // 3, x : x + side // 3] = 1
    step = 80 if bright else -80
    image = 128 + step * mask.astype(int) + rng.integers(-20, 20, mask.shape)
    return image.clip(0, 255).astype(np.uint8), mask


def square_domain(
    store: Path, *, side: int = 48, bright: bool = True, tiles: Sequence[Tile] = ()
) -> Domain:
    """Three training sections, one of validation, one of test, all with masks."""
    pairs = [squares(side, seed, bright=bright) for seed in range(5)]
    images, masks = zip(*pairs, strict=True)
    return write_domain(store, images, masks, ["train", "train", "train", "val", "test"], tiles)


def ignore(progress: Progress) -> None:
    assert progress.step <= progress.total


QUIET = Run(ignore)


def equal_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


U, A, P = UNKNOWN, ABSENT, PRESENT


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))
