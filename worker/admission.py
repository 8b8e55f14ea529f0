"""Refuse a job that this machine cannot run, before its first step."""

import logging

import torch

from app.jobs.preflight import work_of
from app.settings import Settings, machine_memory_bytes
from models.capacity import estimate as capacity
from models.capacity.estimate import Extent
from models.capacity.limits import Room, check
from models.training.device import check_stages
from worker.inputs import AskingInputs, EvaluateInputs, PretrainInputs, ProbeInputs, TrainingInputs

logger = logging.getLogger(__name__)


def admit(inputs: TrainingInputs | AskingInputs, settings: Settings) -> None:
    """Refuse a job that this machine cannot run: the API, on another machine, could not know.

    Raises:
        DeviceUnavailable: this machine lacks the device, or the device the precision.
        DoesNotFit: the job needs more memory than there is.
    """
    config = inputs.config
    if isinstance(inputs, EvaluateInputs | ProbeInputs):
        check_stages(config, ())
        return
    source = Extent.of(inputs.source)
    target = None if isinstance(inputs, PretrainInputs) else Extent.of(inputs.target)
    config, stages = work_of(inputs.job, config, target)
    check_stages(config, stages)
    needed = capacity.estimate(config, stages, source, target, num_processes=settings.processes)
    if config.device == "cuda":
        # Only logged: GPU needs are guesses, and a stage that does not fit is retried in parts.
        there = torch.cuda.get_device_properties(0).total_memory
        logger.info("gpu_memory needed=%s there=%s", needed.gpu_memory_bytes, there)
        return
    check(needed, Room(memory_bytes=settings.memory_bytes or machine_memory_bytes()))
