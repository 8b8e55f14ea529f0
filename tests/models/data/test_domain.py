"""Domains, crops, augmentation and histogram matching."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.baselines.histogram import HistogramMatch
from models.config.augmentation import AugmentationConfig
from models.config.stages import AdaptationConfig, PretrainConfig
from models.data.augmentation import photometric
from models.data.domain import (
    IGNORE,
    Domain,
    Tile,
    normalise,
    resample_image,
    resample_mask,
    shows_nothing,
    working_shape,
)
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.data.samples import (
    Crop,
    random_crop,
    source_batch,
    style_image,
    target_batch,
)
from models.data.sampling import Sample, Sampler, stream
from models.data.sections import Section
from models.data.stylised import StylisedDomain, array_name
from tests.models.domains import square_domain, write_domain

STILL = AugmentationConfig(rotate=False, brightness=0, contrast=0, noise_sigma=0)


def test_normalise_maps_the_window_and_clips() -> None:
    image = np.array([[0, 100, 150, 200, 65535]], np.uint16)
    assert normalise(image, (100, 200)).tolist() == [[0, 0, 0.5, 1, 1]]
    assert normalise(image, (100, 200)).dtype == np.float32


@pytest.mark.parametrize(
    ("pixel_nm", "working_nm", "expected"),
    [(4, 4, (100, 51)), (4, 8, (50, 26)), (8, 4, (200, 102)), (1, 1000, (1, 1))],
)
def test_working_shape(pixel_nm: float, working_nm: float, expected: tuple[int, int]) -> None:
    assert working_shape((100, 51), pixel_nm, working_nm) == expected


def test_shrinking_an_image_averages_and_keeps_its_mean() -> None:
    checkers = np.indices((64, 64)).sum(axis=0).astype(np.float32) % 2
    shrunk = resample_image(checkers, (16, 16))
    np.testing.assert_allclose(shrunk, 0.5, atol=0.02)


def test_shrinking_a_mask_takes_the_majority() -> None:
    mask = np.array([[0, 0, 2, 2], [0, 1, 2, 255], [255, 255, 1, 1], [255, 0, 1, 0]], np.uint8)
    assert resample_mask(mask, (2, 2)).tolist() == [[0, 2], [255, 1]]


def test_domain_reads_at_the_working_size(tmp_path: Path) -> None:
    image, mask = np.full((20, 30), 51, np.uint8), np.full((20, 30), 1, np.uint8)
    domain = write_domain(
        tmp_path / "d.zarr", [image, image], [mask, None], ["train", "train"], working_nm=8.0
    )
    labelled, bare = domain.sections
    np.testing.assert_allclose(domain.image(labelled), np.full((10, 15), 0.2), rtol=1e-6)
    assert np.array_equal(domain.mask(labelled), np.ones((10, 15)))
    assert domain.native_image(labelled).shape == (20, 30)
    assert domain.split("train", masked=True) == (labelled,)
    assert domain.split("train") == (labelled, bare)
    with pytest.raises(ValueError, match="'s1' of 'd' .*no mask"):
        domain.mask(bare)
    with pytest.raises(ValueError, match="read-only"):
        domain.image(labelled)[0, 0] = 0


def test_allowed_follows_the_labels_of_each_tile(tmp_path: Path) -> None:
    image = np.zeros((40, 40), np.uint8)
    tiles = [
        Tile(0, 0, 0, 20, 20, (PRESENT, ABSENT)),
        Tile(0, 0, 20, 20, 20, (UNKNOWN, UNKNOWN)),
        Tile(0, 20, 0, 20, 20, (ABSENT, ABSENT)),
        Tile(1, 20, 20, 20, 20, (ABSENT, PRESENT)),
    ]
    domain = write_domain(
        tmp_path / "d.zarr", [image, image], [None, None], ["train"] * 2, tiles, working_nm=8.0
    )
    allowed = domain.allowed(domain.sections[0])
    assert allowed.shape == (2, 20, 20)
    quarters = {
        "labelled": allowed[:, :10, :10],
        "unknown": allowed[:, :10, 10:],
        "nothing": allowed[:, 10:, :10],
        "no tile": allowed[:, 10:, 10:],
    }
    share = {name: part.mean(axis=(1, 2)).tolist() for name, part in quarters.items()}
    assert share == {
        "labelled": [1, 0],
        "unknown": [1, 1],
        "nothing": [0, 0],
        "no tile": [1, 1],
    }


def test_labelled_tiles_of_some_splits(tmp_path: Path) -> None:
    tiles = [
        Tile(2, 0, 0, 8, 8, (UNKNOWN, PRESENT)),
        Tile(0, 0, 0, 8, 8, (ABSENT, ABSENT)),
        Tile(0, 0, 8, 8, 8, (UNKNOWN, UNKNOWN)),
        Tile(1, 0, 0, 8, 8, (PRESENT, ABSENT)),
    ]
    images, splits = [np.zeros((8, 16), np.uint8)] * 3, ["train", "val", "test"]
    domain = write_domain(tmp_path / "d.zarr", images, [None] * 3, splits, tiles)
    assert [tile.labelled for tile in tiles] == [True, True, False, True]
    assert domain.labelled_tiles(["train"]) == [tiles[1]]
    assert domain.labelled_tiles(["test", "train"]) == [tiles[0], tiles[1]]
    assert domain.labelled_tiles([]) == []


def test_allowed_of_a_window_is_the_window_of_allowed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tiles = [
        Tile(
            int(rng.integers(2)),
            *(int(n) for n in rng.integers([0, 0, 1, 1], [60, 50, 30, 30])),
            (int(rng.integers(-1, 2)), int(rng.integers(-1, 2))),
        )
        for _ in range(40)
    ]
    image = np.zeros((61, 53), np.uint8)
    domain = write_domain(
        tmp_path / "d.zarr", [image, image], [None] * 2, ["train"] * 2, tiles, working_nm=5.3
    )
    for section in domain.sections:
        height, width = domain.working_shape(section)
        painted = np.ones((2, height, width), dtype=bool)
        for tile in tiles:
            if tile.section == section.index:
                rows, cols = (
                    slice(round(start * scale), round((start + length) * scale))
                    for start, length, scale in (
                        (tile.y0, tile.height, height / 61),
                        (tile.x0, tile.width, width / 53),
                    )
                )
                painted[:, rows, cols] = (np.array(tile.labels) != ABSENT)[:, None, None]
        np.testing.assert_array_equal(domain.allowed(section), painted)
        for _ in range(50):
            crop = random_crop(domain, section, int(rng.integers(1, 70)), rng)
            np.testing.assert_array_equal(
                crop.completed(domain.allowed(section, crop.rows, crop.cols), fill=False),
                crop.padded(painted, fill=False),
            )


def test_sections_in_memory_are_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.domain.CACHE_BYTES", 2 * 64 * 64 * 4 + 1)
    domain = square_domain(tmp_path / "d.zarr", side=64)
    first, second, third = domain.split("train")
    kept = domain.image(first)
    domain.image(second)
    assert domain.image(first) is kept
    del kept
    tracemalloc.start()
    for section in (second, third, first) * 2:
        domain.image(section)
        domain.mask(section)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 3 * 64 * 64 * 4


def test_a_section_larger_than_the_cache_is_still_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.domain.CACHE_BYTES", 1)
    domain = square_domain(tmp_path / "d.zarr", side=64)
    section = domain.sections[0]
    assert domain.image(section) is domain.image(section)


def test_crop_pads_bottom_and_right_then_turns() -> None:
    section = None
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    crop = Crop(section, 0, 1, side=3)
    assert crop.padded(array, 9).tolist() == [[1, 2, 9], [4, 5, 9], [9, 9, 9]]
    turned = Crop(section, 0, 1, side=3, quarter_turns=1)
    assert turned.padded(array, 9).tolist() == [[9, 9, 9], [2, 5, 9], [1, 4, 9]]
    mirrored = Crop(section, 0, 0, side=2, mirrored=True)
    assert mirrored.padded(array, 9).tolist() == [[1, 0], [4, 3]]


def test_reflected_crop_continues_the_section() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    reflected = Crop(None, 0, 0, side=5).reflected(array)
    assert reflected[0].tolist() == [0, 1, 2, 1, 0]
    assert reflected[:, 0].tolist() == [0, 3, 0, 3, 0]


def test_random_crops_reach_every_place(tmp_path: Path) -> None:
    domain = square_domain(tmp_path / "d.zarr", side=34)
    rng = np.random.default_rng(0)
    crops = [random_crop(domain, domain.sections[0], 32, rng) for _ in range(100)]
    assert {crop.y0 for crop in crops} == {crop.x0 for crop in crops} == {0, 1, 2}
    assert random_crop(domain, domain.sections[0], 64, rng).y0 == 0


def test_passes_visit_each_section_once(tmp_path: Path) -> None:
    sections = square_domain(tmp_path / "d.zarr").sections
    sampler = Sampler(sections, 0, "pretrain", "source")
    rounds = [[s.section.index for s in sampler.batch(step, 5)] for step in range(1, 5)]
    assert all(sorted(one) == list(range(5)) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_a_sample_depends_on_its_position_alone(tmp_path: Path) -> None:
    sections = square_domain(tmp_path / "d.zarr").sections

    def drawn(samples: list[Sample]) -> list[tuple[int, float]]:
        return [(sample.section.index, float(sample.rng.random())) for sample in samples]

    for replacement in (False, True):
        sampler = Sampler(sections, 3, "style", "target")
        one_process = drawn(sampler.batch(7, 4, replacement=replacement))
        fresh = Sampler(sections, 3, "style", "target")
        halves = [fresh.batch(7, 2, part=part, parts=2, replacement=replacement) for part in (0, 1)]
        assert drawn(halves[0]) + drawn(halves[1]) == one_process
        assert len({number for _, number in one_process}) == 4


def test_streams_differ_by_seed_stage_purpose_and_position() -> None:
    keys = [(0, "style", "step", 1), (1, "style", "step", 1), (0, "adapt", "step", 1)]
    keys += [(0, "style", "source", 1), (0, "style", "step", 2)]
    assert len({float(stream(*key).random()) for key in keys}) == len(keys)


def test_photometric_stays_in_range_and_follows_its_strengths() -> None:
    image = np.full((200, 200), 0.5, np.float32)
    rng = np.random.default_rng(0)
    assert np.array_equal(photometric(image, STILL, rng), image)
    noisy = photometric(image, STILL.model_copy(update={"noise_sigma": 0.05}), rng)
    assert noisy.std() == pytest.approx(0.05, rel=0.02)
    shifts = [
        photometric(image, STILL.model_copy(update={"brightness": 0.2}), rng)[0, 0]
        for _ in range(200)
    ]
    assert 0.3 <= min(shifts) < 0.32
    assert 0.68 < max(shifts) <= 0.7
    wild = photometric(image, AugmentationConfig(noise_sigma=1), rng)
    assert (wild.min(), wild.max()) == (0, 1)


def test_source_batch_pads_small_sections_with_ignored_pixels(tmp_path: Path) -> None:
    domain = square_domain(tmp_path / "d.zarr", side=40)
    config = PretrainConfig(crop_px=64)
    batch = source_batch(domain, samples(domain.sections[:2]), config)
    assert batch.images.shape == (2, 1, 64, 64)
    assert batch.images.dtype == np.float32
    padding = batch.masks == IGNORE
    assert padding.sum() == 2 * (64 * 64 - 40 * 40)
    assert float(np.abs(batch.images[:, 0][padding]).max()) == 0


def test_source_batch_moves_mask_and_image_alike(tmp_path: Path) -> None:
    image = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    domain = write_domain(
        tmp_path / "d.zarr",
        [image],
        [(image % 7).astype(np.uint8)],
        ["train"],
        intensity_window=(0, 1023),
    )
    config = PretrainConfig(crop_px=32, augmentation=STILL.model_copy(update={"rotate": True}))
    seen = set()
    for seed in range(20):
        batch = source_batch(domain, samples(domain.sections, seed), config)
        values = np.rint(batch.images[0, 0] * 1023)
        assert np.array_equal(values % 7, batch.masks[0])
        seen.add(int(values[0, 0]))
    assert seen == {0, 31, 31 * 32, 32 * 32 - 1}


def samples(sections: Sequence[Section], seed: int = 0) -> list[Sample]:
    return [Sample(s, np.random.default_rng([seed, i])) for i, s in enumerate(sections)]


@pytest.mark.parametrize("view", ["stylised", "raw", "both"])
def test_target_batch_aligns_its_views(tmp_path: Path, view: str) -> None:
    tiles = [Tile(0, 0, 0, 20, 40, (PRESENT, ABSENT))]
    raw = square_domain(tmp_path / "d.zarr", side=40, tiles=tiles)
    target = stylised_as_inverse(raw, tmp_path / "stylised.zarr")
    config = AdaptationConfig(crop_px=48, student_view=view, augmentation=STILL)
    batch = target_batch(target, samples(raw.sections[:1]), config)
    inside = batch.inside[0]
    assert inside.sum() == 40 * 40
    stylised = batch.stylised[0, 0][inside]
    expected = {"stylised": [stylised], "raw": [1 - stylised], "both": [stylised, 1 - stylised]}
    students = [student[0][inside] for student in batch.students[0]]
    np.testing.assert_allclose(students, expected[view], atol=1e-6)
    assert batch.allowed[0, 1].sum() == 20 * 40
    assert batch.allowed[0, 0].sum() == 40 * 40


def test_only_the_student_sees_noise(tmp_path: Path) -> None:
    raw = square_domain(tmp_path / "d.zarr")
    target = stylised_as_inverse(raw, tmp_path / "stylised.zarr")
    config = AdaptationConfig(crop_px=48, augmentation=AugmentationConfig(rotate=False))
    batch = target_batch(target, samples(raw.sections[:1]), config)
    assert np.array_equal(batch.stylised[0, 0], target.image(raw.sections[0]))
    assert np.abs(batch.students[:, 0] - batch.stylised).mean() > 0.01


def stylised_as_inverse(raw: object, store: Path) -> StylisedDomain:
    """A stylised copy of the training sections: the inverted image."""
    import zarr

    group = zarr.open_group(str(store), mode="w")
    for section in raw.split("train"):
        group.create_array(array_name(section), data=1 - raw.image(section))
    return StylisedDomain(raw, store, "inverse")


def test_stylised_domain_lists_what_was_stylised(tmp_path: Path) -> None:
    raw = square_domain(tmp_path / "d.zarr")
    target = stylised_as_inverse(raw, tmp_path / "stylised.zarr")
    assert target.sections == raw.split("train")
    section = target.sections[0]
    assert np.array_equal(target.image(section), 1 - raw.image(section))
    assert np.array_equal(target.mask(section), raw.mask(section))
    assert np.array_equal(target.native_image(section), raw.native_image(section))


def test_style_images_span_minus_one_to_one(tmp_path: Path) -> None:
    image = np.tile(np.array([[0, 255]], np.uint8), (40, 20))
    domain = write_domain(tmp_path / "d.zarr", [image], [None], ["train"])
    crop = style_image(domain, domain.sections[0], 64, np.random.default_rng(0))
    assert crop.shape == (64, 64)
    assert crop.dtype == np.float32
    assert set(np.unique(crop)) == {-1, 1}


def test_histogram_matching_gives_the_sources_histogram(tmp_path: Path) -> None:
    source = square_domain(tmp_path / "d.zarr", side=64)
    match = HistogramMatch.to(source)
    pooled = np.concatenate([source.image(s).ravel() for s in source.split("train")])
    noise = np.random.default_rng(0).random((64, 64), dtype=np.float32) * 0.3
    matched = match(noise)
    shares = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(matched, shares), np.quantile(pooled, shares), atol=0.01)
    order = np.argsort(noise, axis=None)
    assert (np.diff(matched.ravel()[order]) >= 0).all()
    constant = match(np.full((8, 8), 0.9, np.float32))
    np.testing.assert_allclose(constant, np.median(pooled), atol=0.01)


def test_sections_of_several_pixel_sizes_are_seen_at_one(tmp_path: Path) -> None:
    image, mask = np.full((40, 60), 100, np.uint8), np.zeros((40, 60), np.uint8)
    mask[:20, :30] = 1
    domain = write_domain(tmp_path / "d", [image] * 3, [mask] * 3, ["train"] * 3)
    sizes = [None, (8.0, 8.0), (8.0, 2.0)]
    sections = [
        replace(section, pixel_size_nm=size)
        for section, size in zip(domain.sections, sizes, strict=True)
    ]
    tiles = [Tile(2, 0, 0, 20, 30, (0, 1))]
    domain = Domain(domain.store, domain.info, sections, tiles, working_nm=4.0)
    assert [domain.image(s).shape for s in sections] == [(40, 60), (80, 120), (80, 30)]
    assert [domain.mask(s).shape for s in sections] == [(40, 60), (80, 120), (80, 30)]
    assert domain.mask(sections[2])[:40, :15].min() == 1
    assert domain.tile_windows(sections[2]).edges.tolist() == [[0, 40, 0, 15]]
    assert domain.pixel_size(sections[0]) == (4.0, 4.0)


def test_a_window_of_the_section_prevails_and_may_be_turned(tmp_path: Path) -> None:
    image = np.array([[0, 50, 100]], np.uint8)
    domain = write_domain(tmp_path / "d", [image], [None], ["train"], intensity_window=(0, 100))
    (section,) = domain.sections
    np.testing.assert_allclose(domain.image(section), [[0, 0.5, 1]])
    sections = [replace(section, intensity_window=(100.0, 50.0))]
    turned = Domain(domain.store, domain.info, sections, [])
    np.testing.assert_allclose(turned.image(sections[0]), [[1, 1, 0]])


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32", "float32"])
def test_grey_values_of_all_types_are_normalised(dtype: str) -> None:
    low = {"uint32": 4e9, "int32": -2e9, "float32": -1.5}.get(dtype, -100.0)
    step = 10 if dtype in ("uint32", "int32") else 1
    image = (low + step * np.arange(5)).astype(dtype)
    window = (low, low + 4 * step)
    np.testing.assert_allclose(normalise(image, window), [0, 0.25, 0.5, 0.75, 1], atol=1e-6)


def test_sections_that_shrink_to_a_few_pixels_show_nothing() -> None:
    assert shows_nothing((64, 96), (1, 1))
    assert shows_nothing((64, 96), (20, 15))
    assert not shows_nothing((64, 96), (16, 24))
    assert not shows_nothing((8, 8), (8, 8))
    assert working_shape((64, 96), 0.004, 4.0) == (1, 1)
