"""TIFF files of every form: their sections, and the size of a pixel that they state."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile

from models.data.readers.formats import open_stack
from models.data.readers.limits import ImageError
from models.data.readers.stack import Ask, ReadOptions, Stack
from tests.app.files import grey, tiff
from tests.models.data.readers.files import MANY, refusal, refused_when_damaged
from tests.models.data.reading import read_sections

STACK = np.stack([grey(n, 40, 56, "uint16") for n in range(4)])
BOTH = np.stack([STACK, 65535 - STACK], axis=1)  # Z, C, Y, X


def sections(data: bytes, **options: Any) -> np.ndarray:
    return np.stack(list(read_sections(io.BytesIO(data), MANY, **options)))


def opened(data: bytes, **options: object) -> Stack:
    """What the header says; sections cannot be read any more."""
    with open_stack(io.BytesIO(data), Ask(MANY, options=ReadOptions(**options))) as stack:
        return stack


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
def test_every_form_holds_the_same_pixels(
    compression: str, tile: tuple[int, int], byteorder: Any, bigtiff: bool
) -> None:
    data = tiff(STACK, compression=compression, tile=tile, byteorder=byteorder, bigtiff=bigtiff)
    found = sections(data)
    np.testing.assert_array_equal(found, STACK)
    assert found.dtype == np.dtype("=u2")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_predictors_are_undone(compression: str, dtype: str) -> None:
    pixels = STACK.astype(dtype)
    predictor = 3 if dtype == "float32" else 2
    data = tiff(pixels, compression=compression, predictor=predictor, rowsperstrip=7)
    np.testing.assert_array_equal(sections(data), pixels)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float32"])
def test_dtypes_stay(dtype: str) -> None:
    pixels = (STACK.astype(np.int64) - 30000).astype(dtype)
    found = sections(tiff(pixels))
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype == dtype


def test_half_floats_become_floats() -> None:
    pixels = (STACK / 65535).astype(np.float16)
    found = sections(tiff(pixels))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels)


def test_jpeg_gives_what_it_decodes_to() -> None:
    y, x = np.mgrid[:40, :56]
    smooth = (100 + 50 * np.sin(y / 9) * np.cos(x / 9)).astype(np.uint8)
    data = tiff(smooth, compression="jpeg", compressionargs={"level": 95}, tile=(16, 16))
    found = sections(data)[0].astype(int)
    assert np.abs(found - smooth).max() <= 4


@pytest.mark.parametrize("kind", [{"imagej": True}, {"metadata": None}, {}])
def test_pages_of_a_volume_are_its_sections(kind: dict[str, Any]) -> None:
    if kind.get("imagej"):
        kind = kind | {"metadata": {"axes": "ZYX"}}
    np.testing.assert_array_equal(sections(tiff(STACK, **kind)), STACK)


@pytest.mark.parametrize("kind", [{"imagej": True, "metadata": {"axes": "ZYX"}}, {}])
def test_planes_behind_the_first_page_are_sections(kind: dict[str, Any]) -> None:
    data = tiff(STACK, truncate=True, **kind)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == 1
    np.testing.assert_array_equal(sections(data), STACK)
    np.testing.assert_array_equal(sections(data, start=1, stop=3), STACK[1:3])
    np.testing.assert_array_equal(sections(data, axis="y"), STACK.swapaxes(0, 1))
    assert "cut off" in refusal(data[:-1]) or "holds 3" in refusal(data[:-1])


def test_a_page_that_was_cut_out_of_a_stack_is_one_section() -> None:
    whole = tiff(STACK[:1], imagej=True, metadata={"axes": "ZYX"}, description=None)
    data = whole.replace(b"images=1", b"images=9")
    assert data != whole
    np.testing.assert_array_equal(sections(data), STACK[:1])
    assert any("9 images" in note for note in opened(data).notes)


@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
def test_one_of_several_channels_is_named(kind: str) -> None:
    form = {} if kind == "shaped" else {kind: True}
    data = tiff(BOTH, metadata={"axes": "ZCYX"}, **form)
    assert "2 channels" in refusal(data)
    np.testing.assert_array_equal(sections(data, channel=0), STACK)
    np.testing.assert_array_equal(sections(data, channel=1), 65535 - STACK)
    assert "2 channels" in refusal(data, channel=2)


def test_channels_are_called_by_their_names() -> None:
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["SE2", "InLens"]}}
    said = refusal(tiff(BOTH, ome=True, metadata=metadata))
    assert "SE2" in said
    assert "InLens" in said


def test_the_channel_of_the_images_is_none_of_a_mask_with_one() -> None:
    data = tiff(STACK[:1], imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(sections(data, purpose="mask", channel=1), STACK[:1])
    assert "one channel" in refusal(tiff(STACK), channel=1)


@pytest.mark.parametrize("axes", ["TYX", "TZYX"])
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_a_time_series_is_refused(kind: str, axes: str) -> None:
    pixels = STACK if axes == "TYX" else BOTH
    assert "time series of 4" in refusal(tiff(pixels, metadata={"axes": axes}, **{kind: True}))


@pytest.mark.parametrize("order", ["ZCYX", "CZYX"])
def test_planes_of_ome_lie_in_the_order_that_it_names(order: str) -> None:
    pixels = BOTH if order == "ZCYX" else BOTH.swapaxes(0, 1)
    data = tiff(pixels, ome=True, metadata={"axes": order})
    np.testing.assert_array_equal(sections(data, channel=1), 65535 - STACK)


def test_an_array_of_four_axes_without_names_is_refused() -> None:
    assert "axis" in refusal(tiff(BOTH, metadata={}))


def test_copies_of_pages_are_left_out_with_a_note() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for section in STACK:
            for step in (1, 4):
                reduced = np.ascontiguousarray(section[::step, ::step])
                writer.write(
                    reduced, photometric="minisblack", subfiletype=int(step > 1), metadata=None
                )
    np.testing.assert_array_equal(sections(buffer.getvalue()), STACK)
    assert any("4 reduced copies" in note for note in opened(buffer.getvalue()).notes)


def test_pages_of_several_sizes_or_kinds_are_refused() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(STACK[0], photometric="minisblack")
        writer.write(STACK[0, ::2, ::2].copy(), photometric="minisblack")
    said = refusal(buffer.getvalue())
    assert "20 x 28 px" in said
    assert "40 x 56 px" in said
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(STACK[0], photometric="minisblack")
        writer.write(STACK[0].astype(np.uint8), photometric="minisblack")
    assert "uint8" in refusal(buffer.getvalue())


def test_a_stack_of_another_program_is_refused_not_read_in_part() -> None:
    data = tiff(STACK[0], extratags=[(34412, 7, 64, bytes(64), True)])
    assert "LSM" in refusal(data)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"imagej": True, "resolution": (0.25, 0.2), "metadata": {"unit": "nm"}}, (5, 4)),
        ({"imagej": True, "resolution": (250, 200), "metadata": {"unit": "um"}}, (5, 4)),
        ({"imagej": True, "resolution": (250, 200), "metadata": {"unit": "\\u00B5m"}}, (5, 4)),
        ({"imagej": True, "resolution": (72, 72), "metadata": {"unit": "inch"}}, None),
        ({"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True, "metadata": {"unit": "nm"}}, (1, 1)),
        ({"resolution": (2.5e6, 2e6), "resolutionunit": "CENTIMETER"}, (5, 4)),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (1, 1), "resolutionunit": "NONE"}, None),
        ({}, None),
    ],
)
def test_the_size_of_a_pixel(options: dict[str, Any], size: tuple[float, float] | None) -> None:
    stated = opened(tiff(STACK[0], **options)).pixel_size_nm
    assert stated == (None if size is None else pytest.approx(size))


@pytest.mark.parametrize(
    ("value", "unit"), [(0.004, "µm"), (4, "nm"), (40, "Å"), (4e-6, "mm"), (4 / 2.54e7, "in")]
)
def test_the_size_of_a_pixel_of_ome(value: float, unit: str) -> None:
    sizes = {"PhysicalSizeX": value, "PhysicalSizeXUnit": unit}
    sizes |= {"PhysicalSizeY": 2 * value, "PhysicalSizeYUnit": unit}
    sizes |= {"PhysicalSizeZ": 10 * value, "PhysicalSizeZUnit": unit}
    data = tiff(STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    assert opened(data).pixel_size_nm == pytest.approx((8, 4))
    assert opened(data, axis="y").pixel_size_nm == pytest.approx((40, 4))


def test_the_depth_of_a_voxel_of_imagej() -> None:
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 50.0}
    data = tiff(STACK, imagej=True, resolution=(0.25, 0.2), metadata=metadata)
    assert opened(data, axis="x").pixel_size_nm == pytest.approx((50, 5))


def test_damaged_files_raise_nothing_but_image_errors() -> None:
    small = STACK[:2, :32, :32]
    files = [
        tiff(small, **options)
        for options in (
            {},
            {"compression": "zlib"},
            {"compression": "lzw", "predictor": 2},
            {"compression": "zstd", "tile": (16, 16)},
            {"compression": "packbits", "bigtiff": True},
            {"imagej": True, "metadata": {"axes": "ZYX"}, "truncate": True},
            {"ome": True, "metadata": {"axes": "ZYX"}},
        )
    ]
    files.append(tiff(small.astype(np.uint8), compression="jpeg"))
    assert 0.3 < refused_when_damaged(files) < 1


def test_a_file_that_is_a_list_of_pages_is_read_in_order_of_its_list() -> None:
    sections = read_sections(io.BytesIO(tiff(STACK)), MANY)
    np.testing.assert_array_equal(next(sections), STACK[0])
    np.testing.assert_array_equal(next(sections), STACK[1])


def test_a_file_without_pages_is_refused() -> None:
    with pytest.raises(ImageError, match="no page"):
        opened(b"II*\0\0\0\0\0")
