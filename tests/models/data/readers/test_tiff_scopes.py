"""The sizes of pixels that microscopes write into facts of their own."""

import io

import pytest
import tifffile

from models.data.readers.tiff_scopes import microscope_nm
from tests.app.files import grey, tiff


def size(code: int, text: str) -> tuple[float, float] | None:
    data = tiff(grey(1), extratags=[(code, 2, 0, text, True)])
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return microscope_nm(file.pages.first)


@pytest.mark.parametrize("code", [34680, 34682])
def test_thermo_fisher(code: int) -> None:
    text = "[User]\r\nDate=1\r\n[Scan]\r\nPixelWidth=4e-9\r\nPixelHeight=5e-9\r\n"
    assert size(code, text) == pytest.approx((5, 4))
    assert size(code, "[Scan]\r\nPixelWidth=off\r\n") is None


def test_zeiss() -> None:
    text = "\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 11.16 nm\r\n"
    assert size(34118, text) == pytest.approx((11.16, 11.16))
    assert size(34118, "\r\nAP_WD\r\nWD = 5.1 mm\r\n") is None


def test_other_files_state_none() -> None:
    assert size(65000, "PixelWidth=4e-9") is None
