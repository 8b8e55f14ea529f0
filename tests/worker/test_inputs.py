"""The inputs of a job: the target is read in the classes of the job."""

from sqlalchemy import select

from app.jobs.request_schemas import AdaptRequest
from app.tables import Dataset, Image, Job
from tests.worker.conftest import Service
from worker.inputs import AdaptInputs, read_inputs


def test_a_target_of_other_names_and_order_is_read_as_the_source(service: Service) -> None:
    with service.database.session() as session:
        job = session.get_one(Job, service.adapt())
        plain = read_inputs(session, service.storage, job)
        assert isinstance(plain, AdaptInputs)
        target = session.get_one(Dataset, service.target)
        names = target.class_names
        # Its masks then call the first class of the source by the id of the last, and so on.
        target.class_names = tuple(f"my {name}" for name in reversed(names))
        for image in session.scalars(select(Image).where(Image.dataset_id == target.id)):
            image.labels = {f"my {name}": state for name, state in image.labels.items()}
        session.commit()
    meanings = {f"my {name}": name for name in names}
    request = AdaptRequest(
        source=service.source, target=service.target, preset="smoke", target_classes=meanings
    )
    job_id = service.submit(request)
    with service.database.reading() as session:
        found = read_inputs(session, service.storage, session.get_one(Job, job_id))
        assert isinstance(found, AdaptInputs)
    assert found.target.info.class_names == found.source.info.class_names == names
    assert found.target.tiles == plain.target.tiles
    assert any(tile.labelled for tile in found.target.tiles)
    assert found.target.info.class_ids == tuple(reversed(range(len(names))))
    (section, *_) = found.target.split("test", masked=True)
    was, now = plain.target.native_mask(section), found.target.native_mask(section)
    assert (was[was != 255] + now[was != 255] == len(names) - 1).all()
