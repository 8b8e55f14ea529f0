"""Tells how well two datasets fit each other as source and target."""

from collections.abc import Iterator
from statistics import median
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.datasets.domains import DatasetMissing, load_domain
from app.errors import Invalid, NotFound, ProblemItem
from app.inspection.schemas import ClassComparison, Compatibility, Finding
from app.probes.benefit import expected_benefit
from app.storage import Storage
from models.data.compatibility import Contrast, DomainFacts, contrast, facts, thickness_ratios
from models.data.domain import Domain

_SCALE_FACTOR = 2.0
"""The ratio of thicknesses from which structures count as of another size."""

_SMALL_SIDE_PX = 64
_GREY_SHIFT = 0.15


def compare(session: Session, storage: Storage, source_id: UUID, target_id: UUID) -> Compatibility:
    """Compare two datasets at the source's pixel size.

    Raises:
        NotFound: there is no such dataset, or its files are gone.
        Invalid: the sections of one are too small at that pixel size.
    """
    source_nm = datasets.get(session, source_id).pixel_size_nm
    datasets.get(session, target_id)
    try:
        source = load_domain(session, storage, source_id, working_nm=source_nm)
        target = load_domain(session, storage, target_id, working_nm=source_nm)
    except DatasetMissing as error:
        raise NotFound(str(error)) from error
    benefit = expected_benefit(session, storage, source_id, target_id)
    session.close()  # reading pixels takes a while, and needs no connection
    of_source, of_target = _facts(source, "source"), _facts(target, "target")
    found = contrast(of_source, of_target)
    ratios = thickness_ratios(of_source, of_target)
    ours, theirs = source.info.class_names, target.info.class_names
    shapes = [target.working_shape(section) for section in target.sections]
    return Compatibility(
        source=source_id,
        target=target_id,
        shared_classes=[name for name in ours if name in theirs],
        missing_classes=[name for name in ours if name not in theirs],
        extra_classes=[name for name in theirs if name not in ours],
        working_nm=source_nm,
        target_size_factor=target.info.pixel_size_nm / source_nm,
        smallest_section_px=min(shapes, key=min),
        source_grey=(of_source.grey_mean, of_source.grey_std),
        target_grey=(of_target.grey_mean, of_target.grey_std),
        contrast_inverted=found.inverted,
        contrast_evidence=found.evidence,
        classes=[_class(name, of_source, of_target) for name in ratios],
        benefit=benefit,
        findings=[
            *_on_classes(ours, theirs),
            *_on_contrast(found),
            *_on_scale(target, ratios),
            *_on_sizes(shapes, source_nm),
            *_on_grey(of_source, of_target),
        ],
    )


def _facts(domain: Domain, role: str) -> DomainFacts:
    try:
        return facts(domain)
    except ValueError as error:
        message = f"{error}: check the pixel size of the {role}"
        raise Invalid(message, [ProblemItem(where=f"path.{role}_id", message=message)]) from error


def _class(name: str, source: DomainFacts, target: DomainFacts) -> ClassComparison:
    ours, theirs = source.classes[name], target.classes[name]
    return ClassComparison(
        name=name,
        source_grey=ours.grey,
        target_grey=theirs.grey,
        source_thickness_nm=ours.thickness_nm,
        target_thickness_nm=theirs.thickness_nm,
    )


def _on_classes(ours: tuple[str, ...], theirs: tuple[str, ...]) -> Iterator[Finding]:
    missing = [name for name in ours if name not in theirs]
    extra = [name for name in theirs if name not in ours]
    if missing:
        yield Finding(
            code="classes_missing",
            message=f"The target has no class {', '.join(missing)}. If it has them under other "
            "names, say so in `target_classes` of the job.",
        )
    if extra:
        yield Finding(
            code="classes_extra",
            message=f"The source has no class {', '.join(extra)}, so no network can learn to find "
            "it: name it in `target_classes` of the job, as another class or as `ignore`.",
        )


def _on_contrast(found: Contrast) -> Iterator[Finding]:
    if not found.inverted:
        return
    how = {
        "masks": "the masks show that classes which are bright in the source are dark in the "
        "target, and the other way round",
        "images": "structures that stand out dark in the source stand out bright in the target, or "
        "the other way round",
    }[found.evidence]
    yield Finding(
        code="contrast_inverted",
        message=f"The contrast is inverted: {how}. Register the target again with `invert`.",
        change={"invert": True},
    )


def _on_scale(target: Domain, ratios: dict[str, float]) -> Iterator[Finding]:
    if not ratios:
        return
    ratio = median(ratios.values())
    if 1 / _SCALE_FACTOR < ratio < _SCALE_FACTOR:
        return
    given = target.info.pixel_size_nm
    better = float(f"{given / ratio:.3g}")
    words = f"{ratio:.1f} times as thick" if ratio > 1 else f"{1 / ratio:.1f} times as thin"
    yield Finding(
        code="structure_scale",
        message=f"By the masks, structures in the target are {words} as in the source, in "
        f"nanometres. The target's pixel size, {given:g} nm, may be wrong; with {better:g} nm they "
        "would be alike.",
        change={"pixel_size_nm": better},
    )


def _on_sizes(shapes: list[tuple[int, int]], nm: float) -> Iterator[Finding]:
    small = [shape for shape in shapes if min(shape) < _SMALL_SIDE_PX]
    if small:
        height, width = min(small, key=min)
        yield Finding(
            code="sections_small",
            message=f"At the source's pixel size of {nm:g} nm, {len(small)} section(s) of the "
            f"target have fewer than {_SMALL_SIDE_PX} pixels a side; the smallest is {height} x "
            f"{width} pixels. Check both pixel sizes.",
        )


def _on_grey(source: DomainFacts, target: DomainFacts) -> Iterator[Finding]:
    shift = target.grey_mean - source.grey_mean
    if abs(shift) > _GREY_SHIFT:
        yield Finding(
            code="grey_shift",
            message=f"On a scale from 0 (black) to 1 (white), the target is {abs(shift):.2f} "
            f"{'brighter' if shift > 0 else 'darker'} than the source on average. Style transfer "
            "learns such a shift. If the images have borders, strips or padding, cut them off with "
            "`crop`.",
        )
