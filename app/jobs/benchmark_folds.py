"""Plans a benchmark: chooses the sections that train, validate and test in each fold."""

from collections.abc import Iterator, Sequence
from itertools import compress

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.columns import stored_list
from app.errors import refusal
from app.jobs.checks import check_masked_sections
from app.jobs.request_schemas import BenchmarkRequest
from app.tables import Dataset, Image
from models.config.stylefilter import StyleFilterConfig
from models.data.labels import known_labels, present_classes
from models.data.splits import (
    DatasetFolds,
    Role,
    SectionLists,
    cross_validation,
    with_splits,
)
from models.table1.methods import ROWS, VALUED
from models.table1.plan import BenchmarkPlan, Budget, FoldSections


def plan(
    session: Session,
    request: BenchmarkRequest,
    pair: tuple[Dataset, Dataset],
    config: StyleFilterConfig,
) -> BenchmarkPlan:
    """Return the plan of a benchmark; Invalid if its datasets cannot be divided as it needs."""
    source, target = pair
    for name in request.excluded:
        if name not in source.class_names:
            raise refusal(
                "excluded",
                f"the source has no class {name!r}: its classes are "
                f"{', '.join(source.class_names)}",
            )
    if len(set(request.excluded)) == len(source.class_names):
        raise refusal("excluded", "all classes are excluded: leave at least one to score")
    _check_rows(request, config)
    if request.folds is not None:
        of_source = _published(request.folds.source, source, "source")
        of_target = _published(request.folds.target, target, "target")
    else:
        of_source = _divided(source, request.num_folds, "source")
        of_target = _divided(target, request.num_folds, "target")
    needs: dict[str, tuple[Role, ...]] = {"source": ("train",), "target": ("test",)}
    rows = [ROWS[row] for row in request.rows]
    labelled = any(row.method.uses_labels for row in rows)
    own_masks = any(row.method.masks_of == "target" for row in rows)
    read_off = request.label_tiles_px or request.num_points
    if own_masks or read_off or (labelled and request.tile_px):
        needs["target"] = ("train", "test")  # labels of tiles are read off these masks
    if labelled and request.tile_px is None:
        tested = any(row.filtered for row in rows)
        _check_labels(session, target, of_target, ("train", "test") if tested else ("train",))
    working_nm = config.working_nm(source.pixel_size_nm)
    crop_nm = config.adaptation.crop_px * working_nm
    _check_tiles(session, request, target, crop_nm)
    for dataset, folds, where in ((source, of_source, "source"), (target, of_target, "target")):
        for number, fold in enumerate(folds, start=1):
            _check_masks(dataset, fold, needs[where], f"fold {number} of the {where}")
    seeds = tuple(dict.fromkeys(request.seeds))
    budgets = tuple(dict.fromkeys(_budgets(request)))
    most = config.changed({"rounds": {"masked_sections": max(request.num_masks, default=0)}})
    for its in (config, most) if request.num_masks else (config,):
        _check_masked_sections(request, target, of_target, its)
    return BenchmarkPlan(
        rows=tuple(row for row in ROWS if row in request.rows),
        folds=tuple(
            FoldSections(source=s, target=t) for s, t in zip(of_source, of_target, strict=True)
        ),
        seeds=seeds if len(seeds) > 1 else (),
        only_folds=_only(request.only_folds, len(of_target)),
        preset=request.preset,
        tile_px=request.tile_px,
        label_tiles_px=tuple(dict.fromkeys(request.label_tiles_px)),
        crop_tiles_px=tuple(
            tile_px
            for tile_px in dict.fromkeys(request.label_tiles_px)
            if tile_px * target.pixel_size_nm <= crop_nm
        ),
        budgets=budgets,
        excluded=tuple(dict.fromkeys(request.excluded)),
    )


def _budgets(request: BenchmarkRequest) -> Iterator[Budget]:
    """Yield the smaller annotations that are asked for."""
    asked = [name for name in ("num_labels", "num_masks", "num_points") if getattr(request, name)]
    if asked and not set(VALUED) & set(request.rows):
        raise refusal(asked[0], f"none of the rows {', '.join(VALUED)} is asked for: add one")
    for number in request.num_labels:
        for order in request.label_orders:
            # Of no tiles there is one order.
            yield Budget(num_labels=number, order=order if number else "random")
    for number in request.num_masks:
        yield Budget(num_labels=0, num_masks=number)
    for number in request.num_points:
        yield Budget(num_labels=0, num_points=number)


def _check_masked_sections(
    request: BenchmarkRequest,
    target: Dataset,
    folds: Sequence[SectionLists],
    config: StyleFilterConfig,
) -> None:
    """Refuse rows that train on more masks of the target than a fold has."""
    for number, fold in enumerate(folds, start=1):
        sections = with_splits(target.sections, fold)
        for row in request.rows:
            own = ROWS[row].method.changed(config)
            check_masked_sections(sections, own, f"fold {number} of the target")


