"""Read images and masks once, check them, store them, and decide what was left open."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data.archives import unpacked
from models.data.description import CONTROL, Description
from models.data.findings import Findings, listed
from models.data.images import check_image, check_mask_size
from models.data.inputs import Input, Inputs
from models.data.labels import class_pixels
from models.data.mask_values import MaskValues
from models.data.pairing import Pair, paired
from models.data.readers.limits import Array, ImageError
from models.data.readers.stack import Ask, Purpose, Stack
from models.data.sections import Section, Split
from models.data.splits import block_splits, group_splits, named_groups, named_splits
from models.data.store import SectionStore, StoredDomain, StoredTiles
from models.data.tiles import num_tiles, tile_windows

MAX_SECTION_PIXELS = 1 << 28
"""The most pixels of a section that is read, unless another limit is given."""

_MAX_IMAGES = 1_000_000


def store_domain(
    description: Description,
    inputs: Inputs,
    folder: Path,
    *,
    max_pixels: int = MAX_SECTION_PIXELS,
) -> StoredDomain:
    """Check images and masks, and write them to ``folder`` as a Zarr group.

    The group holds ``images/<index>`` (H, W) uint8 or uint16, and ``masks/<index>`` (H, W) uint8:
    the class id of each pixel, 255 where it has none. A mask belongs to the image of the same name,
    or of its name without an ending such as ``_mask``.

    Raises:
        DomainRefused: names every file that is wrong, when all have been read.
    """
    return _Intake(description, folder, max_pixels).run(inputs)


class _Intake:
    """The intake of a domain, section by section: every problem is collected before it refuses."""

    def __init__(self, description: Description, folder: Path, max_pixels: int) -> None:
        self._description = description
        self._max_pixels = max_pixels
        self._store = SectionStore(folder)
        self._findings = Findings()
        self._mask_values = MaskValues(description)
        self._seen: dict[str, str] = {}
        self._dtype = ""
        self._window = (0.0, 1.0)
        self._sections: list[Section] = []
        self._num_tiles = 0
        self._pixels_digest = hashlib.sha256()

    def run(self, inputs: Inputs) -> StoredDomain:
        with ExitStack() as archives:
            unpacked_inputs = unpacked(inputs, archives, self._findings)
            self._check_names(unpacked_inputs)
            for pair in self._pairs(unpacked_inputs):
                self._read(pair)
        self._mask_values.settle(self._findings)
        if not self._findings.problems:
            self._decide()
        self._findings.refuse()
        return StoredDomain(
            dtype=self._dtype,
            window=self._window,
            sections=tuple(self._sections),
            tiles=self._tiles(),
            num_bytes=self._store.num_bytes,
            digest=self._store.digest.hexdigest(),
            pixels_digest=self._pixels_digest.hexdigest(),
            histogram=self._store.histogram,
            notes=tuple(self._findings.notes),
        )

    def _check_names(self, inputs: Inputs) -> None:
        """Refuse at once names that cannot be stored: a later report could not hold them."""
        for given in (*inputs.images, *inputs.masks):
            if CONTROL.search(given.name):
                message = "has a name with control characters, which cannot be stored: rename it"
                self._findings.problem(ascii(given.name), message)
        self._findings.refuse()

    def _pairs(self, inputs: Inputs) -> list[Pair]:
        if inputs.passed_over:
            names = [
                name if not CONTROL.search(name) else ascii(name) for name in inputs.passed_over
            ]
            self._findings.note(
                "files", "passed_over", f"These were passed over and not read: {listed(names)}."
            )
        if not inputs.images:
            self._findings.problem("images", "there is no image: give PNG, TIFF or Zarr files")
        return paired(inputs.images, inputs.masks, self._findings)

    def _read(self, pair: Pair) -> None:
        image = pair.image
        try:
            with ExitStack() as opened:
                stack = opened.enter_context(image.open(self._ask("image")))
                self._note(image.name, stack)
                masks = None if pair.mask is None else self._open_masks(pair.mask, opened)
                found = False
                for name, section in _numbered(image.stem, stack.sections):
                    found = True
                    self._add(name, section, masks)
                if not found:
                    self._findings.problem(image.name, "holds no image")
                if masks is not None and masks.has_more():
                    self._findings.problem(
                        masks.name, "holds more masks than its image has sections"
                    )
        except ImageError as error:
            self._findings.problem(image.name, str(error))

    def _ask(self, purpose: Purpose) -> Ask:
        return Ask(self._max_pixels, purpose, self._description.reading)

    def _open_masks(self, mask: Input, opened: ExitStack) -> "_Masks":
        try:
            stack = opened.enter_context(mask.open(self._ask("mask")))
        except ImageError as error:
            self._findings.problem(mask.name, str(error))
            return _Masks(mask.name, iter(()), failed=True)
        self._note(mask.name, stack)
        return _Masks(mask.name, stack.sections)

    def _note(self, where: str, stack: Stack) -> None:
        for message in stack.notes:
            self._findings.note(where, "reader", message)

    def _add(self, name: str, section: Array, masks: "_Masks | None") -> None:
        # Mask first: if both are wrong, both are named.
        mask = None if masks is None else self._mask(name, masks, section)
        try:
            self._check(name, section)
        except ImageError as error:
            raise ImageError(_of_section(name, error)) from error
        if masks is None or mask is not None:
            self._keep(name, section, mask)

    def _check(self, name: str, section: Array) -> None:
        check_image(section)
        if self._dtype not in ("", section.dtype.name):
            raise ImageError(
                f"has the dtype {section.dtype.name} and other images have {self._dtype}: all "
                "images of a dataset need the same dtype"
            )
        self._dtype = section.dtype.name
        digest = hashlib.sha256(np.ascontiguousarray(section).data).hexdigest()
        if digest in self._seen:
            # A copy could be trained on and tested on.
            raise ImageError(f"has the same pixels as {self._seen[digest]}: give each image once")
        self._seen[digest] = name
        self._pixels_digest.update(f"{section.dtype.name}|{section.shape}|{digest}\n".encode())

    def _mask(self, name: str, masks: "_Masks", section: Array) -> NDArray[np.uint8] | None:
        if masks.failed:
            return None
        try:
            mask = masks.next()
            check_mask_size(mask, (section.shape[0], section.shape[1]))
        except ImageError as error:
            masks.failed = True
            self._findings.problem(masks.name, _of_section(name, error))
            return None
        try:
            return self._mask_values.ids(mask)
        except ImageError as error:
            # Named once a file; the next sections are read on, to tell all values of all masks.
            if not masks.misfits:
                self._findings.problem(masks.name, _of_section(name, error))
            masks.misfits = True
            return None

    def _keep(self, name: str, section: Array, mask: NDArray[np.uint8] | None) -> None:
        height, width = section.shape
        self._check_tiles(height, width)
        index = len(self._sections)
        self._store.add(index, name, section, mask)
        self._sections.append(Section(index, name, "train", height, width, mask is not None))

    def _check_tiles(self, height: int, width: int) -> None:
        self._num_tiles += num_tiles(height, width, self._description.tile_px)
        if self._num_tiles > _MAX_IMAGES:
            message = f"gives more than {_MAX_IMAGES} tiles: take larger tiles"
            self._findings.problem("tile_px", message)
            self._findings.refuse()

    def _decide(self) -> None:
        """Set what depends on all sections, as described or by default."""
        if self._mask_values.foreground_is_255:
            self._store.replace_in_masks(255, 1)
        for where, decide in (
            ("groups", self._set_groups),
            ("splits", self._set_splits),
            ("intensity_window", self._set_window),
        ):
            try:
                decide()
            except ValueError as error:
                self._findings.problem(where, str(error))
        self._store.digest.update(self._description.for_digest().encode())

    def _set_groups(self) -> None:
        if self._description.groups is None:
            return
        names = [section.name for section in self._sections]
        groups = named_groups(names, self._description.groups)
        self._sections = [
            replace(section, group=group)
            for section, group in zip(self._sections, groups, strict=True)
        ]

    def _set_splits(self) -> None:
        names = [section.name for section in self._sections]
        splits: list[Split] = ["train"] * len(names)
        if self._description.splits is not None:
            splits = named_splits(names, self._description.splits)
        elif any(section.has_mask for section in self._sections):
            groups = [section.group for section in self._sections if section.group]
            splits = group_splits(names, groups) if groups else block_splits(len(names))
        self._sections = [
            replace(section, split=split)
            for section, split in zip(self._sections, splits, strict=True)
        ]

    def _set_window(self) -> None:
        self._window = self._description.intensity_window or self._store.window()

    def _tiles(self) -> StoredTiles:
        counts = tuple(
            self._count(self._store.mask(section.index)) if section.has_mask else None
            for section in self._sections
        )
        return StoredTiles(self._description.tile_px, tuple(self._sections), counts)

    def _count(self, mask: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """Count the pixels of each class in each tile of a mask: (tiles, C)."""
        tile_px, num_classes = self._description.tile_px, len(self._description.class_names)
        rows, cols = mask.shape
        counts = np.empty((num_tiles(rows, cols, tile_px), num_classes), np.uint32)
        for tile, (y0, x0, height, width) in enumerate(tile_windows(rows, cols, tile_px)):
            window = mask[y0 : y0 + height, x0 : x0 + width]
            counts[tile] = class_pixels(window, num_classes)
        return counts


class _Masks:
    """The masks of one image, taken in step with its sections."""

    def __init__(self, name: str, sections: Iterator[Array], *, failed: bool = False) -> None:
        self.name = name
        self.failed = failed
        self.misfits = False
        self._sections = sections

    def next(self) -> Array:
        section = next(self._sections, None)
        if section is None:
            raise ImageError("holds fewer masks than its image has sections")
        return section

    def has_more(self) -> bool:
        try:
            return not self.failed and next(self._sections, None) is not None
        except ImageError:
            return True  # something is there, if only a damaged mask


def _of_section(name: str, error: ImageError) -> str:
    """Return the error's words, with the section's name if it is one of a stack."""
    return f"section {name}: {error}" if "/" in name else str(error)


def _numbered(stem: str, sections: Iterator[Array]) -> Iterator[tuple[str, Array]]:
    """Yield sections with names: the stem, and for those of a stack their number after it."""
    first = next(sections, None)
    if first is None:
        return
    second = next(sections, None)
    if second is None:
        yield stem, first
        return
    yield f"{stem}/0000", first
    yield f"{stem}/0001", second
    for number, section in enumerate(sections, start=2):
        yield f"{stem}/{number:04d}", section
