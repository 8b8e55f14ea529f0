"""Labels from a table of CSV, and back."""

import codecs
import unicodedata
from collections.abc import Sequence

import httpx
import pytest

from app.errors import Invalid
from app.labels.naming import Extent, ImageNames
from app.labels.sheet import plain, read_sheet, safe, write_sheet
from models.data.labels import LabelState
from models.data.sections import Section
from tests.app.files import grey, png, problem, registered, upload

P, A, U = LabelState.PRESENT, LabelState.ABSENT, LabelState.UNKNOWN
CLASSES = ("background", "nucleus")


def images(*sections: str, tiles: int = 1) -> ImageNames:
    return ImageNames(
        [Section(n, name, "train", 64, 64, False) for n, name in enumerate(sections)],
        {n: Extent(n * tiles, tiles) for n in range(len(sections))},
    )


S = images("s00", "s01", "s02", "s03")


def nuclei(data: bytes, names: ImageNames = S) -> dict[int, LabelState]:
    """The labels of the nucleus, where no other class has a column."""
    labels = read_sheet(data, names, CLASSES)
    assert all(set(classes) == {"nucleus"} for classes in labels.values())
    return {image: classes["nucleus"] for image, classes in labels.items()}


def wrong_lines(data: bytes, names: ImageNames = S, classes: Sequence[str] = CLASSES) -> list[int]:
    with pytest.raises(Invalid) as refused:
        read_sheet(data, names, classes)
    return [int(item.where.removeprefix("line ")) for item in refused.value.errors]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_form_that_spreadsheets_save(end: str, separator: str, encoding: str) -> None:
    lines = ["image,nucleus", "s00,1", "s01.png,0", "2,", "", ",,"]
    text = "".join(line.replace(",", separator) + end for line in lines)
    assert nuclei(text.encode(encoding)) == {0: P, 1: A, 2: U}
    assert nuclei(text.rstrip(separator + end).encode(encoding)) == {0: P, 1: A, 2: U}


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (("1", "present", "Present", "yes", "TRUE", "1.0", " 1 "), P),
        (("0", "absent", "ABSENT", "no", "false", "0.0"), A),
        (("", " ", "unknown", "?"), U),
    ],
)
def test_the_words_of_a_state(words: tuple[str, ...], state: LabelState) -> None:
    for word in words:
        assert nuclei(f"image,nucleus\n0,{word}\n".encode()) == {0: state}


def test_images_are_named_by_number_or_section_and_tile() -> None:
    tiled = images("a", "b", tiles=4)
    assert nuclei(b"section,tile,nucleus\nb,3,1\na.tif,0,0\n", tiled) == {7: P, 0: A}
    assert nuclei(b"number,nucleus\n7,1\n", tiled) == {7: P}
    assert nuclei(b"Image;nucleus\n7;1\n", tiled) == {7: P}
    assert nuclei(b"section,tile,nucleus\ns01,0,1\n") == {1: P}
    assert nuclei(b"section,nucleus\ns01,1\n") == {1: P}
    assert nuclei(b"section,nucleus\n1,1\n", images("001", "002")) == {0: P}
    assert wrong_lines(b"section,nucleus\nb,1\n", tiled) == [2]
    assert wrong_lines(b"section,tile,nucleus\nb\nb,x,1\nb,-1,1\nb,9,1\n", tiled) == [2, 3, 4, 5]
    assert wrong_lines(b"number,nucleus\ns00,1\n99999999999,1\n4,1\n") == [2, 3, 4]
    assert wrong_lines(b"image,nucleus\n1,1\n", images("001", "002")) == [2]


def test_a_class_without_a_column_is_left_out_and_cells_may_be_missing_at_the_end() -> None:
    labels = read_sheet(b"image,nucleus,background,,\n0,1\n1,,0,,,\n2\n", S, CLASSES)
    assert labels == {
        0: {"nucleus": P, "background": U},
        1: {"nucleus": U, "background": A},
        2: {"nucleus": U, "background": U},
    }


def test_classes_are_quoted_and_their_accents_written_either_way() -> None:
    classes = ("Körper, klein", 'the "body"')
    header = unicodedata.normalize("NFD", 'image;"Körper, klein"; the ""body""')
    header = header.replace('the ""body""', 'the "body"')
    labels = read_sheet(f"{header}\n0;1;0\n".encode(), S, classes)
    assert labels == {0: {classes[0]: P, classes[1]: A}}


