"""Sections of crops, compared voxel by voxel with what was written, for each form of store."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.data.intake.layout import folder_inputs
from models.data.intake.one_pass import store_domain
from models.data.openorganelle.classes import load_classes
from models.data.openorganelle.fetch import fetch
from models.data.openorganelle.inputs import CropInput, crop_inputs, description
from models.data.openorganelle.plan import Crop, Plan, plan_crops
from models.data.openorganelle.source import OpenOrganelleSource
from models.data.readers.limits import ImageError
from models.data.readers.stack import Ask
from tests.models.data.openorganelle.lookalike import (
    CELL,
    KINDS,
    CropSpec,
    Kind,
    Writer,
    annotated,
    demo_crops,
    micrographs,
    structures,
    write_demo,
)

PAPER = load_classes("paper")
CLASS_OF = {
    number: class_id
    for class_id, entry in enumerate(PAPER.classes)
    for number in entry.ids.values()
}
Classes = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def stack(given: CropInput) -> NDArray[np.generic]:
    with given.open(Ask(1 << 20)) as opened:
        sections = list(opened.sections)
        assert len(sections) == opened.num_sections
    return np.stack(sections)


def crops_of(plan: Plan) -> dict[str, Crop]:
    return {crop.name: crop for crop in plan.crops}


def by_id(ids: NDArray[np.uint8], annotated_ids: set[int] | None = None) -> NDArray[np.uint8]:
    """Return the class of each label voxel, one voxel at a time."""
    return np.array(
        [
            CLASS_OF.get(int(number), 255)
            if annotated_ids is None or CLASS_OF.get(int(number)) in annotated_ids
            else 255
            for number in ids.ravel()
        ],
        np.uint8,
    ).reshape(ids.shape)


def by_block(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the class of each voxel of the micrographs, one voxel at a time."""
    reduced = np.empty([n // 2 for n in classes.shape], np.uint8)
    for z, y, x in np.ndindex(reduced.shape):
        block = classes[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
        known = [value for value in block if value != 255]
        most = max((known.count(value) for value in known), default=0)
        frequent = [value for value in known if known.count(value) == most]
        reduced[z, y, x] = 255 if len(known) <= 4 else min(frequent)
    return reduced


@pytest.fixture(scope="module", params=KINDS)
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("demo")
    kind: Kind = request.param
    write_demo(folder, kind)
    return plan_crops(OpenOrganelleSource(cell=CELL, at=str(folder)))


def test_images_are_the_boxes_of_the_micrographs(demo: Plan) -> None:
    starts = {name: spec.start for name, spec in demo_crops().items()}
    for name, crop in crops_of(demo).items():
        z, y, x = starts[name]
        depth, height, width = crop.box.shape
        expected = micrographs()[z : z + depth, y : y + height, x : x + width]
        np.testing.assert_array_equal(stack(CropInput("images", demo, crop)), expected)


def test_masks_are_the_majority_of_the_labels(demo: Plan) -> None:
    crops, specs = crops_of(demo), demo_crops()
    everything = by_block(by_id(specs["crop1"].arrays["all"]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(stack(CropInput("masks", demo, crops["crop1"])), everything)
    assert set(np.unique(everything)) == {0, 1, 2, 6, 7, 8, 9, 10, 255}
    assert stack(CropInput("masks", demo, crops["crop2"])).tolist() == np.zeros((4, 8, 8)).tolist()


def test_a_class_that_was_not_annotated_is_ignored(demo: Plan) -> None:
    truth = demo_crops()["crop3"].arrays["all"]
    expected = by_block(by_id(truth, {2, 10}))  # type: ignore[arg-type]
    mask = stack(CropInput("masks", demo, crops_of(demo)["crop3"]))
    np.testing.assert_array_equal(mask, expected)
    assert set(np.unique(mask)) == {2, 10, 255}  # the ER is there, and nobody annotated it


def test_a_crop_without_all_is_made_of_its_structures(demo: Plan) -> None:
    """Instances are one class, and the envelope in the group ``er`` is not ER."""
    truth = structures((12, 16, 20), (1, 4, 16, 17, 20, 22, 35), 4)
    expected = by_id(truth)
    expected[:2, :2, :2][truth[:2, :2, :2] == 35] = 255
    # Where cyto is unknown, another structure may still be known.
    np.testing.assert_array_equal(
        stack(CropInput("masks", demo, crops_of(demo)["crop4"])), by_block(expected)
    )


def test_pixel_sizes_and_names_are_told(demo: Plan) -> None:
    crop = crops_of(demo)["crop1"]
    assert demo.pixel_size_nm == 4.0
    assert (CropInput("images", demo, crop).stem, CropInput("masks", demo, crop).stem) == (
        "crop1",
        "crop1",
    )
    with CropInput("images", demo, crop).open(Ask(1 << 20)) as opened:
        assert (opened.num_sections, opened.pixel_size_nm) == (10, (4.0, 4.0))
    with pytest.raises(ImageError), CropInput("images", demo, crop).open(Ask(100)):
        pass


def test_a_domain_of_inputs_is_that_of_a_fetched_folder(demo: Plan, tmp_path: Path) -> None:
    fetch(demo, tmp_path / "out")
    told = description(demo)
    read = store_domain(told, crop_inputs(demo), tmp_path / "read")
    stored = store_domain(told, folder_inputs(tmp_path / "out"), tmp_path / "stored")
    assert read.digest == stored.digest
    assert read.sections == stored.sections
    assert [section.name for section in read.sections][9:12] == [
        "crop1/0009", "crop2/0000", "crop2/0001"
    ]  # fmt: skip


def test_published_labels_are_read_as_they_are(tmp_path: Path) -> None:
    write_demo(tmp_path)
    plan = plan_crops(OpenOrganelleSource(cell=CELL, at=str(tmp_path), labels="published"))
    crop = crops_of(plan)["crop1"]
    assert (crop.block, crop.box.start) == ((1, 1, 1), (6, 5, 11))
    published = demo_crops()["crop1"].arrays["all"][::2, ::2, ::2]
    np.testing.assert_array_equal(stack(CropInput("masks", plan, crop)), by_id(published))  # type: ignore[arg-type]


def test_instance_255_of_a_wide_array_is_mitochondrion(tmp_path: Path) -> None:
    spec = demo_crops()["crop4"]
    assert (spec.arrays["mito"] == 255).sum() == 1
    writer = Writer(tmp_path)
    writer.em(micrographs())
    instances = np.full((4, 4, 4), 255, np.uint16)
    told = {"mito": spec.array_attributes["mito"]}
    writer.crop("crop1", CropSpec((0, 0, 0), {"mito": instances}, annotated("mito"), told))
    plan = plan_crops(OpenOrganelleSource(cell=CELL, at=str(tmp_path)))
    assert (stack(CropInput("masks", plan, plan.crops[0])) == 2).all()


def files(folder: Path, key: str) -> list[Path]:
    return sorted(path for path in (folder / key).rglob("*") if path.name.isdigit())


def test_lost_files_of_micrographs_are_not_read_as_black(tmp_path: Path) -> None:
    root = write_demo(tmp_path)
    plan = plan_crops(OpenOrganelleSource(cell=CELL, at=str(tmp_path)))
    crop = crops_of(plan)["crop1"]
    (root / "recon-1/em/fibsem-uint8/s0/1/0/1").unlink()
    with pytest.raises(ImageError, match="1 file"):
        stack(CropInput("images", plan, crop))
    stack(CropInput("images", plan, crops_of(plan)["crop2"]))  # its files are there
    assert plan.em.lost == {"recon-1/em/fibsem-uint8/s0/1/0/1"}


def test_lost_files_of_labels_leave_voxels_without_a_class(tmp_path: Path) -> None:
    root = write_demo(tmp_path)
    plan = plan_crops(OpenOrganelleSource(cell=CELL, at=str(tmp_path)))
    crop = crops_of(plan)["crop2"]
    (root / "recon-1/labels/groundtruth/crop2/all/s0/1/0/1").unlink()
    mask = stack(CropInput("masks", plan, crop))
    assert (mask[3:, :4, 4:] == 255).all()  # label voxels 6 to 8, 0 to 8, 8 to 16
    assert np.count_nonzero(mask) == 1 * 4 * 4


def lost(crop: Crop) -> set[str]:
    return set[str]().union(*(each.volume.lost for each in crop.arrays))


def test_a_lost_file_of_a_structure_is_unknown_not_absent(tmp_path: Path) -> None:
    """Else the envelope would become ER."""
    root = write_demo(tmp_path) / "recon-1/labels/groundtruth/crop4"
    plan = plan_crops(OpenOrganelleSource(cell=CELL, at=str(tmp_path)))
    crop = crops_of(plan)["crop4"]
    whole = stack(CropInput("masks", plan, crop))
    assert lost(crop) == set()  # files that were left out hold absent voxels, as was counted
    shutil.rmtree(root / "ne_mem/s0/0")
    mask = stack(CropInput("masks", plan, crop))
    assert {key.split("/")[4] for key in lost(crop)} == {"ne_mem"}
    assert {6, 8} <= set(np.unique(whole[:3]))  # ER and envelope
    assert not (mask[:3] == 6).any()
    # Some blocks of mixed voxels change hands, but never from the envelope to the ER.
    assert not ((whole == 8) & (mask == 6)).any()


def test_damaged_files_are_told(tmp_path: Path) -> None:
    root = write_demo(tmp_path)
    plan = plan_crops(OpenOrganelleSource(cell=CELL, at=str(tmp_path)))
    (root / "recon-1/labels/groundtruth/crop2/all/s0/0/0/0").write_bytes(b"no zstd")
    with pytest.raises(ImageError, match="damaged"):
        stack(CropInput("masks", plan, crops_of(plan)["crop2"]))
