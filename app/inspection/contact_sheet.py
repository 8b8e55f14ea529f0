"""Draws a contact sheet: small pictures of a dataset's sections, with their masks."""

from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from app.inspection.figure import coloured, draw_legend, entries_of, font_of
from models.data.domain import IGNORE, Domain
from models.data.sections import Section

MOST_SECTIONS = 24
_SIDE_PX = 220
_COLUMNS = 6
_GAP_PX = 10
_TEXT_PX = 18
_MASK_WEIGHT = 0.35


def contact_sheet(domain: Domain) -> Image.Image:
    """Draw up to 24 sections, evenly over the dataset, each with its name and split.

    Black and white are the ends of the grey window, so 12-bit images are not black. Classes lie
    over the image in their colours; ignored pixels are left grey.
    """
    count = min(MOST_SECTIONS, len(domain.sections))
    chosen = np.linspace(0, len(domain.sections) - 1, count).astype(int)
    columns = min(_COLUMNS, count)
    cell = (_SIDE_PX + _GAP_PX, _SIDE_PX + _GAP_PX + _TEXT_PX)
    height = _GAP_PX + ceil(count / columns) * cell[1] + 2 * _TEXT_PX
    sheet = Image.new("RGB", (max(600, _GAP_PX + columns * cell[0]), height), "white")
    draw, font = ImageDraw.Draw(sheet), font_of(13)
    for place, index in enumerate(chosen):
        section = domain.sections[index]
        left = _GAP_PX + place % columns * cell[0]
        top = _GAP_PX + place // columns * cell[1]
        sheet.paste(_picture(domain, section), (left, top + _TEXT_PX))
        draw.text((left, top), _caption(section), fill="black", font=font)
    if any(section.has_mask for section in domain.sections):
        legend = entries_of(domain.info.class_names)
        draw_legend(draw, legend, height - 2 * _TEXT_PX, font, "black")
    return sheet


def _picture(domain: Domain, section: Section) -> Image.Image:
    """Return the section, its mask over it, as a picture of at most 220 pixels a side."""
    grey = Image.fromarray((domain.image(section) * 255).astype(np.uint8))
    picture = _small(grey, Image.Resampling.BOX).convert("RGB")
    if not section.has_mask:
        return picture
    mask = _small(Image.fromarray(domain.mask(section)), Image.Resampling.NEAREST)
    classes = np.asarray(mask)
    weight = np.where(classes == IGNORE, 0.0, _MASK_WEIGHT)[..., None]
    return Image.fromarray(_blend(np.asarray(picture), np.asarray(coloured(classes)), weight))


def _blend(
    below: NDArray[np.uint8], above: NDArray[np.uint8], weight: NDArray[np.float64]
) -> NDArray[np.uint8]:
    blended: NDArray[np.uint8] = (below * (1 - weight) + above * weight).astype(np.uint8)
    return blended


def _small(picture: Image.Image, resample: Image.Resampling) -> Image.Image:
    scale = _SIDE_PX / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, resample)


def _caption(section: Section) -> str:
    name = section.name if len(section.name) <= 22 else f"...{section.name[-19:]}"
    return f"{name} ({section.split})"
