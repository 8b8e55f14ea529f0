"""Train the methods of Table 1: StyleFilter's steps, with the parts that ``methods.py`` names.

A stage that several rows share is trained once: ``Run.finished`` finds it by its identity.
"""

from dataclasses import replace
from pkgutil import resolve_name

from models.baselines.fourier import FourierMatch
from models.baselines.histogram import HistogramMatch
from models.choice.search import choose
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.inference import Styliser
from models.networks.generator import Generator
from models.segmentation import pretrain
from models.style_transfer import train_style
from models.stylefilter import AdaptedModels, Parts, StyleFilter
from models.table1.methods import Method, StyliserName

Trained = AdaptedModels[Generator | None]
"""The networks that a method leaves. ``adapted`` is ``source_only`` if it adapts nothing."""


def train_method(method: Method, steps: StyleFilter, *, with_style: bool) -> Trained:
    """Train a method by StyleFilter's ``steps``, whose config is changed to the method's.

    ``with_style`` trains a style model too: the training stylises by it, or a row's test does.

    Raises:
        ValueError: as ``models.stylefilter.adapt``, or as the method's own function.
    """
    steps = replace(steps, config=method.changed(steps.config))
    if method.chooses:
        return choose(steps)
    if method.masks_of == "target":
        segmenter = pretrain(steps.target, steps.config, steps.run)
        return AdaptedModels(None, segmenter, segmenter)
    return steps.adapt(
        Parts(
            train_style=train_style if with_style else _no_style,
            styliser=lambda style: styliser(method.trained_on, steps.source, steps.config, style),
            adapt=None if method.adapt is None else resolve_name(method.adapt),
        )
    )


def styliser(
    name: StyliserName, source: Domain, config: StyleFilterConfig, style: Generator | None
) -> Styliser:
    """Return the styliser of this name; ``cut`` takes the generator ``style``."""
    match name:
        case "cut":
            assert style is not None
            return Styliser.by(style)
        case "histogram":
            return Styliser(HistogramMatch.to(source), "histogram")
        case "fourier":
            beta = config.fourier_beta
            return Styliser(FourierMatch.of(source, beta), f"fourier {beta}")
        case "none":
            return Styliser(lambda image: image, "nothing")


def _no_style(*_: object) -> None:
    """Take the place of ``train_style`` where no style model is needed."""
