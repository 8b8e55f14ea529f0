"""Crops that are fetched once from a web server, and then read from the files that are kept."""

from pathlib import Path

import pytest

from models.data.intake.inputs import Inputs
from models.data.intake.one_pass import store_domain
from models.data.intake.store import StoredDomain
from models.data.openorganelle.inputs import crop_inputs, description
from models.data.openorganelle.kept import kept_inputs
from models.data.openorganelle.plan import Plan, plan_crops
from models.data.openorganelle.source import OpenOrganelleSource
from models.data.readers.limits import ImageError
from models.data.readers.stack import Ask
from tests.models.data.openorganelle.lookalike import CELL, write_demo
from tests.models.data.openorganelle.server import served


def planned(at: str) -> Plan:
    return plan_crops(OpenOrganelleSource(cell=CELL, at=at, crops=(1, 2, 3)))


def stored(plan: Plan, inputs: Inputs, folder: Path) -> StoredDomain:
    return store_domain(description(plan), inputs, folder)


def test_an_intake_goes_on_with_the_crops_that_are_kept(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "root")
    kept = tmp_path / "kept"
    with served(tmp_path / "root") as server:
        plan = planned(server.url)
        near = stored(plan, crop_inputs(plan), tmp_path / "near")
        far = stored(plan, kept_inputs(plan, kept), tmp_path / "far")
        assert (far.digest, far.sections) == (near.digest, near.sections)
        assert [n for n in far.notes if n.code == "reader"] == [
            n for n in near.notes if n.code == "reader"
        ]
        server.sent.clear()
        again = stored(plan, kept_inputs(plan, kept), tmp_path / "again")
        assert (again.digest, server.voxels()) == (near.digest, [])
        # A crop without a record was not complete when its worker was lost.
        (kept / "crops/crop2.json").unlink()
        assert stored(plan, kept_inputs(plan, kept), tmp_path / "more").digest == near.digest
        asked = {key for key, _ in server.sent}
        assert any("crop2" in key for key in asked)
        assert not any("crop1/" in key or "crop3/" in key for key in asked)
    assert demo.is_dir()


def test_a_crop_that_cannot_be_fetched_is_told(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "root")
    (demo / "recon-1/em/fibsem-uint8/s0/1/0/1").unlink()
    with served(tmp_path / "root") as server:
        images = kept_inputs(planned(server.url), tmp_path / "kept").images
        with pytest.raises(ImageError, match="micrographs"), images[0].open(Ask(1 << 20)):
            pass
