"""The paper's method without the service: open images, adapt, predict, save, load.

docs/python.md shows all of it in 15 lines. A mistake of the caller raises a ValueError that says
what is wrong.

Legend: N images or sections, C classes, H height, W width.
"""

import atexit
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from models import stylefilter
from models.checkpoint import (
    WEIGHTS,
    load_generator,
    load_segmenter,
    save_generator,
    save_segmenter,
)
from models.choice import verdict as verdicts
from models.choice.search import choose
from models.choice.verdict import Verdict
from models.choice.views import applied
from models.config.stages import Device
from models.config.stylefilter import StyleFilterConfig
from models.data.class_map import ClassMap, mapped
from models.data.description import Description
from models.data.domain import Domain, DomainInfo, Tile, shows_nothing
from models.data.files import written_aside
from models.data.intake.findings import DomainRefused
from models.data.intake.given_labels import Labels, given_codes
from models.data.intake.inputs import InputArray, Inputs
from models.data.intake.layout import folder_inputs
from models.data.intake.one_pass import store_domain
from models.data.intake.store import StoredTile
from models.data.readers.remote import open_place
from models.data.readers.remote_store import is_url
from models.data.sections import Split
from models.evaluation import evaluate
from models.inference import Prediction, Predictor, stylise
from models.metadata import DomainMeta, ModelMeta
from models.networks.generator import Generator
from models.networks.unet import UNet
from models.scores import Evaluation
from models.stylefilter import StyleFilter
from models.table1.methods import METHODS
from models.training.device import check_stages, resolve
from models.training.loop import Run
from models.training.progress import Progress, Report
from models.training.resume import Checkpoints

__all__ = [
    "Adapted",
    "Description",
    "DomainRefused",
    "adapt",
    "load",
    "open_arrays",
    "open_folder",
    "with_classes",
]

# The service's names: ``load`` reads its jobs too.
_STYLE, _SEGMENTER, _CHOSEN = "style", "stylefilter", "chosen"


def open_folder(
    folder: Path | str,
    description: Description,
    *,
    labels: Labels | Literal["from_masks"] | None = None,
) -> Domain:
    """Open a folder of images, and of masks where there are any, as a domain.

    Pixels are copied to a temporary folder, which is deleted when this process ends.

    Args:
        folder: a path, or an address such as ``s3://bucket/folder``. It holds ``images/`` and
            perhaps ``masks/`` of PNG or TIFF files, in which a mask has the name of its image; or
            ``images.zarr`` and ``masks.zarr`` of shape (N, H, W). Other usual names are understood
            too, such as ``raw/`` and ``labels/``, or ``a_mask.png``. Images are grey, uint8 or
            uint16; masks hold the class id of each pixel.
        description: classes, pixel size in nanometres, tiles, splits.
        labels: image-level labels. ``from_masks`` reads them off the masks. Adaptation uses those
            of the target's training images; a class that is not named is unknown.

    Raises:
        DomainRefused: files or the description are wrong; ``problems`` names each.
        ValueError: there is no such folder, or a label names an image or class that is not there.
    """
    if is_url(str(folder)):
        place = open_place(str(folder))
        return _open(folder_inputs(place), description, labels, place.name or str(folder))
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    return _open(folder_inputs(path), description, labels, path.resolve().name)


def open_arrays(
    images: Sequence[NDArray[np.generic]],
    description: Description,
    *,
    masks: Sequence[NDArray[np.generic] | None] | None = None,
    labels: Labels | Literal["from_masks"] | None = None,
    name: str = "arrays",
) -> Domain:
    """Open images (H, W) uint8 or uint16 as a domain; sections are named 0000, 0001, ...

    ``masks`` has one (H, W) of class ids per image, or None where an image has no mask. ``labels``
    and errors are those of ``open_folder``. Messages call the domain by its ``name``.
    """
    if masks is not None and len(masks) != len(images):
        raise ValueError(
            f"{len(masks)} masks were given for {len(images)} images: give a mask or None for each"
        )
    # Named alike, because a mask finds its image by name.
    inputs = Inputs(
        [InputArray(f"{number:04d}", image) for number, image in enumerate(images)],
        [
            InputArray(f"{number:04d}", mask)
            for number, mask in enumerate(masks or ())
            if mask is not None
        ],
    )
    return _open(inputs, description, labels, name)


