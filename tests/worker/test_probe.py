"""A probe job from its request to the answers that rest on it."""

import pytest
from sqlalchemy import select

from app.errors import Invalid
from app.jobs.request_schemas import PretrainRequest, ProbeRequest
from app.probes.next_tiles import next_tiles
from app.probes.sources import suggested_sources
from app.tables import Image, JobKind
from tests.worker.conftest import Service
from tests.worker.runs import result_of, run_here, sqlite_only


@pytest.mark.training
@sqlite_only
def test_a_probe_ranks_models_and_orders_tiles(service: Service) -> None:
    with pytest.raises(Invalid, match="pretrain"):
        service.submit(ProbeRequest(target=service.target))
    pretrained = run_here(
        service, service.submit(PretrainRequest(source=service.source, preset="smoke"))
    )
    probe = run_here(service, service.submit(ProbeRequest(target=service.target, max_sections=3)))
    assert (probe.state, probe.error, probe.kind) == ("succeeded", None, JobKind.PROBE)
    assert [(stage.stage, stage.step, stage.total) for stage in probe.stages] == [("probe", 10, 10)]
    assert service.files(probe.id) == {"logs/1.log", "1/looks.npz"}
    found = result_of(probe).probe
    assert found is not None
    (model,) = found.models
    assert (model.model, model.source) == (pretrained.models[0], service.source)
    assert (found.num_sections, found.num_labelled) == (2, 8)
    assert model.loss is not None
    assert model.tile_nm

    with service.database.reading() as session:
        ranked = suggested_sources(session, service.storage, service.target, 10)
        tiles = next_tiles(session, service.storage, service.target, 10)
    assert ranked.items[0].model == model.model
    assert ranked.items[0].loss is not None
    assert ranked.items[0].loss.low <= ranked.items[0].loss.value <= ranked.items[0].loss.high
    assert ranked.items[0].loss.value == pytest.approx(model.loss, rel=1e-4)
    assert ranked.probe is not None
    assert ranked.probe.job == probe.id
    assert (tiles.num_unlabelled, tiles.num_labelled, tiles.enough) == (0, 8, True)

    # Labels that are taken back count at once, without another probe.
    with service.database.session() as session:
        for image in session.scalars(select(Image).where(Image.dataset_id == service.target)):
            if image.n > 0:
                image.labels = {}
        session.commit()
    with service.database.reading() as session:
        after = next_tiles(session, service.storage, service.target, 3)
    assert (after.num_unlabelled, after.looked_at, len(after.items)) == (7, 7, 3)
    assert all(item.told is not None for item in after.items)
    assert after.enough is False
