"""The estimate of a dry run, compared with what a web server counts during the fetch."""

from pathlib import Path

import pytest

from models.data.openorganelle.cost import cost
from models.data.openorganelle.fetch import fetch
from models.data.openorganelle.plan import plan_crops
from models.data.openorganelle.source import OpenOrganelleSource
from tests.models.data.openorganelle.lookalike import CELL, Kind, write_demo
from tests.models.data.openorganelle.server import served

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("labels", ["reduced", "published"])
@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_the_estimate_is_what_is_read(kind: Kind, labels: str, tmp_path: Path) -> None:
    write_demo(tmp_path, kind)
    with served(tmp_path) as server:
        source = OpenOrganelleSource.model_validate(
            {"cell": CELL, "at": server.url, "crops": [1, 2, 3, 4], "labels": labels}
        )
        plan = plan_crops(source)
        costs = [cost(plan, crop) for crop in plan.crops]
        assert sum(server.voxels()) == 0  # nothing was read for it
        server.sent.clear()
        fetch(plan, tmp_path / "out")
        read = server.voxels()
    assert all(each.exact for each in costs)
    assert len(read) == sum(each.num_requests for each in costs)
    assert sum(read) == sum(each.num_bytes for each in costs)
    assert sum(size == 0 for size in read) == sum(each.num_missing for each in costs)


def test_the_estimate_of_shards_is_near(tmp_path: Path) -> None:
    """A part of a file has no size of its own: its share of the file stands for it."""
    write_demo(tmp_path, "v3 shards")
    with served(tmp_path) as server:
        plan = plan_crops(OpenOrganelleSource(cell=CELL, at=server.url, crops=("crop1",)))
        estimate = cost(plan, plan.crops[0])
        fetch(plan, tmp_path / "out")
        read = server.voxels()
    assert not estimate.exact
    assert len(read) == estimate.num_requests
    assert sum(read) == pytest.approx(estimate.num_bytes, rel=0.25)


def test_of_many_files_only_some_are_asked_for_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_demo(tmp_path)
    plan = plan_crops(OpenOrganelleSource(cell=CELL, at=str(tmp_path), crops=("crop1",)))
    whole = cost(plan, plan.crops[0])
    monkeypatch.setattr("models.data.openorganelle.cost._SAMPLE", 12)
    sample = cost(plan, plan.crops[0])
    assert (whole.exact, sample.exact) == (True, False)
    assert sample.num_requests == whole.num_requests
    assert sample.num_bytes == pytest.approx(whole.num_bytes, rel=0.2)
    assert whole.num_stored == 2 * 10 * 12 * 16
