"""The demo's picture."""

import numpy as np

from app.inspection.figure import comparison

SKY, RED, BLACK = (86, 180, 233), (213, 94, 0), (0, 0, 0)


def test_panels_show_grey_values_and_class_colours_in_place() -> None:
    image = np.zeros((20, 30), np.uint16)
    image[:, 15:] = 4000
    mask = np.zeros((20, 30), np.uint8)
    mask[:10, 15:] = 1
    mask[10:] = 255
    picture = comparison({"target image": image}, {"truth": mask}, ["background", "organelle"])
    assert picture.height == 20 + 2 * 26 + 2 * 12
    left, top = 12, 26
    assert picture.getpixel((left, top)) == (0, 0, 0)
    assert picture.getpixel((left + 29, top + 19)) == (255, 255, 255)
    left += 30 + 12
    assert picture.getpixel((left, top)) == SKY
    assert picture.getpixel((left + 29, top)) == RED
    assert picture.getpixel((left, top + 19)) == BLACK
    # The picture is as wide as its legend, so both classes are in it.
    assert picture.width > 2 * (30 + 12) + 12
    legend = picture.crop((0, top + 20 + 12, *picture.size))
    counts = {colour: count for count, colour in legend.getcolors(1 << 16)}
    assert counts[SKY] == counts[RED] == 15 * 15


def test_large_images_shrink_and_flat_ones_are_black() -> None:
    image = np.full((720, 360), 200, np.uint8)
    picture = comparison({"target image": image}, {}, [])
    assert picture.size == (180 + 2 * 12, 360 + 2 * 26 + 2 * 12)
    assert picture.getpixel((12, 26)) == BLACK
