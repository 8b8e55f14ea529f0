"""The description that an owner gives of images and masks: classes, pixel size, tiles, splits."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from models.config.base import FrozenConfig
from models.data.readers.limits import ImageError, in_words
from models.data.readers.stack import ReadOptions
from models.data.splits import SectionLists, SectionName, SectionNames

T = TypeVar("T", bound=np.generic)

IGNORED = "ignore"
"""The word that ``mask_values`` has for pixels without a class."""

CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""The characters that PostgreSQL or UTF-8 cannot store, that break lines, that command a terminal,
or that reorder the text around them."""


def _without_control(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("holds a control character, such as a line break: remove it")
    return text


def _plausible_nm(size: float) -> float:
    if size < 0.01:
        raise ValueError(
            f"a pixel size of {size:g} nm is less than a tenth of an atom: give it in nanometres, "
            "of which 1000 are a micrometre"
        )
    return size


Text = Annotated[str, AfterValidator(_without_control)]
ClassName = Annotated[Text, Field(min_length=1, max_length=100)]
GroupName = ClassName
PixelNm = Annotated[float, Field(ge=1e-3, le=1e6), AfterValidator(_plausible_nm)]
MaskValue = Annotated[int, Field(ge=-(2**31), le=2**32 - 1)]
Grey = Annotated[float, Field(ge=-1e12, le=1e12)]
Percentile = Annotated[float, Field(ge=0, le=100)]


_FIRST_FIELDS = {
    "class_names",
    "pixel_size_nm",
    "ignore_value",
    "tile_px",
    "intensity_window",
    "splits",
}


class CropWindow(FrozenConfig):
    """A rectangle of each section, in pixels."""

    y0: int = Field(0, ge=0, le=2**31 - 1, description="The first row, from 0.")
    x0: int = Field(0, ge=0, le=2**31 - 1, description="The first column, from 0.")
    height: int = Field(ge=1, le=2**31 - 1, description="The number of rows.")
    width: int = Field(ge=1, le=2**31 - 1, description="The number of columns.")

    def of(self, array: NDArray[T]) -> NDArray[T]:
        """Return the rectangle of an array (H, W); ImageError if it reaches beyond."""
        bottom, right = self.y0 + self.height, self.x0 + self.width
        if bottom > array.shape[0] or right > array.shape[1]:
            raise ImageError(
                f"is {in_words(array.shape)}, and crop reaches to row {bottom} and column {right}: "
                "take a smaller crop"
            )
        return array[self.y0 : bottom, self.x0 : right]


class Description(BaseModel):
    """The facts by which the images and masks of a domain are read.

    Unknown fields and values out of range are errors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_names: list[ClassName] = Field(
        min_length=2,
        max_length=255,  # masks are stored as uint8, where 255 is an ignored pixel
        description="The names of the classes. The first has the id 0 in masks, the second 1, and "
        "so on.",
    )
    pixel_size_nm: PixelNm | None = Field(
        None,
        description="The width of a pixel on the sample, in nanometres. It may be left out if "
        "every file says its pixel size. If a file says another size, the dataset is refused.",
    )
    pixel_sizes_nm: dict[SectionName, PixelNm] | None = Field(
        None,
        min_length=1,
        max_length=1_000_000,
        description="The width of a pixel of single sections, by the name of the section, where it "
        "differs from that of the others.",
    )
    ignore_file_pixel_size: bool = Field(
        False,
        description="`true` takes the given pixel size also where a file says another.",
    )
    ignore_value: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="The mask value of pixels without a class. They take no part in training and "
        "scores. Without this field it is 255, unless `mask_values` is given, or the masks of two "
        "classes hold 0 and 255 but never 1: then 255 is the second class.",
    )
    mask_values: dict[MaskValue, ClassName] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="The class of each mask value, or `ignore` for pixels without a class. Several "
        "values may have one class. Without this field the value of a pixel is the id of its "
        "class.",
        examples=[{"0": "background", "127": "myelin", "255": "axon"}],
    )
    tile_px: int | None = Field(
        None,
        ge=16,
        le=65536,
        description="The side of a tile, in pixels. Sections are divided into tiles, and each tile "
        "has labels of its own. Without this field each section has one set of labels.",
    )
    intensity_window: tuple[Grey, Grey] | None = Field(
        None,
        description="The grey values that become 0 (black) and 1 (white). Without this field they "
        "are percentiles of the pixels of all sections, so that source and target do not differ by "
        "brightness and contrast alone. Pixels of validation and test sections count too, though "
        "not their masks. Name a window if you do not want this.",
    )
    intensity_percentiles: tuple[Percentile, Percentile] | None = Field(
        None,
        description="The percentiles of the grey values that become 0 (black) and 1 (white). "
        "Without this field they are 0.5 and 99.5. Pixels that are no data do not count: padding "
        "and strips of one value at the border, blank sections.",
    )
    intensity_window_of: Literal["dataset", "section"] = Field(
        "dataset",
        description="`section` takes the percentiles of each section by itself, for sections whose "
        "brightness or contrast differ. `dataset` takes those of all sections together.",
    )
    invert: bool = Field(
        False,
        description="`true` makes bright pixels dark and dark ones bright wherever networks see "
        "them, so that two microscopes of opposite contrast suit each other. The stored pixels "
        "stay: the ends of `intensity_window` change places.",
    )
    crop: CropWindow | None = Field(
        None,
        description="The rectangle of each section, and of its mask, that is registered. It leaves "
        "out scale bars, for example.",
    )
    splits: SectionLists | None = Field(
        None,
        description="The names of the sections of each split. A section has the name of its file "
        "without suffix; in a stack its number follows, as in `stack/0003`. Without this field, 60 "
        "% of the sections of a dataset with masks train, 20 % validate and 20 % test: whole "
        "groups if there are groups, else blocks of neighbouring sections with an unused section "
        "between them. All sections train if there are no masks, fewer than three groups, or fewer "
        "than five sections without groups.",
    )
    reading: ReadOptions = Field(
        default_factory=ReadOptions,
        description="What to read of files that hold more than one stack of sections: the channel, "
        "the axis, the range of sections, the level, the array.",
    )
    groups: dict[GroupName, Annotated[SectionNames, Field(min_length=1)]] | None = Field(
        None,
        max_length=1000,
        description="The names of the sections of each group. A group holds sections that were cut "
        "from one volume or recording and look alike, so they are never divided between training "
        "and test. Each section is in one group.",
    )

    unannotated: dict[ClassName, Annotated[SectionNames, Field(min_length=1)]] | None = Field(
        None,
        max_length=255,
        description="For a class that was not annotated everywhere, the names of the sections "
        "whose masks say nothing of it. Labels that are derived from these masks never call the "
        "class absent.",
        examples=[{"vesicle": ["crop1/0000", "crop1/0001"]}],
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names holds a name twice: give each class a name of its own")
        if self.mask_values is None and self.ignored_value < len(self.class_names):
            raise ValueError(
                f"ignore_value {self.ignored_value} is also the id of a class: ids are 0 to "
                f"{len(self.class_names) - 1}"
            )
        for name in (self.unannotated or {}).keys() - set(self.class_names):
            raise ValueError(
                f"unannotated names {name!r}, which is no class: the classes are "
                f"{', '.join(self.class_names)}"
            )
        self._check_mask_values(self.mask_values or {})
        self._check_window()
        return self

    def _check_window(self) -> None:
        if self.intensity_window is not None:
            for other in ("intensity_percentiles", "intensity_window_of"):
                if getattr(self, other) != Description.model_fields[other].default:
                    raise ValueError(
                        f"intensity_window and {other} exclude each other: leave one out"
                    )
        if self.intensity_percentiles and not (
            self.intensity_percentiles[0] < self.intensity_percentiles[1]
        ):
            raise ValueError("intensity_percentiles must rise, such as [0.5, 99.5]")
        if self.intensity_window and not self.intensity_window[0] < self.intensity_window[1]:
            low, high = self.intensity_window
            raise ValueError(
                f"intensity_window is [{low:g}, {high:g}]: its first value must be the smaller one"
            )

    @property
    def ignored_value(self) -> int:
        """The mask value of pixels without a class where ``mask_values`` is not given."""
        return 255 if self.ignore_value is None else self.ignore_value

    def for_digest(self, pixel_size_nm: float) -> str:
        """Return the JSON that is a part of a dataset's digest, with the pixel size that it has.

        Fields that were added later are in it only where they are used, so digests that were made
        before stay.
        """
        default = {
            name: field.get_default(call_default_factory=True)
            for name, field in Description.model_fields.items()
        }
        said = {n for n in default if n in _FIRST_FIELDS or getattr(self, n) != default[n]}
        decided = {"ignore_value": self.ignored_value, "pixel_size_nm": pixel_size_nm}
        plain = self.model_copy(update=decided)
        return plain.model_dump_json(include=said)

    def _check_mask_values(self, mask_values: Mapping[int, str]) -> None:
        for value, meaning in mask_values.items():
            if meaning != IGNORED and meaning not in self.class_names:
                raise ValueError(
                    f"mask_values gives the value {value} to {meaning!r}, which is no class: the "
                    f"classes are {', '.join(self.class_names)}"
                )
            if meaning == IGNORED and IGNORED in self.class_names:
                raise ValueError(
                    f"mask_values gives the value {value} to {IGNORED!r}, which is also a class: "
                    "rename the class"
                )
            if meaning != IGNORED and value == self.ignore_value:
                raise ValueError(
                    f"mask_values gives the value {value} to {meaning!r}, and ignore_value is "
                    f"{value} too: leave ignore_value out"
                )
