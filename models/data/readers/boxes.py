"""Boxes of an array that is stored in chunks."""

Box = tuple[slice, ...]
"""A start and a stop along each axis."""


def touched(part: slice, side: int) -> range:
    """Return the numbers of the chunks that a part of an axis touches."""
    return range(part.start // side, -(-part.stop // side)) if part.stop > part.start else range(0)


def overlap(at: tuple[int, ...], sides: tuple[int, ...], box: Box) -> tuple[Box, Box]:
    """Return where a chunk and a box meet, as a box of the chunk, and one of the box."""
    source, target = [], []
    for number, side, each in zip(at, sides, box, strict=True):
        first, last = max(each.start, number * side), min(each.stop, (number + 1) * side)
        source.append(slice(first - number * side, last - number * side))
        target.append(slice(first - each.start, last - each.start))
    return tuple(source), tuple(target)
