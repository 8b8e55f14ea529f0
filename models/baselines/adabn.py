"""AdaBN (Li et al. 2016): the target's statistics for batch norm, and the source-only weights."""

import copy

from models.adaptation import estimate_on_target
from models.checkpoint import load_segmenter
from models.config import AdaptationConfig, StyleFilterConfig
from models.data.domain import Domain
from models.data.stylised import StylisedDomain
from models.networks.statistics import norms
from models.networks.unet import UNet
from models.training import identity
from models.training.loop import Run
from models.training.parallel import rank
from models.training.progress import Progress

_READ = {"crop_px", "batch_size", "augmentation", "norm_statistics"}


def adapt_statistics(
    source_only: UNet,
    source: Domain,
    target: StylisedDomain,
    config: StyleFilterConfig,
    run: Run,
) -> UNet:
    """Return a copy of ``source_only`` with batch norm's statistics of the target, untrained.

    The crops are those that every method estimates statistics from before a validation, so that
    this shows how much of a method's gain its statistics alone bring. ValueError without batch
    norm.
    """
    if not norms(source_only):
        raise ValueError("AdaBN needs a segmenter with batch norm: set segmenter.norm to batch")
    facts = identity.MethodFacts(
        labels=False,
        settings={"method": "adabn"},
        unused=AdaptationConfig.model_fields.keys() - _READ,
    )
    this = identity.of_adaptation(source_only, source, target, config, facts)
    if finished := run.finished("adapt", this):
        return load_segmenter(finished, next(source_only.parameters()).device)[0]
    segmenter = copy.deepcopy(source_only)
    estimate_on_target(segmenter, target, config)
    if rank() == 0:
        run.report(Progress("adapt", 1, 1, {}))
    return segmenter.eval()
