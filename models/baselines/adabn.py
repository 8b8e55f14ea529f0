"""AdaBN (Li et al. 2016): the source-only weights with the target's batch-norm statistics."""

import copy

from models.adaptation import estimate_on_target
from models.checkpoint import load_segmenter
from models.config.stages import AdaptationConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.data.stylised import StylisedDomain
from models.networks.statistics import norms
from models.networks.unet import UNet
from models.training import identity
from models.training.loop import Run
from models.training.parallel import rank
from models.training.progress import Progress

# The fields of ``config.adaptation`` that decide the crops; no other field changes the result.
_READ = {"crop_px", "batch_size", "augmentation", "norm_statistics"}


def adapt_statistics(
    source_only: UNet,
    source: Domain,
    target: StylisedDomain,
    config: StyleFilterConfig,
    run: Run,
) -> UNet:
    """Return a copy of ``source_only`` with batch norm's statistics of the target, untrained.

    Every method estimates its statistics from the same crops before a validation, so the result
    shows how much of a method's gain the statistics alone bring.

    Raises:
        ValueError: the segmenter has no batch norm, or (as NonFiniteLoss) a statistic is not
            finite.
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
