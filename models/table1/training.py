"""Train the methods of Table 1, as ``methods.py`` composes them of the stages.

What rows share is trained once, for ``Run.finished`` knows a stage by what decides its result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

from models.baselines.fourier import FourierMatch
from models.baselines.histogram import HistogramMatch
from models.config import StyleFilterConfig
from models.data.domain import Domain
from models.data.stylised import StylisedDomain
from models.inference import Rendering, stylise_domain
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.segmentation import pretrain
from models.style_transfer import train_style
from models.stylefilter import check_pair
from models.table1.methods import METHODS, MethodName, Styler
from models.training.loop import Run

_Adapt = Callable[[UNet, Domain, StylisedDomain, StyleFilterConfig, Run], UNet]


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
    its = METHODS[method]
    if its.masks_of == "target":
        segmenter = pretrain(target, config, run)
        return Trained(segmenter, segmenter, None)
    source_only = pretrain(source, config, run)
    by_cut = its.trained_on == "cut" or (its.adapt is None and with_style)
    style = train_style(source, target, config, run, source_only) if by_cut else None
    if its.adapt is None:
        return Trained(source_only, source_only, style)
    render = rendering(its.trained_on, source, config, style)
    rendered = stylise_domain(render, target, work / "stylised.zarr", run.report)
    adapt: _Adapt = resolve_name(its.adapt)
    segmenter = adapt(source_only, source, rendered, its.changed(config), run)
    return Trained(segmenter, source_only, style)


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