@dataclass(frozen=True)
class Adapted:
    """The networks that an adaptation leaves, which segment the target's images.

    ``style`` redraws a target image in the style of the source, and ``segmenter`` segments the
    result; without ``style`` it segments the image itself. ``meta`` holds the config, the classes,
    both domains' pixel sizes and grey windows, and the view that comes before both networks.
    ``verdict`` tells why the method ``chosen`` chose the segmenter; None for other methods.
    """

    style: Generator | None
    segmenter: UNet
    meta: ModelMeta
    verdict: Verdict | None = None

    def predict(
        self, image: NDArray[np.generic], *, pixel_size_nm: float | None = None
    ) -> Prediction:
        """Segment an image (H, W) of the target's microscope, in the dtype of the target's images.

        ``pixel_size_nm`` is the target's unless another is given. The result has ``mask`` (H, W)
        uint8, the class id of each pixel, and ``probabilities`` (C, H, W) float32 in [0, 1].

        Raises:
            ValueError: the image is not (H, W).
        """
        target = self._target
        return self._predictor.predict(
            image,
            pixel_size_nm or target.pixel_size_nm,
            intensity_window=target.intensity_window,
            stylise=self.style is not None,
        )

    def evaluate(self, domain: Domain, split: Split = "test") -> Evaluation:
        """Return the DICE of each class, in [0, 1], over all masks of a split.

        Raises:
            ValueError: the split has no section with a mask.
        """
        domain = with_classes(domain, self.meta.class_names)
        return evaluate(self._predictor, domain, split, report=_ignore).pooled

    def save(self, folder: Path | str) -> None:
        """Write the networks to a folder, which must not exist yet.

        Raises:
            OSError: the folder holds something already, or the disk refuses.
        """
        if self.style is None:
            save_segmenter(Path(folder), self.segmenter, self.meta, {})
            if self.verdict is not None:
                verdicts.keep(self.verdict, Path(folder))
            return
        with written_aside(Path(folder)) as draft:
            draft.mkdir()
            # One config trained both networks, so only the kind differs.
            style_meta = self.meta.model_copy(update={"kind": "generator"})
            save_generator(draft / _STYLE, self.style, style_meta, {})
            save_segmenter(draft / _SEGMENTER, self.segmenter, self.meta, {})

    @property
    def _target(self) -> DomainMeta:
        assert self.meta.target is not None
        return self.meta.target

    @cached_property
    def _predictor(self) -> Predictor:
        style = None if self.style is None else partial(stylise, self.style)
        view, meta = applied(self.meta.view), self.meta
        return Predictor(self.segmenter, meta.working_nm, meta.crop_px, style, view)


def _ignore(progress: Progress) -> None:
    """Ignore the progress of a run."""


