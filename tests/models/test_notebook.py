"""The door for a notebook: open, adapt, predict, save, load, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.checkpoint import CheckpointError, save_segmenter
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.data.labels import ABSENT, PRESENT, UNKNOWN
from models.metadata import RAW, DomainMeta, ModelMeta, ViewMeta
from models.networks.unet import UNet
from models.notebook import (
    Adapted,
    Description,
    DomainRefused,
    adapt,
    load,
    open_arrays,
    open_folder,
)
from models.training.loop import seeded_weights
from models.training.progress import Progress, Stop
from tests.app.files import grey, mask, png
from tests.models.domains import equal_weights, squares

pytestmark = pytest.mark.training

A, P, U = ABSENT, PRESENT, UNKNOWN
CELLS = Description(class_names=["background", "square"], pixel_size_nm=4)


def pair_of(bright: bool, **labels: object) -> Domain:
    images, masks = zip(*(squares(48, seed, bright=bright) for seed in range(5)), strict=True)
    return open_arrays(images, CELLS, masks=masks, name=f"bright {bright}", **labels)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def source() -> Domain:
    return pair_of(bright=True)


@pytest.fixture(scope="module")
def target() -> Domain:
    return pair_of(bright=False, labels="from_masks")


def config(**changes: object) -> StyleFilterConfig:
    return preset("smoke").changed(changes)


def folder_of(path: Path, **masks: NDArray[np.uint8]) -> Path:
    for kind in ("images", "masks"):
        (path / kind).mkdir(parents=True)
    for n in range(3):
        (path / "images" / f"{n}.png").write_bytes(png(grey(n, 40, 48)))
    for name, array in masks.items():
        (path / "masks" / f"{name.removeprefix('m')}.png").write_bytes(png(array))
    return path


def test_a_folder_is_opened_as_it_is_described(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "cells", m1=mask(40, 48))
    description = CELLS.model_copy(update={"tile_px": 32, "intensity_window": (0.0, 100.0)})
    domain = open_folder(folder, description, labels="from_masks")
    assert [section.name for section in domain.sections] == ["0", "1", "2"]
    assert [section.has_mask for section in domain.sections] == [False, True, False]
    info = domain.info
    assert (info.name, info.class_names) == ("cells", ("background", "square"))
    assert (info.pixel_size_nm, info.intensity_window) == (4.0, (0.0, 100.0))
    np.testing.assert_array_equal(domain.native_image(domain.sections[2]), grey(2, 40, 48))
    np.testing.assert_array_equal(domain.mask(domain.sections[1]), mask(40, 48))
    assert domain.image(domain.sections[0]).max() == 1
    assert [tile.labels for tile in domain.tiles] == [
        *[(U, U)] * 4,
        *[(P, P), (P, A), (P, A), (P, A)],
        *[(U, U)] * 4,
    ]


def test_arrays_are_the_domain_that_their_files_are(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, m1=mask(40, 48))
    for kind in ("images", "masks"):
        for path in (folder / kind).iterdir():
            path.rename(path.with_stem(f"{int(path.stem):04d}"))
    masks = [None, mask(40, 48), None]
    arrays = open_arrays([grey(n, 40, 48) for n in range(3)], CELLS, masks=masks)
    assert arrays.info.digest == open_folder(folder, CELLS).info.digest


def test_labels_by_number_and_by_name() -> None:
    images = [grey(n, 16, 16) for n in range(3)]
    labels = {"0001": {"square": "absent"}, 2: {"square": "present", "background": "unknown"}}
    domain = open_arrays(images, CELLS, labels=labels)
    assert [tile.labels for tile in domain.tiles] == [(U, U), (U, A), (U, P)]
    tiled = CELLS.model_copy(update={"tile_px": 16})
    domain = open_arrays([grey(0, 16, 32)], tiled, labels={1: {"background": "absent"}})
    assert [tile.labels for tile in domain.tiles] == [(U, U), (A, U)]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({2: {"square": "absent"}}, "no image 2; the last is 1"),
        ({-1: {"square": "absent"}}, "no image -1"),
        ({"one": {"square": "absent"}}, "no section 'one'"),
        ({"0000": {"square": "absent"}}, "cut into 2 images; label each by its number, from 0"),
        ({0: {"circle": "absent"}}, "'circle' .*class"),
        ({0: {"square": "perhaps"}}, "'perhaps'"),
    ],
)
def test_labels_of_nothing_are_refused(labels: dict[int | str, dict[str, str]], said: str) -> None:
    tiled = CELLS.model_copy(update={"tile_px": 16})
    with pytest.raises(ValueError, match=said):
        open_arrays([grey(0, 16, 32)], tiled, labels=labels)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "cells", m1=mask(40, 48) * 9)
    (folder / "images" / "notes.txt").write_text("no image")
    with pytest.raises(DomainRefused) as refused:
        open_folder(folder, CELLS)
    assert [problem.where for problem in refused.value.problems] == [
        "masks/1.png",
        "images/notes.txt",
        "mask_values",
    ]
    with pytest.raises(ValueError, match="folder .*nowhere"):
        open_folder(tmp_path / "nowhere", CELLS)
    with pytest.raises(DomainRefused, match="no image"):
        open_folder(tmp_path, CELLS)
    with pytest.raises(ValueError, match="1 masks were given for 2 images"):
        open_arrays([grey(0), grey(1)], CELLS, masks=[None])


def test_the_whole_way(source: Domain, target: Domain, tmp_path: Path) -> None:
    reports: list[Progress] = []
    adapted = adapt(source, target, config(pixel_size_factor=1.5), on_progress=reports.append)
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages == ["pretrain", "style", "stylise", "adapt"]
    assert adapted.meta.working_nm == 6.0
    assert (adapted.meta.source.name, adapted.meta.class_names) == (
        "bright True",
        ("background", "square"),
    )
    image = target.native_image(target.sections[4])
    prediction = adapted.predict(image)
    assert (prediction.mask.shape, prediction.mask.dtype) == ((48, 48), np.uint8)
    np.testing.assert_allclose(prediction.probabilities.sum(axis=0), 1, atol=1e-5)
    assert adapted.predict(image[:, :40], pixel_size_nm=8).probabilities.shape == (2, 48, 40)
    scored = adapted.evaluate(target)
    assert np.sum(scored.confusion) == 48 * 48
    truth = target.native_mask(target.sections[4])
    assert scored.confusion[1][1] == np.sum((truth == 1) & (prediction.mask == 1))
    adapted.save(tmp_path / "kept")
    again = load(tmp_path / "kept")
    assert again.meta == adapted.meta
    assert equal_weights(again.style, adapted.style)
    np.testing.assert_array_equal(again.predict(image).probabilities, prediction.probabilities)


def test_a_segmenter_with_a_view_is_loaded_without_a_style(target: Domain, tmp_path: Path) -> None:
    with seeded_weights(0):
        segmenter = UNet(2, preset("smoke").segmenter).eval()
    of = DomainMeta.of(target)
    meta = ModelMeta(
        kind="segmenter",
        config=preset("smoke"),
        class_names=target.info.class_names,
        working_nm=4.0,
        source=of,
        target=of.model_copy(update={"intensity_window": (0.0, 255.0)}),
        view=ViewMeta(name="inverted"),
    )
    save_segmenter(tmp_path / "baseline", segmenter, meta, {})
    inverted = load(tmp_path / "baseline")
    plain = Adapted(None, segmenter, meta.model_copy(update={"view": RAW}))
    image = target.native_image(target.sections[0])
    found = inverted.predict(image).probabilities
    np.testing.assert_allclose(found, plain.predict(255 - image).probabilities, atol=1e-5)
    inverted.save(tmp_path / "seen")
    again = load(tmp_path / "seen")
    assert (again.style, again.meta) == (None, meta)
    np.testing.assert_array_equal(again.predict(image).probabilities, found)


def test_labels_choose_and_their_verdict_is_kept(
    source: Domain, target: Domain, tmp_path: Path
) -> None:
    reports: list[Progress] = []
    choice = {"max_trained": 0, "target_statistics": False}
    asked = config(method="chosen", choice=choice)
    adapted = adapt(source, target, asked, on_progress=reports.append)
    assert {report.stage for report in reports} == {"pretrain", "stylise", "verdict"}
    assert adapted.style is None
    assert adapted.meta.config.adaptation.select_on == "last"
    assert adapted.verdict is not None
    # Three labelled images are too few for a choice.
    assert (adapted.verdict.use, adapted.meta.view) == ("source-only", RAW)
    (tmp_path / "job").mkdir()
    adapted.save(tmp_path / "job" / "chosen")
    image = target.native_image(target.sections[4])
    for folder in (tmp_path / "job", tmp_path / "job" / "chosen"):
        again = load(folder)
        assert (again.meta, again.verdict) == (adapted.meta, adapted.verdict)
        np.testing.assert_array_equal(again.predict(image).mask, adapted.predict(image).mask)


def test_labels_decide(source: Domain, target: Domain) -> None:
    """With every class called absent nothing is learnt from the target."""
    images = [target.native_image(section) for section in target.sections]
    masks = [target.native_mask(section) for section in target.sections]
    none = {n: dict.fromkeys(CELLS.class_names, "absent") for n in range(5)}
    silent = open_arrays(images, CELLS, masks=masks, labels=none)

    def total_loss(target: Domain) -> float:
        losses: list[float] = []

        def note(progress: Progress) -> None:
            losses.append(progress.values.get("loss_target", 0))

        adapt(source, target, config(), on_progress=note)
        return sum(losses)

    assert total_loss(target) > 0
    assert total_loss(silent) == 0


def test_a_stopped_run_goes_on_where_it_was(source: Domain, target: Domain, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def until_style_2(progress: Progress) -> None:
        seen.append((progress.stage, progress.step))
        if seen[-1] == ("style", 2):
            raise Stop

    with pytest.raises(Stop):
        adapt(source, target, config(), on_progress=until_style_2, folder=tmp_path)
    assert len(seen) == 6 + 2
    rest: list[tuple[str, int]] = []
    resumed = adapt(
        source,
        target,
        config(),
        on_progress=lambda progress: rest.append((progress.stage, progress.step)),
        folder=tmp_path,
    )
    assert rest[:3] == [("pretrain", 6), ("style", 3), ("style", 4)]
    undisturbed = adapt(source, target, config())
    assert equal_weights(resumed.segmenter, undisturbed.segmenter)


def test_a_saved_folder_is_never_overwritten_and_a_missing_one_is_told(
    source: Domain, target: Domain, tmp_path: Path
) -> None:
    adapted = adapt(source, target, config())
    adapted.save(tmp_path / "kept")
    with pytest.raises(OSError, match="not empty"):
        adapted.save(tmp_path / "kept")
    (tmp_path / "kept" / "stylefilter" / "config.json").unlink()
    with pytest.raises(CheckpointError):
        load(tmp_path / "kept")


def test_a_progress_is_a_line() -> None:
    progress = Progress("style", 3, 10, {"loss_d": 0.25, "loss_gan": 1 / 3})
    assert str(progress) == "style 3/10 loss_d 0.25, loss_gan 0.3333"
    assert str(Progress("stylise", 1, 2, {})) == "stylise 1/2"
