"""Checks the datasets and models of a request for a job.

Each refusal names the field of the request that is wrong; ``where`` is this field.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import Invalid, NotFound, ProblemItem, refusal
from app.jobs import preflight
from app.registry import service as registry
from app.settings import Settings
from app.tables import Dataset, Image, ModelKind, TrainedModel
from models.capacity.estimate import Estimate
from models.capacity.limits import Room, shortages
from models.choice.label_scores import LEAST_TILES
from models.config.stylefilter import StyleFilterConfig
from models.config.versions import ConfigUnusable
from models.data.class_map import ClassMap
from models.data.domain import shows_nothing, working_shape
from models.data.sections import Section, Split
from models.labels_used.training_masks import masked_sections
from models.table1.plan import FoldSections


@dataclass(frozen=True)
class Context:
    """Holds the database session and the settings that requests are checked with."""

    session: Session
    settings: Settings


def held_dataset(context: Context, dataset_id: UUID, where: str) -> Dataset:
    """Return a dataset, and keep others from deleting it until the transaction ends."""
    with _naming(where):
        return datasets.hold(context.session, dataset_id)


def trained_model(context: Context, model_id: UUID, where: str, *kinds: ModelKind) -> TrainedModel:
    """Return a trained model; Invalid if it is of none of these kinds."""
    with _naming(where):
        model = registry.get(context.session, model_id)
    if model.kind not in kinds:
        raise refusal(
            where,
            f"model {model_id} is of kind {model.kind}: name a model of kind {' or '.join(kinds)}",
        )
    return model


def config_of(model: TrainedModel, where: str) -> StyleFilterConfig:
    """Return the configuration of a model in today's fields."""
    try:
        return model.usable_config()
    except ConfigUnusable as error:
        raise refusal(
            where, f"model {model.id} cannot be used: {error}; train it anew with this version"
        ) from error


def training_pair(
    context: Context,
    source_id: UUID,
    target_id: UUID,
    config: StyleFilterConfig,
    target_classes: Mapping[str, str] | None,
) -> tuple[Dataset, Dataset]:
    """Return source and target; Invalid if they do not match or one has no section to train on."""
    source = held_dataset(context, source_id, "source")
    target = held_dataset(context, target_id, "target")
    check_classes(target, source.class_names, "target", target_classes)
    _check_scales(context, source, target, config)
    check_masked_sections(target.sections, config)
    pair = source, target
    for where, dataset in zip(("source", "target"), pair, strict=True):
        if not any(section.split == "train" for section in dataset.sections):
            raise refusal(
                where,
                f"the {where} has no section in its train split: register it with other splits",
            )
    return pair


def matching_pair(
    context: Context,
    source_id: UUID,
    target_id: UUID,
    config: StyleFilterConfig,
    target_classes: Mapping[str, str] | None,
) -> tuple[Dataset, Dataset]:
    """Return source and target of a benchmark; Invalid if they do not match.

    The target has each class of the source.
    """
    source = held_dataset(context, source_id, "source")
    target = held_dataset(context, target_id, "target")
    if missing := check_classes(target, source.class_names, "target", target_classes):
        raise refusal(
            "target",
            f"no class of the target is {', '.join(missing)}, and a benchmark scores each class: "
            "say so in target_classes, or register the target with the classes of the source",
        )
    _check_scales(context, source, target, config)
    return source, target


def _check_scales(
    context: Context, source: Dataset, target: Dataset, config: StyleFilterConfig
) -> None:
    nm = config.working_nm(source.pixel_size_nm)
    for where, dataset in (("source", source), ("target", target)):
        check_scale(context, dataset, nm, where)


def check_scale(context: Context, dataset: Dataset, nm: float, where: str) -> None:
    """Refuse a dataset with a section that is too large or too small at ``nm`` per pixel."""
    limit = context.settings.max_section_pixels
    for section in dataset.sections:
        native = section.height, section.width
        own_nm = section.pixel_size_nm or dataset.pixel_size_nm
        height, width = working_shape(native, own_nm, nm)
        shown = own_nm if isinstance(own_nm, float) else min(own_nm)
        resampled = (
            f"the {where} has pixels of {shown:.9g} nm and the job works at {nm:.9g} nm per pixel, "
            f"so section {section.name!r} would be resampled to {height} x {width} px."
        )
        if height * width > limit:
            raise refusal(
                where,
                f"{resampled} The service allows {limit} pixels: set a larger "
                "config.pixel_size_factor, or register the section in smaller pieces",
            )
        if shows_nothing(native, (height, width)):
            raise refusal(
                where,
                f"{resampled} That is too small to show anything: check the pixel sizes of source "
                "and target, or set a smaller config.pixel_size_factor",
            )


