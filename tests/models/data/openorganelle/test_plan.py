"""Crops are found and placed before a voxel is read; each that does not fit is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.data.intake.findings import DomainRefused
from models.data.openorganelle.geometry import Box
from models.data.openorganelle.plan import Plan, plan_crops
from models.data.openorganelle.source import OpenOrganelleSource
from tests.models.data.openorganelle.lookalike import (
    CELL,
    KINDS,
    CropSpec,
    Kind,
    Writer,
    annotated,
    micrographs,
    write_demo,
)
from tests.models.data.openorganelle.server import served

GROUNDTRUTH = "recon-1/labels/groundtruth"


def plan_of(at: Path | str, **fields: Any) -> Plan:
    return plan_crops(OpenOrganelleSource(cell=CELL, at=str(at), **fields))


def refused(at: Path | str, **fields: Any) -> dict[str, str]:
    with pytest.raises(DomainRefused) as error:
        plan_of(at, **fields)
    return {problem.where: problem.message for problem in error.value.problems}


def one_crop(folder: Path, spec: CropSpec) -> Writer:
    writer = Writer(folder)
    writer.em(micrographs())
    writer.crop("crop1", spec)
    return writer


def ones(*shape: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"all": np.ones(shape, np.uint8)}


@pytest.mark.parametrize("kind", KINDS)
def test_crops_are_listed_by_number_and_placed(kind: Kind, tmp_path: Path) -> None:
    write_demo(tmp_path, kind)
    plan = plan_of(tmp_path)
    assert {crop.name: crop.box for crop in plan.crops} == {
        "crop1": Box((6, 5, 11), (10, 12, 16)),
        "crop2": Box((22, 40, 60), (4, 8, 8)),
        "crop3": Box((20, 0, 0), (5, 10, 10)),
        "crop4": Box((2, 30, 4), (6, 8, 10)),
    }
    assert all(crop.block == (2, 2, 2) for crop in plan.crops)
    assert plan.pixel_size_nm == 4.0


def test_a_copy_is_found_by_its_folder_its_hierarchy_or_the_folder_of_all_cells(
    tmp_path: Path,
) -> None:
    root = write_demo(tmp_path)
    for at in (tmp_path, tmp_path / CELL, root):
        assert len(plan_of(at).crops) == 4


def test_of_two_crops_at_one_place_the_first_is_kept(tmp_path: Path) -> None:
    write_demo(tmp_path)
    assert plan_of(tmp_path).left_out.keys() == {"crop10"}
    assert plan_of(tmp_path, crops=[10]).crops[0].name == "crop10"
    assert refused(tmp_path, crops=["crop2", 10]).keys() == {"crop10"}


def test_crops_that_overlap_are_one_group(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.em(micrographs())
    for name, start in {"crop1": 0, "crop2": 3, "crop3": 6, "crop4": 10}.items():
        writer.crop(name, CropSpec((start, 0, 0), ones(8, 8, 8), annotated("ecs")))
    groups = {crop.name: crop.group for crop in plan_of(tmp_path).crops}
    shared = "crop1+crop2+crop3"
    assert groups == {"crop1": shared, "crop2": shared, "crop3": shared, "crop4": "crop4"}


def test_classes_count_as_annotated_where_the_crop_says_so(tmp_path: Path) -> None:
    write_demo(tmp_path)
    crops = {crop.name: crop for crop in plan_of(tmp_path).crops}
    assert crops["crop1"].annotated == set(range(11))
    assert crops["crop3"].annotated == {2, 10}
    assert "endo ret" in crops["crop3"].notes[0]
    assert crops["crop4"].annotated == {0, 1, 2, 8, 10}  # er alone does not tell of the ER
    assert any("ves" in note for note in crops["crop4"].notes)


def test_without_a_word_of_the_annotators_all_classes_count(tmp_path: Path) -> None:
    one_crop(tmp_path, CropSpec((0, 0, 0), ones(8, 8, 8)))
    (crop,) = plan_of(tmp_path).crops
    assert crop.annotated == set(range(11))
    assert len(crop.notes) == 1


@pytest.mark.parametrize(
    ("start", "shape", "said"),
    [
        ((0.5, 0, 0), (8, 8, 8), "along z"),
        ((0, 0, 10.25), (8, 8, 8), "along x"),
        ((0, 0, 0), (8, 7, 8), "along y"),
        ((38, 0, 0), (8, 8, 8), "leaves the volume: along z"),
        ((0, -1, 0), (8, 8, 8), "leaves the volume: along y"),
    ],
)
def test_a_crop_that_does_not_fit_is_refused_by_name(
    start: Any, shape: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    writer = one_crop(tmp_path, CropSpec((1, 1, 1), ones(8, 8, 8), annotated("ecs")))
    writer.crop("crop2", CropSpec(start, ones(*shape), annotated("ecs")))
    problems = refused(tmp_path)
    assert problems.keys() == {"crop2"}
    assert said in problems["crop2"]


def test_labels_as_coarse_as_the_micrographs_are_read_as_they_are(tmp_path: Path) -> None:
    writer = one_crop(tmp_path, CropSpec((1, 1, 1), ones(8, 8, 8), annotated("ecs")))
    metadata = writer.path / GROUNDTRUTH / "crop1/all/.zattrs"
    told = json.loads(metadata.read_text())
    told["multiscales"][0]["datasets"].pop(0)
    metadata.write_text(json.dumps(told))
    (crop,) = plan_of(tmp_path).crops
    assert (crop.block, crop.box) == ((1, 1, 1), Box((1, 1, 1), (4, 4, 4)))


def test_all_crops_that_cannot_be_read_are_named_at_once(tmp_path: Path) -> None:
    root = write_demo(tmp_path) / GROUNDTRUTH
    (root / "crop1/all/.zattrs").write_text("{")
    (root / "crop2/all/s0/.zarray").unlink()
    (root / "crop3/.zattrs").write_text('{"cellmap": {"annotation": {"class_names": 3}}}')
    shutil.rmtree(root / "crop4")
    problems = refused(tmp_path, crops=[1, 2, 3, 4, 77])
    assert problems.keys() == {"crop1", "crop2", "crop3", "crop4", "crop77"}
    assert ".zattrs" in problems["crop1"]
    assert "s0" in problems["crop2"]


def test_empty_structures_make_no_crop(tmp_path: Path) -> None:
    counts = {"cellmap": {"annotation": {"complement_counts": {"absent": 512}}}}
    arrays = {"mito": np.zeros((8, 8, 8), np.uint8)}
    one_crop(tmp_path, CropSpec((1, 1, 1), arrays, annotated("mito"), {"mito": counts}))
    assert refused(tmp_path).keys() == {"crop1"}


def test_what_is_wrong_with_the_cell_is_told(tmp_path: Path) -> None:
    root = write_demo(tmp_path)
    for fields, said in (
        ({"em": "fibsem-uint16"}, "fibsem-uint8"),
        ({"em_level": "s7"}, "s0, s1"),
        ({"recon": "recon-2"}, "recon-2"),
    ):
        assert said in refused(tmp_path, **fields)[CELL]
    assert CELL in refused(tmp_path / "none")[CELL]
    assert "N5" in refused(tmp_path / "jrc_demo.n5")[CELL]
    shutil.rmtree(root / GROUNDTRUTH)
    assert "crops" in refused(tmp_path)[CELL]


@pytest.mark.parametrize(
    ("shape", "chunks", "said"),
    [
        ([80, 10**9, 10**9], [8, 8, 8], "chunks"),
        ([80, 10**6, 10**6], [80, 10**4, 10**4], "too large"),
        ([80, 8000, 8000], [80, 100, 100], "along z"),
    ],
)
def test_an_array_that_would_never_end_is_refused(
    shape: list[int], chunks: list[int], said: str, tmp_path: Path
) -> None:
    writer = one_crop(tmp_path, CropSpec((0, 0, 0), ones(8, 8, 8), annotated("ecs")))
    for key in ("recon-1/em/fibsem-uint8/s0", f"{GROUNDTRUTH}/crop1/all/s0"):
        metadata = writer.path / key / ".zarray"
        told = json.loads(metadata.read_text()) | {"shape": shape}
        if "crop1" in key:
            told["chunks"] = chunks
        metadata.write_text(json.dumps(told))
    assert said in refused(tmp_path)["crop1"]


def test_a_web_server_lists_no_folders(tmp_path: Path) -> None:
    write_demo(tmp_path)
    with served(tmp_path) as server:
        assert "name the crops" in refused(server.url)[CELL]
        assert len(plan_of(server.url, crops=[1, 2]).crops) == 2


def test_voxels_must_be_square_in_a_section(tmp_path: Path) -> None:
    root = write_demo(tmp_path)
    metadata = root / "recon-1/em/fibsem-uint8/.zattrs"
    told = json.loads(metadata.read_text())
    told["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [5.24, 4, 5]
    metadata.write_text(json.dumps(told))
    assert "4 x 5 nm" in refused(tmp_path)[CELL]
