"""Which section trains, validates and tests: by section, never by tile."""

from collections.abc import Mapping, Sequence

from models.data.domain import Split


def block_splits(num_sections: int) -> list[Split]:
    """Split sections in order into contiguous blocks, 60 / 20 / 20 %.

    Neighbouring sections are nearly the same picture, so one section between blocks is left
    ``unused``. Fewer than five sections cannot be divided so: all train.
    """
    if num_sections < 5:
        return ["train"] * num_sections
    held_out = max(1, round((num_sections - 2) * 0.2))
    num_train = num_sections - 2 - 2 * held_out
    train: list[Split] = ["train"] * num_train
    val: list[Split] = ["val"] * held_out
    test: list[Split] = ["test"] * held_out
    return [*train, "unused", *val, "unused", *test]


def named_splits(names: Sequence[str], wanted: Mapping[str, Sequence[str]]) -> list[Split]:
    """Give each section the split its name is listed under; unlisted sections are unused.

    Raises:
        ValueError: a listed name is no section, or is listed twice.
    """
    known = set(names)
    chosen: dict[str, Split] = {}
    for split, members in wanted.items():
        for name in members:
            if name not in known:
                raise ValueError(f"{split} lists {name!r}, which is no section")
            if name in chosen:
                raise ValueError(f"{name!r} is listed in {chosen[name]} and in {split}")
            chosen[name] = split  # type: ignore[assignment]
    return [chosen.get(name, "unused") for name in names]