def check_classes(
    dataset: Dataset,
    class_names: Sequence[str],
    where: str,
    meanings: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Return the job's classes that a dataset lacks; Invalid if one of its own has no meaning."""
    try:
        return ClassMap.between(dataset.class_names, class_names, meanings).missing
    except ValueError as error:
        field = where if meanings is None else "target_classes"
        raise refusal(
            field, f"the {where} does not suit: {error}. The field for that is target_classes"
        ) from error


def check_masks(dataset: Dataset, split: Split, where: str) -> None:
    """Refuse a dataset that has no mask in a split."""
    if not any(section.split == split and section.has_mask for section in dataset.sections):
        raise refusal(
            where,
            f"the {where} has no section with a mask in its {split} split: register it with masks "
            "there, or choose another dataset",
        )


def check_masked_sections(
    sections: Sequence[Section], config: StyleFilterConfig, of: str = "the target"
) -> None:
    """Refuse a configuration that names masks which the target's training sections lack."""
    try:
        masked_sections(sections, config.rounds.masked_sections)
    except ValueError as error:
        raise refusal("config.rounds.masked_sections", f"{of} does not suit: {error}") from error


def notes_on_classes(source: Dataset, fold: FoldSections | None = None) -> tuple[str, ...]:
    """Return a note if the source's training masks hold one class only; refuse one without classes.

    ``fold`` names the training sections; None stands for the source's own train split.
    """
    classes = preflight.classes_to_learn(source, fold)
    if not classes:
        raise refusal(
            "source",
            "every pixel of the source's training masks is ignored, so there is nothing to learn: "
            "register the source with masks that hold classes",
        )
    if len(classes) > 1:
        return ()
    return (
        f"The source's training masks hold one class only, {classes[0]}: a network that is trained "
        "on them predicts this class for every pixel.",
    )


def notes_on_pair(
    source: Dataset, target: Dataset, target_classes: Mapping[str, str] | None
) -> tuple[str, ...]:
    """Return the notes on the source's classes, and one on those that the target lacks."""
    notes = notes_on_classes(source)
    missing = check_classes(target, source.class_names, "target", target_classes)
    if not missing:
        return notes
    return (
        *notes,
        f"No class of the target is {', '.join(missing)}, so no label says where it is absent: the "
        "model may find it in every image.",
    )


def notes_on_labels(
    context: Context, target: Dataset, config: StyleFilterConfig
) -> tuple[str, ...]:
    """Return a note if no image of the target has a label, or if its labels can choose nothing."""
    labelled = select(Image.n).where(Image.dataset_id == target.id, Image.labels != {}).limit(1)
    none = context.session.scalar(labelled) is None
    by_labels = config.method == "chosen" and not config.rounds.masked_sections
    if by_labels and (none or not _can_judge(context.session, target)):
        told = "No image of the target has a label" if none else "The target has too few labels"
        return (
            f"{told}, so nothing can be chosen: as it is now, the job will train on the source and "
            "hand out the source-only model. Label training images until a class is present in "
            f"{LEAST_TILES} of them and absent in {LEAST_TILES}; labels count that are there when "
            "the job begins. With config.method stylefilter no label is needed.",
        )
    if not none or config.method == "chosen":
        return ()
    return (
        "No image of the target has a label: nothing will be filtered, and no verdict will tell "
        "whether the adapted model is better than the source-only model. Label some images first.",
    )


def _can_judge(session: Session, target: Dataset) -> bool:
    """Tell whether some class is present in enough training images, and absent in enough."""
    training = {s.index for s in target.sections if s.split == "train"}
    query = select(Image.section, Image.labels).where(
        Image.dataset_id == target.id, Image.labels != {}
    )
    counts = Counter[tuple[str, str]]()
    for section, labels in session.execute(query.execution_options(yield_per=1000)):
        if section in training:
            counts.update(labels.items())
            if any(
                all(counts[name, word] >= LEAST_TILES for word in ("present", "absent"))
                for name in labels
            ):
                return True
    return False


def check_room(context: Context, estimate: Estimate, config: StyleFilterConfig) -> None:
    """Refuse a job that needs more memory or disk than there is; the refusal tells how much."""
    settings = context.settings
    room = Room(
        # Nobody has measured how much main memory a trainer takes beside a GPU.
        memory_bytes=settings.job_memory_bytes if config.device == "cpu" else None,
        gpu_memory_bytes=settings.gpu_memory_bytes,
        disk_bytes=shutil.disk_usage(settings.data_folder).free,
    )
    if short := shortages(estimate, room):
        items = [
            ProblemItem(where=f"body.config.{lack.field}".rstrip("."), message=lack.message)
            for lack in short
        ]
        raise Invalid(f"the job cannot fit: {'; '.join(lack.message for lack in short)}", items)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Add the field of the request to the refusal of an unknown id."""
    try:
        yield
    except NotFound as error:
        error.errors = [ProblemItem(where=f"body.{where}", message=error.detail)]
        raise
