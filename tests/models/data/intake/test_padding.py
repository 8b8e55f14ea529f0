"""Pixels that are no data: padding at borders, void, strips with scale bars, ignored constants."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.data.intake.findings import Findings
from models.data.intake.padding import DataField, is_blank, no_data, padding_notes, whole
from models.data.sections import Section

WHOLE = DataField(0, 128, 0, 160)


def tissue(dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Noise of 20 grey values about mid grey, (128, 160)."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(100, 120, (128, 160))
    return (grey / 7 if dtype == "float32" else grey).astype(dtype)


def with_bar(image: np.ndarray) -> np.ndarray:
    """A strip of 24 rows below, black, with a white bar and something like writing."""
    image[104:] = 0
    image[112:116, 10:70] = image[108:122:3, 100:150:2] = 255
    return image


def left(image: np.ndarray) -> np.ndarray:
    image[:, :14] = 255
    return image


def frame(image: np.ndarray) -> np.ndarray:
    image[:3] = image[-5:] = 0
    image[:, :7] = image[:, -9:] = 0
    return image


def padded_and_with_bar(image: np.ndarray) -> np.ndarray:
    return left(with_bar(image))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda image: image, WHOLE),
        (left, DataField(0, 128, 14, 160)),
        (frame, DataField(3, 123, 7, 151)),
        (with_bar, DataField(0, 104, 0, 160, strip=True)),
        (padded_and_with_bar, DataField(0, 104, 14, 160, strip=True)),
    ],
)
def test_margins_of_one_value_are_no_data(
    dtype: str, change: Callable[[np.ndarray], np.ndarray], field: DataField
) -> None:
    found = no_data(change(tissue(dtype)), None)
    assert found.field == field
    assert found.void == ()


def test_void_that_reaches_the_border_is_left_out_wherever_its_value_is() -> None:
    image = tissue("uint16")
    rows, cols = np.mgrid[:128, :160]
    image[rows + cols < 90] = 0  # as a rotated field of view has it
    image[100, 100] = 0
    found = no_data(image, None)
    assert (found.field, found.void) == (WHOLE, (0,))
    assert found.num_void == 90 * 91 // 2 + 1
    data = found.data(image, None, slice(0, 128))
    assert data.size == image.size - found.num_void
    assert data.min() >= 100


def test_void_inside_and_little_void_are_data() -> None:
    image = tissue()
    image[40:80, 40:80] = 255  # as empty resin has it
    assert no_data(image, None) == whole(image)
    image = tissue()
    image[:8, :8] = 0  # less than 1 %
    assert no_data(image, None) == whole(image)


def test_black_structures_that_touch_the_border_are_data() -> None:
    image = tissue()
    for y0, x0 in ((0, 0), (0, 48), (48, 48), (48, 100), (88, 0), (88, 60)):
        image[y0 : y0 + 24, x0 : x0 + 24] = 2
    assert no_data(image, None) == whole(image)
    winding = tissue()
    winding[:10] = winding[10:80, 100:120] = winding[60:80, 20:120] = 2  # void, around corners
    winding[4, 4] = 100  # no margin of whole lines
    assert no_data(winding, None).void == (2,)


def written_strip(height: int, width: int, ground: int) -> np.ndarray:
    """A strip with anti-aliased text and a scale bar, as the program of a microscope writes it."""
    strip = Image.new("L", (width, height), ground)
    draw = ImageDraw.Draw(strip)
    draw.text((10, height // 4), "2 um  EHT = 1.50 kV", fill=255 - ground, font_size=height // 3)
    draw.rectangle((width - 60, height // 2, width - 12, height // 2 + 4), fill=255 - ground)
    return np.asarray(strip)


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("quality", [75, 90, 100])
@pytest.mark.parametrize(("height", "ground"), [(32, 0), (37, 0), (43, 255)])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_strip_that_jpeg_changed_is_no_data(
    quality: int, height: int, ground: int, turns: int
) -> None:
    image = np.vstack([tissue(), written_strip(height, tissue().shape[1], ground)])
    packed = as_jpeg(np.rot90(image, turns), quality)
    field = no_data(packed, None).field
    assert field.strip
    rows, cols = field.window
    kept = np.zeros(packed.shape, bool)
    kept[rows, cols] = True
    straight = np.rot90(kept, -turns)
    assert straight[: tissue().shape[0] - 2].all()
    assert not straight[tissue().shape[0] + 2 :].any()


def test_tissue_in_flat_resin_is_data() -> None:
    rng = np.random.default_rng(1)
    resin = rng.normal(200, 1, (160, 160))
    y, x = np.mgrid[:160, :160]
    for centre, radius in ((20, 10), (100, 55)):
        inside = (y - centre) ** 2 + (x - 80) ** 2 < radius**2
        resin[inside] = rng.normal(80, 30, int(inside.sum()))
    image = resin.clip(0, 255).astype(np.uint8)
    assert no_data(image, None).field.num_pixels == image.size


def test_lines_of_gradients_are_data() -> None:
    rows = np.repeat(np.arange(64, dtype=np.uint8), 2)[:, None].repeat(160, 1)
    assert no_data(rows, None).field.num_pixels >= (128 - 4) * 160
    assert no_data(np.arange(128, dtype=np.uint8)[:, None].repeat(160, 1), None).field == WHOLE


def test_ignored_pixels_of_one_value_are_left_out() -> None:
    image, mask = tissue(), np.zeros((128, 160), np.uint8)
    image[40:60, 40:60], mask[40:70, 40:60] = 7, 255
    found = no_data(image, mask)
    assert (found.ignored, found.num_ignored) == ((7,), 400)
    assert found.data(image, mask, slice(0, 128)).size == image.size - 400
    mask[40:90, 40:90] = 255  # most of the ignored pixels are tissue
    assert no_data(image, mask).ignored == ()
    assert no_data(image, np.zeros_like(mask)).ignored == ()


def test_rows_outside_the_field_hold_no_data() -> None:
    found = no_data(with_bar(tissue()), None)
    sizes = [found.data(tissue(), None, slice(y0, y0 + 64)).size for y0 in (0, 64)]
    assert sizes == [64 * 160, 40 * 160]
    assert found.field.touches(64, 0, 64, 64)
    assert not found.field.touches(104, 0, 24, 64)


def test_blank_sections() -> None:
    image = np.full((4, 5), 3)
    assert is_blank(image)
    image[3, 4] = 2
    assert not is_blank(image)


def test_notes_say_how_much_was_left_out() -> None:
    images = [with_bar(tissue()), left(tissue())]
    masks = np.full((128, 160), 255, np.uint8)
    sections = [Section(n, f"s{n}", "train", 128, 160, has_mask=False) for n in range(2)]
    findings = Findings()
    padding_notes({n: no_data(image, None) for n, image in enumerate(images)}, sections, findings)
    assert [note.code for note in findings.notes] == ["strip", "padding"]
    assert '"height": 104' in findings.notes[0].message
    assert f"{14 * 128} pixels" in findings.notes[1].message
    assert "s1" in findings.notes[1].message
    constant = tissue()
    constant[20:120, 20:140] = 9
    findings = Findings()
    padding_notes({0: no_data(constant, masks)}, sections[:1], findings)
    assert [note.code for note in findings.notes] == ["ignored_constant"]
    padding_notes({0: whole(constant)}, sections[:1], quiet := Findings())
    assert quiet.notes == []