def _only(numbers: Sequence[int], num_folds: int) -> tuple[int, ...]:
    """Return the folds to measure, counted from 0."""
    if wrong := [number for number in numbers if number > num_folds]:
        raise refusal("only_folds", f"there is no fold {wrong[0]}: there are {num_folds} folds")
    return tuple(sorted({number - 1 for number in numbers}))


def _check_rows(request: BenchmarkRequest, config: StyleFilterConfig) -> None:
    """Refuse rows that this configuration makes impossible, or that could not be compared."""
    others = [tile_px for tile_px in request.label_tiles_px if tile_px != request.tile_px]
    if others and config.style.select_on == "labels":
        raise refusal(
            "label_tiles_px",
            "config.style.select_on is labels, so labels choose the style model. Labels of tiles "
            f"of {others[0]} px could choose another style model than that of the other rows: set "
            "config.style.select_on to target_val or last, or leave label_tiles_px out",
        )
    estimating = [row for row in request.rows if ROWS[row].method.estimates_statistics]
    if estimating and config.segmenter.norm != "batch":
        raise refusal(
            "config.segmenter.norm",
            f"the rows {', '.join(estimating)} estimate the statistics of batch norm, and the "
            f"segmenter's norm is {config.segmenter.norm}: set it to batch, or leave the rows out",
        )


def _divided(dataset: Dataset, num_folds: int, where: str) -> Sequence[SectionLists]:
    """Divide a dataset into folds by its groups or, without groups, by neighbouring sections."""
    names = [section.name for section in dataset.sections]
    groups = [section.group for section in dataset.sections]
    try:
        if all(group is None for group in groups):
            return cross_validation(names, num_folds=num_folds)
        # A section without a group is a group of its own.
        own = [group or name for group, name in zip(groups, names, strict=True)]
        classes = _classes(dataset, own)
        return cross_validation(names, own, num_folds=num_folds, classes=classes)
    except ValueError as error:
        message = f"the {where} cannot be divided into {num_folds} folds: {error}"
        raise refusal("num_folds", message) from error


def _published(folds: DatasetFolds, dataset: Dataset, where: str) -> Sequence[SectionLists]:
    try:
        return folds.matching([s.name for s in dataset.sections], dataset.digest)
    except ValueError as error:
        message = f"the given folds do not suit the {where}: {error}"
        raise refusal(f"folds.{where}", message) from error


def _classes(dataset: Dataset, groups: Sequence[str]) -> dict[str, set[str]]:
    """Return the classes in the masks of each group."""
    found: dict[str, set[str]] = {group: set() for group in groups}
    for group, pixels in zip(groups, stored_list(dataset.section_pixels), strict=False):
        counts = [count for count in stored_list(pixels) if isinstance(count, int)]
        found[group] |= set(compress(dataset.class_names, present_classes(counts)))
    return found


def _check_labels(
    session: Session, target: Dataset, folds: Sequence[SectionLists], roles: Sequence[Role]
) -> None:
    """Refuse rows that use labels if a fold has none: without labels they measure other methods."""
    index_of = {section.name: section.index for section in target.sections}
    query = select(Image.section, Image.labels).where(Image.dataset_id == target.id)
    labelled = {section for section, labels in session.execute(query) if known_labels(labels)}
    for number, fold in enumerate(folds, start=1):
        for role in roles:
            if labelled.isdisjoint(index_of[name] for name in getattr(fold, role)):
                raise refusal(
                    "tile_px",
                    f"some of the rows need labels, and no image is labelled in the {role} "
                    f"sections of the target in fold {number}: label images there, or set tile_px "
                    "to read labels off the target's masks",
                )


def _check_tiles(
    session: Session, request: BenchmarkRequest, target: Dataset, crop_nm: float
) -> None:
    """Refuse rows that classify whole labelled images if no crop can hold such an image."""
    rows = [row for row in request.rows if ROWS[row].method.classifies_tiles]
    if not rows:
        return
    sides = [max(section.height, section.width) for section in target.sections]
    if request.tile_px is not None:
        sides = [min(side, request.tile_px) for side in sides]
    else:
        query = select(Image.height, Image.width, Image.labels)
        images = session.execute(query.where(Image.dataset_id == target.id))
        sides = [max(height, width) for height, width, labels in images if known_labels(labels)]
    smallest_nm = min(sides, default=0) * target.pixel_size_nm
    if smallest_nm > crop_nm:
        raise refusal(
            "config.adaptation.crop_px",
            f"the rows {', '.join(rows)} need crops that hold a whole labelled image, but a crop "
            f"is {crop_nm:g} nm wide and the smallest labelled image {smallest_nm:g} nm: enlarge "
            "the crop, choose a smaller tile_px, or leave these rows out",
        )


def _check_masks(dataset: Dataset, fold: SectionLists, roles: Sequence[Role], where: str) -> None:
    masked = {section.name for section in dataset.sections if section.has_mask}
    for role in roles:
        if masked.isdisjoint(getattr(fold, role)):
            raise refusal(
                "folds",
                f"{where} has no section with a mask in its {role} sections: use other folds, or "
                "register the dataset with more masks",
            )
