"""Every row of Table 1, trained: compositions of the stages, each of which is written once.

``rows.py`` says which row tests which method, and how; what rows share is trained once, for
``Run.finished`` knows a stage by what decides its result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.adaptation import adapt_statistics
from models.baselines.fourier import FourierMatch
from models.baselines.histogram import HistogramMatch
from models.baselines.weak_labels import adapt_weak_labels
from models.baselines.ynet import adapt_ynet
from models.config import StyleFilterConfig
from models.data.domain import Domain
from models.data.stylised import StylisedDomain
from models.inference import Rendering, stylise_domain
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.segmentation import pretrain
from models.style_transfer import train_style
from models.stylefilter import adapt_segmenter, check_pair
from models.table1.rows import ESTIMATES_STATISTICS, TRAINED_ON, MethodName, Styler
from models.training.loop import Run

_Adapt = Callable[[UNet, Domain, StylisedDomain, StyleFilterConfig, Run], UNet]

_ADAPT: dict[MethodName, _Adapt] = {
    "y-net": adapt_ynet,
    "paul": adapt_weak_labels,
    "paul-no-advl": adapt_weak_labels,
    "paul-no-advl-cut": adapt_weak_labels,
    "stylefilter": adapt_segmenter,
    "filter-without-style": adapt_segmenter,
    "unfiltered": adapt_segmenter,
    "stylefilter-histogram": adapt_segmenter,
    "stylefilter-fourier": adapt_segmenter,
    "adabn": adapt_statistics,
    "adabn-cut": adapt_statistics,
}


_FILTERED: tuple[MethodName, ...] = (
    "stylefilter",
    "filter-without-style",
    "stylefilter-histogram",
    "stylefilter-fourier",
)


@dataclass(frozen=True)
class Trained:
    """A method's segmenter, and the style model, where there is one.

    ``source_only`` is what it started from; the segmenter itself where nothing was adapted.
    """

    segmenter: UNet
    source_only: UNet
    style: Generator | None


def train_method(  # noqa: PLR0913 - a run's four and what is asked for
    method: MethodName,
    pair: tuple[Domain, Domain],
    config: StyleFilterConfig,
    run: Run,
    work: Path,
    *,
    with_style: bool = True,
) -> Trained:
    """Train a method on ``pair`` (source, target); ``work`` takes the rendered target images.

    A style model is trained for those methods that render target images by it, and ``with_style``
    for source-only too, whose segmenter the row CUT tests.
    """
    source, target = pair
    check_pair(source, target)
    if method == "target-only":
        segmenter = pretrain(target, config, run)
        return Trained(segmenter, segmenter, None)
    source_only = pretrain(source, config, run)
    styler = TRAINED_ON.get(method, "cut" if with_style else "none")
    style = train_style(source, target, config, run, source_only) if styler == "cut" else None
    if method == "source-only":
        return Trained(source_only, source_only, style)
    render = rendering(styler, source, config, style)
    rendered = stylise_domain(render, target, work / "stylised.zarr", run.report)
    changed = config_of(method, config)
    segmenter = _ADAPT[method](source_only, source, rendered, changed, run)
    return Trained(segmenter, source_only, style)


def config_of(method: MethodName, config: StyleFilterConfig) -> StyleFilterConfig:
    """The config with what makes the method the row it is."""
    adaptation, weak_labels = config.adaptation, config.weak_labels
    if method == "unfiltered":
        adaptation = adaptation.model_copy(update={"label_filter": False})
    elif method in _FILTERED:
        adaptation = adaptation.model_copy(update={"label_filter": True})
    elif method in ("paul-no-advl", "paul-no-advl-cut"):
        without = {"weight_class_alignment": 0.0, "weight_output_alignment": 0.0}
        weak_labels = weak_labels.model_copy(update=without)
    elif method in ESTIMATES_STATISTICS:
        update = {"norm_statistics": "target", "select_on": "last"}  # there is nothing to choose
        adaptation = adaptation.model_copy(update=update)
    return config.model_copy(update={"adaptation": adaptation, "weak_labels": weak_labels})


def rendering(
    styler: Styler, source: Domain, config: StyleFilterConfig, style: Generator | None
) -> Rendering:
    """What a styler makes of target images; ``cut`` is the generator ``style``."""
    match styler:
        case "cut":
            assert style is not None
            return Rendering.by(style)
        case "histogram":
            return Rendering(HistogramMatch.to(source), "histogram")
        case "fourier":
            beta = config.fourier_beta
            return Rendering(FourierMatch.of(source, beta), f"fourier {beta}")
        case "none":
            return Rendering(lambda image: image, "nothing")