def test_every_wrong_line_is_named() -> None:
    bad = b"image,nucleus\ns00,1\ns09,0\ns01,maybe\ns00,0\n"
    assert wrong_lines(bad) == [3, 4, 5]
    with pytest.raises(Invalid) as refused:
        read_sheet(bad, S, CLASSES)
    by_line = {item.where: item.message for item in refused.value.errors}
    assert "s09" in by_line["line 3"]
    assert "maybe" in by_line["line 4"]
    assert "nucleus" in by_line["line 4"]
    assert "line 2" in by_line["line 5"]
    assert wrong_lines(b"image,nucleus\n0,x\n\n1,x\n,1\n") == [2, 4, 5]
    assert wrong_lines(b"image,nucleus\n0,1,1\n1,,,1\n") == [2, 3]
    assert wrong_lines(b'image,nucleus\n0,"1\n1,1\n') == [2]
    # The same image by its number and its name, and a line that is wrong itself counts too.
    assert wrong_lines(b"image,nucleus\n1,x\ns01,1\n") == [2, 3]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"image\n0\n",
        b"nucleus,image\n1,0\n",
        b"image,golgi\n0,1\n",
        b"image,nucleus,nucleus\n0,1,1\n",
        b"image:nucleus\n0:1\n",
        b"image,,\n0,1\n",
        b"image," + b"x" * 200_000,
        b"\x89PNG\r\n",
        b"image,\xe4\n",
        codecs.BOM_UTF16_LE + b"i",
    ],
)
def test_a_wrong_first_line_is_named(data: bytes) -> None:
    assert set(wrong_lines(data)) == {1}


def test_what_is_no_text_is_named_by_its_line() -> None:
    assert wrong_lines(b"image,nucleus\n0,1\n\xe4,1\n") == [3]
    assert wrong_lines(b"image,nucleus\n0,\0\n") == [2]
    assert wrong_lines(b"image,nucleus\n" + b"0" * 200_000) == [2]


def test_a_table_without_an_image_is_refused() -> None:
    assert wrong_lines(b"image,nucleus\n") == [2]
    assert wrong_lines(b"image,nucleus\n,\n\n") == [2]


def test_a_refusal_of_many_lines_is_bounded() -> None:
    data = b"image,nucleus\n" + b"x,1\n" * 5000
    with pytest.raises(Invalid) as refused:
        read_sheet(data, S, CLASSES)
    assert refused.value.detail.startswith("5000 ")
    assert len(refused.value.errors) == 100


def test_a_table_ends_after_a_million_lines() -> None:
    assert wrong_lines(b"image,nucleus\n" + b"\n" * 1_000_001) == [1_000_002]


def written(rows: Sequence[tuple[str, int, Sequence[LabelState]]], *classes: str, tiles: bool):
    return b"".join(write_sheet(rows, classes, tiles=tiles))


def test_a_written_table_reads_back() -> None:
    sections = ("s00", "=1+1", "-1", "'@x", "a,b", 'c"d', "ä;", "tile")
    classes = ("'=x", "=x", "+1", "a, b", "tile")
    names = images(*sections, tiles=2)
    states = [(P, A, U, A, P), (U, U, U, U, U), (A, P, P, U, A)]
    rows = [
        (name, tile, states[(n + tile) % 3]) for n, name in enumerate(sections) for tile in (0, 1)
    ]
    data = written(rows, *classes, tiles=True)
    assert read_sheet(data, names, classes) == {
        n: dict(zip(classes, row[2], strict=True)) for n, row in enumerate(rows)
    }
    one_each = written([(name, 0, states[0]) for name in sections], *classes, tiles=False)
    assert len(read_sheet(one_each, images(*sections), classes)) == len(sections)
    called_tile = written([(name, 0, (P, A)) for name in sections], "tile", "x", tiles=False)
    assert read_sheet(called_tile, images(*sections), ("tile", "x"))[0] == {"tile": P, "x": A}


def test_no_cell_of_a_written_table_is_a_formula() -> None:
    for name in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'", "'=1", "''", "a", "1", ""):
        assert not safe(name).startswith(("=", "+", "-", "@", "\t", "\r"))
        assert plain(safe(name)) == name
    assert safe("mitochondrion") == "mitochondrion"
    assert plain("'quoted'") == "'quoted'"


@pytest.fixture
def dataset(api: httpx.Client) -> str:
    files = {f"s0{n}.png": png(grey(n)) for n in range(4)}
    return str(registered(upload(api, files, class_names=["background", "mitochondrion"]))["id"])


def put_table(api: httpx.Client, dataset: str, data: bytes, kind: str = "text/csv"):
    return api.put(f"/datasets/{dataset}/labels", content=data, headers={"content-type": kind})


@pytest.mark.parametrize(
    "data",
    [
        b"image,mitochondrion\ns00,1\ns01,0\ns02,\n",
        b"image,mitochondrion\ns00.png,present\ns01.png,absent\ns02.png,unknown\n",
        "\ufeffimage;mitochondrion\r\ns00;1\r\ns01;0\r\ns02;\r\n".encode(),
    ],
)
def test_a_table_is_sent(api: httpx.Client, dataset: str, data: bytes) -> None:
    answer = put_table(api, dataset, data, "text/csv; charset=utf-8")
    assert answer.status_code == 200
    counts = answer.json()["counts"]["mitochondrion"]
    assert counts == {"present": 1, "absent": 1, "unknown": 2}
    assert answer.json()["changed_images"] == 2


def test_nothing_is_written_if_a_line_is_wrong(api: httpx.Client, dataset: str) -> None:
    before = api.get(f"/datasets/{dataset}/labels").json()
    bad = b"image,mitochondrion\ns00,1\ns09,0\ns01,maybe\ns00,0\n"
    refused = problem(put_table(api, dataset, bad), 422)
    assert [item["where"] for item in refused["errors"]] == ["line 3", "line 4", "line 5"]
    assert api.get(f"/datasets/{dataset}/labels").json() == before
