"""What the trainer does when a stage does not fit the GPU; the allocator's refusal is played."""

import pytest
import torch
from torch import Tensor

from app.jobs.transitions import claim
from app.tables import JobState
from models import segmentation
from models.capacity.limits import in_less_memory
from models.config import StyleFilterConfig, preset
from models.data.samples import SourceBatch
from models.segmentation import supervised_loss
from tests.worker.conftest import Service
from worker.trainer import Trainer

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def with_batch(size: int, **pretrain: int) -> StyleFilterConfig:
    return preset("smoke").changed({"pretrain": {"batch_size": size, **pretrain}})


def test_a_batch_is_halved_before_a_crop() -> None:
    smaller = in_less_memory(with_batch(6), "pretrain")
    assert smaller is not None
    config, words = smaller
    assert config == with_batch(6, accumulate=2)
    assert words == "pretrain.accumulate 1 -> 2: the same batch in smaller parts"

    smaller = in_less_memory(with_batch(1, crop_px=100), "pretrain")
    assert smaller is not None
    config, words = smaller
    assert config == with_batch(1, crop_px=48)
    assert words == "pretrain.crop_px 100 -> 48: the result is not what was asked for"

    assert in_less_memory(with_batch(3, accumulate=3, crop_px=40), "pretrain") is None
    assert in_less_memory(with_batch(6), "stylise") is None


def limit_images(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A loss on more than ``most`` images at a time is refused as a GPU's allocator would."""

    def limited(segmenter: object, batch: SourceBatch, *arguments: object) -> Tensor:
        if len(batch.images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return supervised_loss(segmenter, batch, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(segmentation, "supervised_loss", limited)


@sqlite_only
def test_a_stage_that_does_not_fit_is_tried_once_in_smaller_parts(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_images(monkeypatch, most=1)
    job_id = service.adapt()
    lease = claim(service.database, "test", 60)
    assert lease is not None
    assert Trainer(service.settings, lease).run() == 0
    job = service.job(job_id)
    assert job.state == JobState.SUCCEEDED
    assert job.result is not None
    assert job.result.notes[-1] == (
        "The GPU's memory was too small; changed pretrain.accumulate 1 -> 2: the same batch in "
        "smaller parts."
    )
    assert job.result.changed == ["pretrain.accumulate 1 -> 2: the same batch in smaller parts"]
    assert job.config.pretrain.accumulate == 1  # what was asked for
    (segmenter,) = [row for row in service.models() if row.kind == "segmenter"]
    assert segmenter.config["pretrain"]["accumulate"] == 2  # what was done


@sqlite_only
def test_a_stage_that_does_not_fit_twice_fails_the_job(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_images(monkeypatch, most=0)
    job_id = service.adapt()
    lease = claim(service.database, "test", 60)
    assert lease is not None
    assert Trainer(service.settings, lease).run() == 1
    job = service.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "gpu_oom")
    assert "stage pretrain: CUDA out of memory" in job.error.message
    assert service.models() == []
