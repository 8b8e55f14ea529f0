"""Read images and masks once, check them, store them, and decide what was left open."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.data.description import CONTROL, Description
from models.data.images import check_image
from models.data.intake.archives import unpacked
from models.data.intake.findings import Findings, listed
from models.data.intake.grey_values import (
    DEFAULT_PERCENTILES,
    GreyValues,
    Histogram,
    section_window,
)
from models.data.intake.inputs import Input, Inputs
from models.data.intake.lost_sections import LostSections
from models.data.intake.mask_stack import MaskStack, of_section
from models.data.intake.mask_values import IGNORE_ID, MaskValues
from models.data.intake.padding import NoData, no_data, padding_notes, whole
from models.data.intake.pairing import Pair, paired
from models.data.intake.pixel_sizes import From, PixelSizes
from models.data.intake.read_ahead import read_ahead
from models.data.intake.roles import with_groups, with_roles, with_unannotated
from models.data.intake.store import SectionStore, StoredDomain, StoredTiles
from models.data.intake.threads import Threads
from models.data.readers.limits import Array, ImageError
from models.data.readers.stack import Ask, Purpose, Stack, ask_for
from models.data.sections import Section
from models.data.tiles import num_tiles, tile_class_pixels

T = TypeVar("T", bound=np.generic)

MAX_SECTION_PIXELS = 1 << 28
"""The most pixels of a section that is read, unless another limit is given."""

_MAX_IMAGES = 1_000_000


@dataclass(frozen=True)
class SectionsRead:
    """Tells how far an intake is: ``num_read`` of ``total`` sections, with ``num_bytes`` of pixels.

    A file that is not open yet counts as one section, so ``total`` may grow.
    """

    num_read: int
    total: int
    num_bytes: int


OnSection = Callable[[SectionsRead], None]
"""Is told how far an intake is."""


def _ignore(_read: SectionsRead) -> None:
    """Ignore the progress of an intake."""


def store_domain(
    description: Description,
    inputs: Inputs,
    folder: Path,
    *,
    max_pixels: int = MAX_SECTION_PIXELS,
    on_section: OnSection = _ignore,
) -> StoredDomain:
    """Check images and masks, and write them to ``folder`` as a Zarr group.

    The group holds ``images/<index>`` (H, W) in the dtype of the files, and ``masks/<index>``
    (H, W) uint8: the class id of each pixel, 255 where it has none. A mask belongs to the image of
    the same name, or of its name without an ending such as ``_mask``.

    ``on_section`` is called after each section. To end the intake, it raises. Small files are
    decoded before their turn, and sections are written after it, by threads. Memory is bounded by
    the largest section and some 200 MiB, not by their number.

    Raises:
        DomainRefused: names every file that is wrong, when all have been read.
    """
    return _Intake(description, folder, max_pixels, on_section).run(inputs)


class _Intake:
    """The intake of a domain, section by section: every problem is collected before it refuses."""

    def __init__(
        self, description: Description, folder: Path, max_pixels: int, on_section: OnSection
    ) -> None:
        self._description = description
        self._max_pixels = max_pixels
        self._on_section = on_section
        self._total = 0
        self._store = SectionStore(folder)
        self._findings = Findings()
        self._mask_values = MaskValues(description)
        self._masks_scaled: list[str] = []
        self._lost = LostSections()
        self._pixel_sizes = PixelSizes(description)
        self._no_data: dict[int, NoData] = {}
        self._windows: dict[int, tuple[float, float] | None] = {}
        self._class_pixels: dict[int, NDArray[np.uint32]] = {}
        self._grey = GreyValues(self._store.read)
        self._threads = Threads()
        self._dtype = ""
        self._pixel_nm = 1.0
        self._pixel_size_from: From = "request"
        self._sections: list[Section] = []
        self._num_tiles = 0
        self._pixels_digest = hashlib.sha256()

    def run(self, inputs: Inputs) -> StoredDomain:
        with ExitStack() as archives, self._threads:
            unpacked_inputs = unpacked(inputs, archives, self._findings)
            self._check_names(unpacked_inputs)
            self._total = len(unpacked_inputs.images)
            pairs = self._pairs(unpacked_inputs)
            with closing(read_ahead(pairs, self._ask, self._threads)) as opened:
                for pair in opened:
                    self._read(pair)
            self._threads.settle()
        self._mask_values.settle(self._findings)
        if not self._findings.problems:
            self._set_masks_and_roles()
        window, histogram = ((0.0, 1.0), None) if self._findings.problems else self._measured()
        self._findings.refuse()
        self._store.digest.update(self._description.for_digest(self._pixel_nm).encode())
        for section in self._sections:
            if section.pixel_size_nm is not None:
                self._store.digest.update(f"{section.index} {section.pixel_size_nm}|".encode())
        return StoredDomain(
            dtype=self._dtype,
            pixel_size_nm=self._pixel_nm,
            pixel_size_from=self._pixel_size_from,
            window=window,
            sections=tuple(self._sections),
            tiles=self._tiles(),
            num_bytes=self._store.num_bytes,
            digest=self._store.digest.hexdigest(),
            pixels_digest=self._pixels_digest.hexdigest(),
            notes=tuple(self._findings.notes),
            histogram=histogram,
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
            names = [ascii(n) if CONTROL.search(n) else n for n in inputs.passed_over]
            self._findings.note(
                "files", "passed_over", f"These were passed over and not read: {listed(names)}."
            )
        if not inputs.images:
            self._findings.problem("images", "there is no image: give PNG, TIFF or Zarr files")
        pairs = paired(inputs.images, inputs.masks, self._findings)
        if self._description.reading.mask_path is None:
            return pairs
        return [pair if pair.mask else Pair(pair.image, pair.image.again()) for pair in pairs]

    def _read(self, pair: Pair) -> None:
        image = pair.image
        try:
            with ExitStack() as opened:
                stack = opened.enter_context(image.open(self._ask("image")))
                self._total += stack.num_sections - 1
                self._note(image.name, stack)
                masks = None if pair.mask is None else self._open_masks(pair.mask, opened)
                found = False
                for name, section in _numbered(image.stem, stack.sections):
                    found = True
                    if self._add(name, section, masks):
                        self._pixel_sizes.add(image.name, stack.pixel_size_nm)
                if not found:
                    self._findings.problem(image.name, "holds no image")
                if masks is not None:
                    masks.check_end()
                    self._masks_scaled += [masks.name] if masks.scaled else []
        except ImageError as error:
            self._findings.problem(image.name, str(error))

    def _ask(self, purpose: Purpose) -> Ask:
        return ask_for(purpose, self._max_pixels, self._description.reading)

    def _open_masks(self, mask: Input, opened: ExitStack) -> MaskStack:
        try:
            stack = opened.enter_context(mask.open(self._ask("mask")))
        except ImageError as error:
            self._findings.problem(mask.name, str(error))
            return MaskStack.failed(mask.name, self._mask_values, self._findings)
        self._note(mask.name, stack)
        return MaskStack(mask.name, stack.sections, self._mask_values, self._findings)

    def _note(self, where: str, stack: Stack) -> None:
        for message in stack.notes:
            self._findings.note(where, "reader", message)

    def _add(self, name: str, section: Array, masks: MaskStack | None) -> bool:
        """Check and keep a section and its mask; tell if it was kept."""
        # Mask first: if both are wrong, both are named.
        shape = section.shape[0], section.shape[1]
        mask = None if masks is None else masks.next_ids(name, shape)
        try:
            self._check(section)
            section = self._cropped(section)
            kept = masks is None or mask is not None
            if kept:
                self._keep(name, section, None if mask is None else self._cropped(mask))
        except ImageError as error:
            raise ImageError(of_section(name, error)) from error
        return kept

    def _check(self, section: Array) -> None:
        check_image(section)
        if self._dtype not in ("", section.dtype.name):
            raise ImageError(
                f"has the dtype {section.dtype.name} and other images have {self._dtype}: all "
                "images of a dataset need the same dtype"
            )
        self._dtype = section.dtype.name

    def _cropped(self, array: NDArray[T]) -> NDArray[T]:
        crop = self._description.crop
        return array if crop is None else crop.of(array)

    def _keep(self, name: str, section: Array, mask: NDArray[np.uint8] | None) -> None:
        height, width = section.shape
        self._check_tiles(height, width)
        index = len(self._sections)
        blank = self._look(index, section)
        self._store.add(index, name, section, mask)
        self._sections.append(Section(index, name, "train", height, width, mask is not None))
        num_bytes = section.nbytes + (0 if mask is None else mask.nbytes)
        section, mask = _alone(section), None if mask is None else _alone(mask)
        self._threads.keep(num_bytes, partial(self._write, index, section, mask, blank=blank))
        done = len(self._sections)
        self._on_section(SectionsRead(done, max(self._total, done), self._store.num_bytes))

    def _write(
        self, index: int, section: Array, mask: NDArray[np.uint8] | None, *, blank: bool
    ) -> None:
        """Write a section and its mask, and count their pixels: the work of a thread."""
        self._store.write(index, section, mask)
        if mask is not None:
            self._class_pixels[index] = self._counted(mask)
        if not blank:
            found = self._no_data[index] = no_data(section, mask)
            self._grey.add(index, section, mask, found)
            self._windows[index] = self._section_window(section, mask, found)

    def _counted(self, mask: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """Return the pixels of each class in each tile of a mask."""
        return tile_class_pixels(
            mask, len(self._description.class_names), self._description.tile_px
        )

    def _look(self, index: int, section: Array) -> bool:
        """Tell if a section is blank; its pixels are compared with those of the others."""
        digest = hashlib.sha256(np.ascontiguousarray(section).data).hexdigest()
        self._pixels_digest.update(f"{section.dtype.name}|{section.shape}|{digest}\n".encode())
        return self._lost.look(index, section, digest)

    def _section_window(
        self, section: Array, mask: NDArray[np.uint8] | None, found: NoData
    ) -> tuple[float, float] | None:
        if self._description.intensity_window_of != "section":
            return None
        window = section_window(section, mask, found, self._percentiles)
        return None if window is None else self._oriented(window)

    @property
    def _percentiles(self) -> tuple[float, float]:
        return self._description.intensity_percentiles or DEFAULT_PERCENTILES

    def _oriented(self, window: tuple[float, float]) -> tuple[float, float]:
        """Return the window; of inverted images its ends change places, so white becomes black."""
        low, high = window
        return (high, low) if self._description.invert else (low, high)

    def _check_tiles(self, height: int, width: int) -> None:
        self._num_tiles += num_tiles(height, width, self._description.tile_px)
        if self._num_tiles > _MAX_IMAGES:
            message = f"gives more than {_MAX_IMAGES} tiles: take larger tiles"
            self._findings.problem("tile_px", message)
            self._findings.refuse()

    def _set_masks_and_roles(self) -> None:
        """Set what depends on all sections, as described or by default."""
        if self._masks_scaled:
            self._findings.note(
                "masks",
                "masks_scaled",
                f"{len(self._masks_scaled)} files of masks have another resolution than their "
                f"images and were brought to it: {listed(self._masks_scaled)}.",
            )
        if self._mask_values.foreground_is_255:
            self._store.replace_in_masks(IGNORE_ID, 1)
            for index in self._class_pixels:
                self._class_pixels[index] = self._counted(self._store.mask(index))
        self._sections = [
            replace(section, intensity_window=self._windows.get(section.index))
            for section in self._sections
        ]
        self._sections, self._pixel_nm, self._pixel_size_from = self._pixel_sizes.settled(
            self._sections, self._findings
        )
        self._sections = with_groups(self._sections, self._description, self._findings)
        self._sections = with_unannotated(self._sections, self._description, self._findings)
        self._sections = with_roles(self._sections, self._description, self._lost, self._findings)

    def _measured(self) -> tuple[tuple[float, float], Histogram]:
        """Return the window and the histogram; what was left out of them is noted."""
        if not self._no_data or self._mask_values.foreground_is_255:
            self._count_again()
        padding_notes(self._no_data, self._sections, self._findings)
        histogram = self._grey.histogram()
        window = self._description.intensity_window
        try:
            window = window or self._grey.window(self._percentiles)
        except ValueError as error:
            self._findings.problem("intensity_window", str(error))
            return (0.0, 1.0), histogram
        return self._oriented(window), histogram

    def _count_again(self) -> None:
        """Count the stored sections: masks may have another meaning now, or all are blank."""
        blank = not self._no_data
        self._grey = GreyValues(self._store.read)
        for section in self._sections:
            if section.index in self._no_data or blank:
                image, mask = self._store.read(section.index)
                found = whole(image) if blank else no_data(image, mask)
                self._no_data[section.index] = found
                self._grey.add(section.index, image, mask, found)

    def _tiles(self) -> StoredTiles:
        counts = tuple(self._class_pixels.get(section.index) for section in self._sections)
        fields = {index: found.field for index, found in self._no_data.items()}
        return StoredTiles(self._description.tile_px, tuple(self._sections), counts, fields)


def _alone(array: NDArray[T]) -> NDArray[T]:
    """Return an array that does not hold the memory of all sections that were read with it."""
    whole = array.base
    return array.copy() if isinstance(whole, np.ndarray) and whole.nbytes > array.nbytes else array


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
