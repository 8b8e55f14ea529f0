"""Points of DICE for each minute of annotation; free of torch."""

from collections.abc import Collection, Sequence

from models.table1.methods import VALUED
from models.table1.results import AnnotationValue, RowResult
from models.table1.statistics import compared

SECONDS_PER_TILE = 3
"""The seconds that a person takes to say which classes are in a tile, or to point at one.

An assumption."""

MINUTES_PER_MASK = 30
"""The minutes that a person takes to draw the mask of a section. An assumption."""

_POINT = 0.01


def annotation_values(
    results: Sequence[RowResult], class_names: Sequence[str], excluded: Collection[str]
) -> tuple[AnnotationValue, ...]:
    """Compare the rows of ``VALUED`` with source-only, for every annotation they were trained with.

    Both are compared on the folds and seeds that both have. The values of a row are in the order of
    their minutes. Without results for more than one annotation there are no values.
    """
    base = [result for result in results if result.row == "source-only"]
    values = []
    for row in VALUED:
        own = [result for result in results if result.row == row]
        variants = list(dict.fromkeys((result.tile_px, result.budget) for result in own))
        of_row = [
            value
            for variant in variants
            if (
                value := _value(
                    [r for r in own if (r.tile_px, r.budget) == variant],
                    base,
                    class_names,
                    excluded,
                )
            )
            is not None
        ]
        if len(of_row) > 1:
            values += sorted(of_row, key=lambda value: (value.minutes, value.tile_px or 0))
    return tuple(values)


def _value(
    own: Sequence[RowResult],
    base: Sequence[RowResult],
    class_names: Sequence[str],
    excluded: Collection[str],
) -> AnnotationValue | None:
    found = compared(own, base, class_names, excluded)
    if found is None:
        return None
    summary, gain, difference = found
    minutes = summary.num_labels * SECONDS_PER_TILE / 60 + summary.num_masks * MINUTES_PER_MASK
    return AnnotationValue(
        row=summary.row,
        tile_px=summary.tile_px,
        order=own[0].budget.order if own[0].budget is not None else "random",
        num_labels=summary.num_labels,
        num_masks=summary.num_masks,
        num_points=0 if own[0].budget is None else own[0].budget.num_points,
        minutes=minutes,
        dice=summary.dice["mean"],
        gain=gain,
        low=None if difference is None else difference.low,
        high=None if difference is None else difference.high,
        points_per_minute=gain / _POINT / minutes if minutes else None,
    )
