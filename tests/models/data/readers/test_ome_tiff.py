"""The OME description of a TIFF."""

import pytest

from models.data.readers.limits import ImageError
from models.data.readers.ome_tiff import OmeImage, ome_images, the_image

PIXELS = (
    '<Pixels DimensionOrder="{order}" Type="uint8" SizeX="8" SizeY="8" SizeZ="3" SizeC="2" '
    'SizeT="1">{inside}</Pixels>'
)


def image(inside: str, order: str = "XYZCT", name: str = "a", uuid: str = "") -> str:
    root = f' UUID="{uuid}"' if uuid else ""
    body = PIXELS.format(order=order, inside=inside)
    return f'<?xml version="1.0"?><OME xmlns="ome"{root}><Image Name="{name}">{body}</Image></OME>'


def read(xml: str) -> OmeImage:
    (found,) = ome_images(xml)
    return found


def test_planes_lie_in_the_order_of_the_dimensions() -> None:
    found = read(image("<TiffData/>"))
    assert (found.order, found.sizes) == ("TCZ", {"T": 1, "Z": 3, "C": 2})
    assert found.pages == {n: n for n in range(6)}
    assert read(image("<TiffData/>", "XYCZT")).order == "TZC"


def test_each_plane_may_name_its_page() -> None:
    found = read(
        image('<TiffData IFD="7" FirstZ="1" FirstC="1"/><TiffData IFD="2" PlaneCount="2"/>')
    )
    assert found.pages == {4: 7, 0: 2, 1: 3}


def test_planes_of_other_files_are_not_in_this_one() -> None:
    inside = "".join(
        f'<TiffData IFD="0" FirstZ="{n}"><UUID FileName="{n}.tif">urn:{n}</UUID></TiffData>'
        for n in range(3)
    )
    assert read(image(inside, uuid="urn:1")).pages == {1: 0}
    assert read(image(inside)).pages == {}


def test_colours_of_one_plane_are_one_channel() -> None:
    assert read(image('<Channel ID="c" SamplesPerPixel="2"/>')).sizes["C"] == 1
    found = read(image('<Channel Name="SE"/><Channel ID="c1"/>'))
    assert found.channels == ("SE", "c1")


def test_one_of_several_images_is_named() -> None:
    xml = image("").replace("</OME>", '<Image Name="label"><Pixels/></Image></OME>')
    images = ome_images(xml)
    assert the_image(images, "label").name == "label"
    for name in (None, "other"):
        with pytest.raises(ImageError, match="2 images.*a, label"):
            the_image(images, name)


@pytest.mark.parametrize(
    "xml",
    [
        "<OME></OME>",
        "<OME><Image/></OME>",
        '<!DOCTYPE a [<!ENTITY b "c">]>' + image(""),
        image("").replace('SizeZ="3"', 'SizeZ="99999999"'),
        image("").replace('SizeZ="3"', 'SizeZ="0"'),
        image("", "XYZ"),
        image('<TiffData PlaneCount="900000"/>' * 2),
        image('<TiffData IFD="-1"/>'),
        image("") + " " * (32 << 20),
    ],
)
def test_descriptions_that_are_refused(xml: str) -> None:
    with pytest.raises(ImageError):
        ome_images(xml)