def adapt(
    source: Domain,
    target: Domain,
    config: StyleFilterConfig,
    *,
    on_progress: Report = _ignore,
    folder: Path | str | None = None,
) -> Adapted:
    """Adapt a segmentation from a source with masks to a target with image-level labels.

    The paper has three steps: learn the source's style, learn to segment the source, and adapt to
    the target with filtered pseudo-labels. With ``config.method`` ``chosen``, which ``best`` has,
    the target's labels choose among several candidates instead, and no style is learnt.

    Args:
        source: needs masks in its training sections.
        target: has the same classes, in any order. If they have other names, ``with_classes``
            says which they are.
        config: ``preset("best")`` or another of ``models.config``; both domains are resampled to
            the source's pixel size times ``pixel_size_factor``.
        on_progress: is called with a ``Progress`` after each step. To end the run, it raises.
        folder: keeps the state of the training, saved every minute. The same call with the same
            folder goes on from that state.

    Raises:
        ValueError: the domains do not fit each other or the config, or a loss is not finite.
    """
    working_nm = config.working_nm(source.info.pixel_size_nm)
    target = with_classes(target, source.info.class_names)
    source, target = _at(source, working_nm), _at(target, working_nm)
    run = Run(on_progress, None if folder is None else Checkpoints(Path(folder)))
    if config.method == "chosen":
        config = METHODS["chosen"].changed(config)
    meta = ModelMeta(
        kind="segmenter",
        config=config,
        class_names=source.info.class_names,
        working_nm=working_nm,
        source=DomainMeta.of(source),
        target=DomainMeta.of(target),
    )
    # Stylised images are of no use after the run: the folder goes with this process.
    work = _new_folder()
    if config.method == "chosen":
        check_stages(config, ("pretrain", "adapt"))
        chosen = choose(StyleFilter(source, target, config, run, work))
        meta = meta.model_copy(update={"view": chosen.view})
        return Adapted(None, chosen.adapted, meta, chosen.verdict)
    made = stylefilter.adapt(source, target, config, run, work)
    return Adapted(made.style, made.adapted, meta)


def with_classes(
    domain: Domain, class_names: Sequence[str], meanings: Mapping[str, str] | None = None
) -> Domain:
    """Return a domain with other classes: those of a source, for example.

    ``meanings`` names one of ``class_names``, or ``ignore``, for classes of the domain. A class
    that it leaves out keeps its name. Masks and labels follow.

    Raises:
        ValueError: a name is unknown, or a class of the domain has no meaning.
    """
    return mapped(domain, ClassMap.between(domain.info.class_names, class_names, meanings))


def load(folder: Path | str, device: Device = "cpu") -> Adapted:
    """Load networks that ``Adapted.save`` wrote, or that an adapt job of the service left.

    The folder of one segmenter of the service, such as ``segmenter``, may be given too.

    Raises:
        ValueError: a file is missing or damaged, or this machine has no such device.
    """
    folder, on = Path(folder), resolve(device)
    if (folder / _CHOSEN).is_dir():
        folder /= _CHOSEN
    if (folder / WEIGHTS).is_file():
        return Adapted(None, *load_segmenter(folder, on), verdicts.kept(folder))
    style, _ = load_generator(folder / _STYLE, on)
    segmenter, meta = load_segmenter(folder / _SEGMENTER, on)
    return Adapted(style, segmenter, meta)


def _at(domain: Domain, working_nm: float) -> Domain:
    """Return the domain at another working pixel size; ValueError if it would show nothing."""
    made = domain.at(working_nm)
    for section in made.sections:
        native, working = (section.height, section.width), made.working_shape(section)
        if shows_nothing(native, working):
            raise ValueError(
                f"section {section.name!r} of {domain.info.name!r} would be resampled to "
                f"{working[0]} x {working[1]} px at {working_nm:g} nm per pixel: check the pixel "
                "sizes of both domains"
            )
    return made


def _open(
    inputs: Inputs,
    description: Description,
    labels: Labels | Literal["from_masks"] | None,
    name: str,
) -> Domain:
    folder = _new_folder()
    stored = store_domain(description, inputs, folder)
    info = DomainInfo(
        name=name,
        class_names=tuple(description.class_names),
        pixel_size_nm=stored.pixel_size_nm,
        intensity_window=stored.window,
        digest=stored.digest,
    )
    codes = given_codes(stored, info.class_names, labels)
    tiles = [_tile(tile, of_tile) for tile, of_tile in zip(stored.tiles, codes, strict=True)]
    return Domain(folder, info, stored.sections, tiles)


def _tile(tile: StoredTile, labels: tuple[int, ...]) -> Tile:
    return Tile(tile.section, tile.y0, tile.x0, tile.height, tile.width, labels)


def _new_folder() -> Path:
    """Return a free path for a folder, which is deleted when this process ends."""
    return _temporary() / uuid4().hex


@cache  # one folder for the process, removed once
def _temporary() -> Path:
    folder = Path(mkdtemp(prefix="stylefilter-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
