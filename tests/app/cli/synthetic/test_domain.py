"""The synthetic domains: reproducible, labelled as stated, alike in biology, unlike in imaging."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from app.cli.synthetic.domain import (
    CLASSES,
    CYTOSOL,
    MEMBRANE,
    MITOCHONDRION,
    NUCLEUS,
    VESICLE,
    DomainName,
    SyntheticSection,
    make_section,
    write_domain,
)
from models.data.domain import IGNORE

pytestmark = pytest.mark.heavy

DOMAINS: tuple[DomainName, ...] = get_args(DomainName)
NUM_SECTIONS, SIZE_PX, TILE_PX = 16, 384, 128


@pytest.fixture(scope="module")
def sections() -> dict[DomainName, SyntheticSection]:
    """The sections of each domain stacked: image and mask are (NUM_SECTIONS, H, W)."""
    drawn = {d: [make_section(d, seed, SIZE_PX) for seed in range(NUM_SECTIONS)] for d in DOMAINS}
    return {
        domain: SyntheticSection(
            image=np.stack([section.image for section in several]),
            mask=np.stack([section.mask for section in several]),
        )
        for domain, several in drawn.items()
    }


def share(section: SyntheticSection, index: int) -> float:
    return float((section.mask == index).mean())


def contrast(section: SyntheticSection, index: int) -> float:
    """How much darker than the cytosol a class is, in grey levels."""
    cytosol = section.image[section.mask == CYTOSOL].mean()
    return float(cytosol - section.image[section.mask == index].mean())


@pytest.mark.parametrize("domain", DOMAINS)
def test_equal_arguments_give_equal_bytes_and_other_seeds_other_pixels(domain: DomainName) -> None:
    first, again, other = (make_section(domain, seed, 96) for seed in (5, 5, 6))

    assert first.image.tobytes() == again.image.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    assert (first.image != other.image).mean() > 0.8
    assert (first.mask != other.mask).any()


def test_equal_seeds_do_not_pair_the_domains() -> None:
    # At this size both domains draw equally many numbers, so only the seeding keeps them apart.
    rows = ((np.arange(51) + 0.5) * 10.0 / 8.0).astype(np.intp)  # the same places in nm
    source = np.stack([make_section("source", seed, 64).mask for seed in range(20)])
    target = np.stack([make_section("target", seed, 64).mask for seed in range(20)])

    here = source[:, rows][:, :, rows] == MEMBRANE
    there = target[:, :51, :51] == MEMBRANE
    assert (here & there).sum() < 0.3 * here.sum()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("size_px", [64, 129, 384])
def test_images_and_masks_are_square_8_bit_planes(domain: DomainName, size_px: int) -> None:
    section = make_section(domain, 0, size_px)

    for plane in (section.image, section.mask):
        assert plane.shape == (size_px, size_px)
        assert plane.dtype == np.uint8
    assert set(np.unique(section.mask)) <= {*range(len(CLASSES)), IGNORE}


@pytest.mark.parametrize(
    ("index", "low", "high"),
    [
        (CYTOSOL, 0.70, 0.90),
        (MEMBRANE, 0.04, 0.07),
        (MITOCHONDRION, 0.025, 0.08),
        (NUCLEUS, 0.03, 0.12),
        (VESICLE, 0.005, 0.03),
        (IGNORE, 0.002, 0.04),
    ],
)
def test_every_class_has_its_share_of_the_source(
    sections: dict[DomainName, SyntheticSection], index: int, low: float, high: float
) -> None:
    assert low < share(sections["source"], index) < high


def test_vesicles_are_in_the_source_only(sections: dict[DomainName, SyntheticSection]) -> None:
    assert share(sections["source"], VESICLE) > 0
    assert share(sections["target"], VESICLE) == 0


@pytest.mark.parametrize("domain", DOMAINS)
def test_tiles_differ_in_the_classes_they_hold(
    sections: dict[DomainName, SyntheticSection], domain: DomainName
) -> None:
    num = SIZE_PX // TILE_PX
    mask = sections[domain].mask.reshape(NUM_SECTIONS, num, TILE_PX, num, TILE_PX)
    # (sections, rows, tile rows, columns, tile columns) -> one row of pixels per tile
    tiles = mask.swapaxes(2, 3).reshape(-1, TILE_PX**2)
    present = {index: (tiles == index).any(axis=1).mean() for index in range(len(CLASSES))}

    assert present[CYTOSOL] == 1
    assert present[MEMBRANE] > 0.85
    assert 0.4 < present[MITOCHONDRION] < 0.75
    assert 0.25 < present[NUCLEUS] < 0.6
    if domain == "source":
        assert 0.25 < present[VESICLE] < 0.6


def test_the_domains_share_their_biology(sections: dict[DomainName, SyntheticSection]) -> None:
    # Shares of area do not depend on the pixel size; the counts of organelles vary by chance.
    source, target = (share(sections[domain], MEMBRANE) for domain in DOMAINS)
    assert target == pytest.approx(source, rel=0.1)
    for index in (MITOCHONDRION, NUCLEUS):
        source, target = (share(sections[domain], index) for domain in DOMAINS)
        assert target == pytest.approx(source, rel=0.5)


def test_the_target_is_darker_flatter_and_noisier(
    sections: dict[DomainName, SyntheticSection],
) -> None:
    source, target = (sections[domain] for domain in DOMAINS)

    assert source.image.mean() - target.image.mean() > 25
    for index in (MEMBRANE, MITOCHONDRION, NUCLEUS):
        assert contrast(source, index) > 1.3 * contrast(target, index)


def test_no_map_of_grey_turns_one_domain_into_the_other(
    sections: dict[DomainName, SyntheticSection],
) -> None:
    # A map of grey leaves the noise between neighbouring pixels in proportion to the contrast.
    source, target = (
        np.median(np.abs(np.diff(sections[domain].image.astype(float), axis=-1)))
        / contrast(sections[domain], MEMBRANE)
        for domain in DOMAINS
    )
    assert target > 4 * source


def test_granules_of_the_target_look_like_vesicles(
    sections: dict[DomainName, SyntheticSection],
) -> None:
    target = sections["target"]
    cytosol = target.image[target.mask == CYTOSOL].astype(np.float64)
    # Without granules the grey of the cytosol is close to normal: 3 in 100 000 beyond 4 sigma.
    assert (cytosol > cytosol.mean() + 4 * cytosol.std()).mean() > 5e-4


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_written_domain_reads_back(tmp_path: Path, domain: DomainName) -> None:
    write_domain(tmp_path, domain, num_sections=3, size_px=96, seed=1)

    meta = json.loads((tmp_path / "meta.json").read_text(encoding="utf-8"))
    assert meta["name"] == f"synthetic_{domain}"
    assert meta["classes"] == ["cytosol", "membrane", "mitochondrion", "nucleus", "vesicle"]
    assert meta["pixel_size_nm"] == {"source": 8.0, "target": 10.0}[domain]
    assert meta["num_images"] == 3
    assert meta["licence"] == "CC0-1.0"
    names = ["000.png", "001.png", "002.png"]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == names
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == names

    section_seed = int(np.random.default_rng(1).integers(2**31, size=3)[2])
    expected = make_section(domain, section_seed, 96)
    for folder, plane in (("images", expected.image), ("masks", expected.mask)):
        with Image.open(tmp_path / folder / "002.png") as png:
            assert png.mode == "L"
            np.testing.assert_array_equal(np.asarray(png), plane)


@pytest.mark.parametrize(
    ("num_sections", "sizes"),
    [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (6, 2, 2))],
)
def test_splits_are_disjoint_and_complete(
    tmp_path: Path, num_sections: int, sizes: tuple[int, int, int]
) -> None:
    write_domain(tmp_path, "source", num_sections=num_sections, size_px=64, seed=0)

    splits = json.loads((tmp_path / "meta.json").read_text(encoding="utf-8"))["splits"]
    assert tuple(len(splits[name]) for name in ("train", "val", "test")) == sizes
    assert sorted(sum(splits.values(), [])) == list(range(num_sections))


def test_sizes_without_room_for_a_section_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="63.* 64"):
        make_section("source", 0, 63)
    with pytest.raises(ValueError, match="num_sections is 0"):
        write_domain(tmp_path, "source", num_sections=0, size_px=64, seed=0)
