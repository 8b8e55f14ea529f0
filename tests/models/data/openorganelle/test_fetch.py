"""Fetched folders: what they hold, that they register, and that a fetch can be cut off anywhere."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import tifffile

from models.data.description import Description
from models.data.intake.layout import folder_inputs
from models.data.intake.one_pass import store_domain
from models.data.openorganelle.fetch import Fetched, FetchError, fetch
from models.data.openorganelle.inputs import CropInput, Kind
from models.data.openorganelle.plan import Plan, plan_crops
from models.data.openorganelle.record import CropRecord
from models.data.openorganelle.source import OpenOrganelleSource
from models.data.readers.stack import Ask
from tests.models.data.openorganelle.lookalike import (
    CELL,
    CropSpec,
    Writer,
    annotated,
    micrographs,
    structures,
    write_demo,
)
from tests.models.data.openorganelle.server import served
from tests.s3 import S3Server

pytestmark = pytest.mark.heavy

CROPS = ["crop1", "crop2", "crop3", "crop4"]


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return write_demo(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def plan_of(at: Path | str, **fields: object) -> Plan:
    return plan_crops(OpenOrganelleSource.model_validate({"cell": CELL, "at": str(at), **fields}))


def fetched(at: Path | str, folder: Path, **fields: object) -> dict[str, Fetched]:
    done: list[Fetched] = []
    fetch(plan_of(at, **fields), folder, done.append)
    assert [each.number for each in done] == list(range(1, len(done) + 1))
    return {each.record.name: each for each in done}


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files but those that name the place."""
    paths = (path for path in folder.rglob("*.tif"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_crop_is_a_stack_of_images_and_one_of_masks(demo: Path, out: Path) -> None:
    records = {name: each.record for name, each in fetched(demo, out).items()}
    plan = plan_of(demo)
    assert list(records) == CROPS
    for crop in plan.crops:
        kinds: tuple[Kind, ...] = ("images", "masks")
        for kind in kinds:
            with CropInput(kind, plan, crop).open(Ask(1 << 20)) as opened:
                expected = np.stack(list(opened.sections))
            np.testing.assert_array_equal(
                tifffile.imread(out / kind / f"{crop.name}.tif"), expected
            )
        mask = expected
        counts = [np.bincount(section.ravel(), minlength=256)[:11].tolist() for section in mask]
        assert [list(each) for each in records[crop.name].class_pixels] == counts


def test_a_record_tells_where_a_crop_came_from_and_what_it_holds(demo: Path, out: Path) -> None:
    fetched(demo, out)
    one, two, three = (
        CropRecord.model_validate_json((out / f"crops/{name}.json").read_bytes())
        for name in CROPS[:3]
    )
    assert one.place == str(demo)
    assert (one.em, one.labels) == (
        "recon-1/em/fibsem-uint8/s0",
        ("recon-1/labels/groundtruth/crop1/all/s0",),
    )
    assert (one.start, one.shape, one.voxel_nm) == ((6, 5, 11), (10, 12, 16), (5.24, 4.0, 4.0))
    assert (one.homogeneous, two.homogeneous) == (None, "ex cell sp")
    assert three.annotated == ("mito", "cytosol")
    assert one.num_lost == two.num_lost == 0


def test_the_folder_registers_by_its_request(demo: Path, out: Path, tmp_path: Path) -> None:
    fetched(demo, out)
    request = json.loads((out / "meta.json").read_text())
    assert request.pop("name") == CELL
    description = Description.model_validate(request)
    stored = store_domain(description, folder_inputs(out), tmp_path / "stored")
    assert description.pixel_size_nm == 4.0
    assert [section.name for section in stored.sections[:2]] == ["crop1/0000", "crop1/0001"]
    assert len(stored.sections) == 10 + 4 + 5 + 6
    assert all(section.name.startswith(f"{section.group}/") for section in stored.sections)
    splits = {(section.group, section.split) for section in stored.sections}
    assert len(splits) == 4  # no crop is divided
    assert {split for _, split in splits} == {"train", "val", "test"}


def test_labels_tell_absent_from_unknown(demo: Path, out: Path) -> None:
    records = {name: each.record for name, each in fetched(demo, out).items()}
    head, *lines = (line.split(",") for line in (out / "labels.csv").read_text().splitlines())
    assert head == ["section", *records["crop1"].class_names]
    states = {name: dict(zip(head[1:], states, strict=True)) for name, *states in lines}
    assert len(states) == 10 + 4 + 5 + 6
    for number, counts in enumerate(records["crop1"].class_pixels):
        expected = ["1" if count else "0" for count in counts]
        assert list(states[f"crop1/{number:04d}"].values()) == expected
    for number in range(5):
        section = states[f"crop3/{number:04d}"]
        assert section["mito"] + section["cytosol"] == "11"
        assert section["endo ret"] == section["nucleus"] == ""
    # Labels that are derived from the masks know the same.
    told = json.loads((out / "meta.json").read_text())["unannotated"]
    for section, known in states.items():
        blank = {name for name, state in known.items() if state == ""}
        shown = {name for name, state in known.items() if state == "1"}
        assert {name for name, sections in told.items() if section in sections} - shown == blank


def test_a_second_call_keeps_what_is_there(demo: Path, out: Path) -> None:
    fetched(demo, out)
    before = content(out)
    again = fetched(demo, out)
    assert all(each.kept and each.num_bytes == 0 for each in again.values())
    assert content(out) == before


def test_a_crop_that_is_not_what_its_record_says_is_fetched_anew(demo: Path, out: Path) -> None:
    fetched(demo, out)
    before = content(out)
    (out / "images/crop1.tif").write_bytes(b"damaged")
    (out / "masks/crop2.tif").unlink()
    (out / "crops/crop3.json").write_text("{")
    again = fetched(demo, out)
    assert [name for name, each in again.items() if each.kept] == ["crop4"]
    assert content(out) == before


def test_more_crops_may_be_asked_for_later_and_fewer_not(demo: Path, out: Path) -> None:
    assert list(fetched(demo, out, crops=[1])) == ["crop1"]
    more = fetched(demo, out, crops=[1, 2])
    assert {name: each.kept for name, each in more.items()} == {"crop1": True, "crop2": False}
    with pytest.raises(FetchError, match="crop1"):
        fetched(demo, out, crops=[2])


def test_a_folder_of_something_else_is_refused_and_left_alone(demo: Path, out: Path) -> None:
    (out / "images").mkdir(parents=True)
    (out / "images/mine.png").write_bytes(b"mine")
    with pytest.raises(FetchError):
        fetched(demo, out)
    assert (out / "images/mine.png").read_bytes() == b"mine"
    assert not (out / "openorganelle.json").exists()


def test_a_folder_holds_crops_of_one_source(demo: Path, out: Path) -> None:
    fetched(demo, out, crops=[2])
    before = content(out)
    with pytest.raises(FetchError, match=CELL):
        fetched(demo, out, crops=[2], labels="published")
    assert content(out) == before


def test_one_call_at_a_time_writes_to_a_folder(demo: Path, out: Path) -> None:
    def second(_: Fetched) -> None:
        with pytest.raises(FetchError, match="another"):
            fetch(plan_of(demo), out)

    fetch(plan_of(demo, crops=[2]), out, second)


def test_a_copy_that_lost_files_is_refused_or_told(demo: Path, out: Path) -> None:
    (demo / "recon-1/labels/groundtruth/crop2/all/s0/0/0/0").unlink()
    assert fetched(demo, out, crops=[2])["crop2"].record.num_lost == 1
    (demo / "recon-1/em/fibsem-uint8/s0/1/0/0").unlink()
    with pytest.raises(FetchError, match="crop1"):
        fetched(demo, out, crops=[1, 2])
    assert not (out / "meta.json").exists()
    assert not list(out.rglob("*crop1*"))


def test_a_crop_whose_labels_are_all_lost_is_refused(demo: Path, out: Path) -> None:
    for path in (demo / "recon-1/labels/groundtruth/crop2/all/s0").rglob("*"):
        if path.name.isdigit() and path.is_file():
            path.unlink()
    with pytest.raises(FetchError, match="crop2"):
        fetched(demo, out, crops=[2])


def test_a_web_server_gives_the_same_crops(demo: Path, out: Path, tmp_path: Path) -> None:
    fetched(demo, out)
    with served(demo.parent.parent) as server:
        fetched(server.url, tmp_path / "web", crops=CROPS)
    assert content(tmp_path / "web") == content(out)


def test_a_bucket_gives_the_same_crops_and_lists_them(
    out: Path, tmp_path: Path, s3: S3Server
) -> None:
    writer = Writer(tmp_path)
    writer.em(micrographs()[:16, :32, :32])
    labels = {"all": structures((8, 16, 16), (1, 3, 35), 5)}
    writer.crop("crop7", CropSpec((2, 2, 2), labels, annotated("ecs", "mito", "cyto")))
    fetched(tmp_path, out)
    s3.put_folder("cells", CELL, tmp_path / CELL)
    assert list(fetched("s3://cells", tmp_path / "s3")) == ["crop7"]
    assert content(tmp_path / "s3") == content(out)


FETCH = """
import sys
from pathlib import Path
from models.data.openorganelle.fetch import fetch
from models.data.openorganelle.plan import plan_crops
from models.data.openorganelle.source import OpenOrganelleSource
source = OpenOrganelleSource(cell="jrc_demo", at=sys.argv[1], crops=(1, 2, 3, 4))
fetch(plan_crops(source), Path(sys.argv[2]))
"""


@pytest.mark.processes
@pytest.mark.parametrize("key", ["em/fibsem-uint8/s0/3/0/0", "crop3/all/s0/0/0/0"])
def test_a_fetch_that_was_killed_goes_on(key: str, demo: Path, out: Path, tmp_path: Path) -> None:
    reached, answer = Event(), Event()

    def wait(asked: str) -> None:
        if asked.endswith(key) and (out / "crops/crop2.json").exists():
            reached.set()
            answer.wait(60)

    with served(demo.parent.parent) as server:
        server.before = wait
        child = subprocess.Popen([sys.executable, "-c", FETCH, server.url, str(out)])
        try:
            assert reached.wait(60)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            answer.set()
        assert (out / "crops/crop2.json").exists()
        assert not (out / "crops/crop3.json").exists()
        assert not (out / "meta.json").exists()
        server.before = lambda _: None
        again = fetched(server.url, out, crops=CROPS)
    kept = {name for name, each in again.items() if each.kept}
    assert kept == {"crop1", "crop2"}
    fetched(demo, tmp_path / "whole", crops=CROPS)
    assert content(out) == content(tmp_path / "whole")
    assert not list(out.rglob(".*.partial"))
