"""StyleFilter: the three steps of section 2 of the paper."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain
from models.data.stylised import StylisedDomain
from models.inference import Styliser, stylise_domain
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.pseudo_labels import adapt_segmenter
from models.segmentation import pretrain
from models.style_transfer import train_style
from models.training.device import check_stages
from models.training.loop import Run

Style = TypeVar("Style", bound=Generator | None)
Style_co = TypeVar("Style_co", bound=Generator | None, covariant=True)


def adapt(
    source: Domain,
    target: Domain,
    config: StyleFilterConfig,
    run: Run,
    workspace: Path,
) -> "AdaptedModels[Generator]":
    """Adapt a segmenter from ``source`` to ``target`` by the paper's three steps.

    Both domains have the same classes and one working pixel size (``Domain.working_nm``).

    Args:
        source: needs masks in its training sections.
        target: needs training sections; their image-level labels filter the pseudo-labels.
        config: the numbers of all three steps.
        run: is told of each step, and keeps the state of the training if it has checkpoints.
        workspace: a folder for the stylised target images, as large as the target's training
            sections in float32; it may be deleted afterwards.

    Raises:
        ValueError: the domains do not fit each other, this machine cannot train as ``config``
            says, or a loss is not finite.
    """
    steps = StyleFilter(source, target, config, run, workspace)
    # Before the first stage: hours later would be too late.
    check_stages(config, ("pretrain", "style", "adapt"))
    return steps.adapt(PAPER)


@dataclass(frozen=True)
class StyleFilter:
    """The three steps for a pair of domains; the function ``adapt`` explains each field."""

    source: Domain
    target: Domain
    config: StyleFilterConfig
    run: Run
    workspace: Path

    def __post_init__(self) -> None:
        check_pair(self.source, self.target)

    def adapt(self, parts: "Parts[Style]") -> "AdaptedModels[Style]":
        """Train all three steps."""
        # The paper trains the style first. Here the segmenter comes first, to choose the style.
        source_only = pretrain(self.source, self.config, self.run)  # Step 2, Eq. 1
        style = parts.train_style(self.source, self.target, self.config, self.run, source_only)
        return self.adapt_trained(source_only, style, parts)

    def adapt_trained(
        self, source_only: UNet, style: Style, parts: "Parts[Style]"
    ) -> "AdaptedModels[Style]":
        """Train the third step with the networks of the first two."""
        if parts.adapt is None:
            return AdaptedModels(style, source_only, source_only)
        out, report = self.workspace / "stylised.zarr", self.run.report
        stylised = stylise_domain(parts.styliser(style), self.target, out, report)
        adapted = parts.adapt(source_only, self.source, stylised, self.config, self.run)
        return AdaptedModels(style, source_only, adapted)


@dataclass(frozen=True)
class AdaptedModels(Generic[Style_co]):
    """The networks that an adaptation leaves: theta_style, and theta_seg before and after it."""

    style: Style_co
    source_only: UNet
    adapted: UNet


Adapt = Callable[[UNet, Domain, StylisedDomain, StyleFilterConfig, Run], UNet]
"""A function that trains a copy of a source-only segmenter on source and stylised target."""


@dataclass(frozen=True)
class Parts(Generic[Style]):
    """The parts of the three steps that another method may replace.

    ``train_style`` is given both domains and the source-only segmenter, which may choose the style.
    ``adapt`` is None where the source-only segmenter stays as it is.
    """

    train_style: Callable[[Domain, Domain, StyleFilterConfig, Run, UNet], Style]
    styliser: Callable[[Style], Styliser]
    adapt: Adapt | None


PAPER = Parts(train_style, Styliser.by, adapt_segmenter)
"""The parts of the paper's method: CUT, and pseudo-labels that image-level labels filter."""


def check_pair(source: Domain, target: Domain) -> None:
    """Refuse domains that do not share classes and working pixel size.

    Raises:
        ValueError: they do not; the message names both values.
    """
    if source.info.class_names != target.info.class_names:
        raise ValueError(
            f"source classes {source.info.class_names} and target classes "
            f"{target.info.class_names} differ: give both the same names in the same order"
        )
    if source.working_nm != target.working_nm:
        raise ValueError(
            f"working pixel sizes differ: {source.working_nm} nm and {target.working_nm} nm"
        )
