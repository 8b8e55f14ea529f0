"""Pair each mask with its image, by their names."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models.data.intake.findings import Findings
from models.data.intake.inputs import Input
from models.data.names import without_image_ending, without_mask_ending


@dataclass(frozen=True)
class Pair:
    """An image, and its mask if it has one."""

    image: Input
    mask: Input | None


def paired(images: Sequence[Input], masks: Sequence[Input], findings: Findings) -> list[Pair]:
    """Pair masks with images of the same name, in the order of the images.

    Masks that are left over are paired by their names without the usual endings, such as
    ``_mask`` or ``_seg``, if that gives each of them an image of its own. A name that comes twice,
    and a mask without an image, are problems.
    """
    _check_once(images, "image", findings)
    _check_once(masks, "mask", findings)
    stems = {image.stem for image in images}
    mask_of = {mask.stem: mask for mask in masks if mask.stem in stems}
    left = [mask for mask in masks if mask.stem not in stems]
    if left:
        free = [image for image in images if image.stem not in mask_of]
        mask_of |= _by_ending(free, left, findings)
    return [Pair(image, mask_of.get(image.stem)) for image in images]


def _check_once(inputs: Iterable[Input], what: str, findings: Findings) -> None:
    first: dict[str, Input] = {}
    for given in inputs:
        other = first.setdefault(given.stem, given)
        if other is not given:
            findings.problem(
                given.name, f"another {what}, {other.name}, has the same name: rename one of them"
            )


def _by_ending(
    images: Sequence[Input], masks: Sequence[Input], findings: Findings
) -> dict[str, Input]:
    """Return the masks that the endings pair one to one, by their images' stems."""
    named: defaultdict[str, list[str]] = defaultdict(list)
    for image in images:
        for key in {image.stem, without_image_ending(image.stem)}:
            named[key].append(image.stem)
    key_of = {mask.name: without_mask_ending(mask.stem) for mask in masks}
    times = Counter(key_of.values())
    mask_of: dict[str, Input] = {}
    for mask in masks:
        key = key_of[mask.name]
        stems = named[key]
        if len(stems) == times[key] == 1:
            mask_of[stems[0]] = mask
        elif not stems:
            findings.problem(
                mask.name,
                "no image has this name: name a mask as its image, or with _mask after it",
            )
        else:
            what = "masks" if times[key] > 1 else "images"
            findings.problem(
                mask.name,
                f"could belong to several: {max(times[key], len(stems))} {what} are called {key!r} "
                "without their endings. Name each mask as its image",
            )
    for stem, mask in list(mask_of.items())[:1]:
        findings.note(
            "masks",
            "paired_by_ending",
            f"{len(mask_of)} masks were paired with images by their names without the usual "
            f"endings, such as {mask.name} with the image {stem}.",
        )
    return mask_of
