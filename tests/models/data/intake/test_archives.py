"""A ZIP of image files is read as a folder, within bounds."""

import io
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
import pytest

from models.data.intake import archives
from models.data.intake.archives import unpacked
from models.data.intake.findings import Findings
from models.data.intake.inputs import InputFile, Inputs
from models.data.readers.limits import ImageError
from models.data.readers.stack import Ask
from tests.app.files import grey, mask, png


def archive(members: Mapping[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def opened(
    stack: ExitStack, images: Mapping[str, bytes], masks: Mapping[str, bytes] | None = None
) -> tuple[Inputs, Findings]:
    findings = Findings()
    given = Inputs(
        [InputFile(name, io.BytesIO(data)) for name, data in images.items()],
        [InputFile(name, io.BytesIO(data)) for name, data in (masks or {}).items()],
    )
    return unpacked(given, stack, findings), findings


@pytest.mark.parametrize("outer", ["", "cells/", "day/cells/"])
def test_a_zip_may_hold_images_and_masks(outer: str) -> None:
    members = {
        f"{outer}images/s10.png": png(grey(1)),
        f"{outer}images/s9.png": png(grey(2)),
        f"{outer}masks/s9_mask.png": png(mask()),
        f"{outer}notes.txt": b"notes",
        "__MACOSX/._s9.png": b"\0",
    }
    with ExitStack() as stack:
        found, findings = opened(stack, {"images/all.zip": archive(members)})
        assert [image.stem for image in found.images] == ["s9", "s10"]
        assert [image.name for image in found.masks] == [f"images/all.zip/{outer}masks/s9_mask.png"]
        assert list(found.passed_over) == [
            f"images/all.zip/{outer}notes.txt",
            "images/all.zip/__MACOSX/._s9.png",
        ]
        with found.images[1].open(Ask(1 << 20)) as read:
            np.testing.assert_array_equal(next(read.sections), grey(1))
    assert findings.problems == []


def test_files_of_a_zip_without_folders_are_what_they_were_sent_as() -> None:
    images, masks = archive({"a.png": png(grey(1))}), archive({"masks/a.png": png(mask())})
    with ExitStack() as stack:
        found, _ = opened(stack, {"i.zip": images}, {"m.zip": masks, "flat.zip": images})
        assert [each.name for each in found.images] == ["i.zip/a.png"]
        assert [each.name for each in found.masks] == ["m.zip/masks/a.png", "flat.zip/a.png"]


def test_a_zipped_zarr_and_what_is_no_zip_stay_for_their_readers() -> None:
    files = {
        "z.zip": archive({"cells/.zarray": b"{}", "cells/a.png": b""}),
        "n.zip": archive({"readme": b"hello"}),
        "broken.zip": archive({"a.png": b""})[:-9],
        "a.png": png(grey(1)),
    }
    with ExitStack() as stack:
        found, findings = opened(stack, files)
        assert [each.name for each in found.images] == list(files)
        for each in found.images:
            assert isinstance(each, InputFile)
            assert not isinstance(each.file, io.BufferedReader)
            assert each.file.read(4) == files[each.name][:4]
    assert findings.problems == []


def test_what_unpacks_into_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MAX_BYTES", 2 << 30)
    monkeypatch.setattr(archives, "_MEMBER_BYTES", 100)
    monkeypatch.setattr(archives, "_MAX_MEMBERS", 3)
    many = archive({f"{n}.png": b"" for n in range(4)})
    large = archive({"a.png": bytes(101)})
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as file:
        file.writestr("a.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.png", b"2")
    with ExitStack() as stack:
        files = {"many.zip": many, "large.zip": large, "twice.zip": twice.getvalue()}
        found, findings = opened(stack, files)
        assert list(found.images) == []
    said = {problem.where: problem.message for problem in findings.problems}
    assert "4 files" in said["many.zip"]
    assert "more than 0 GiB" in said["large.zip"]
    assert "same path" in said["twice.zip"]


def test_a_member_unpacks_into_no_more_than_it_declares() -> None:
    lying = bytearray(archive({"a.png": bytes(1 << 20)}))
    for start, place in ((lying.index(b"PK\1\2"), 24), (lying.index(b"PK\3\4"), 22)):
        lying[start + place : start + place + 4] = (64).to_bytes(4, "little")
    packed = archive({"a.png": png(grey(1))}, zipfile.ZIP_LZMA)
    damaged = bytearray(archive({"a.png": png(grey(1))}))
    damaged[60] ^= 255
    with ExitStack() as stack:
        files = {"l.zip": bytes(lying), "p.zip": packed, "d.zip": bytes(damaged)}
        found, _ = opened(stack, files)
        for each, words in zip(found.images, ("unpack", "deflate", "unpacked"), strict=True):
            with pytest.raises(ImageError, match=words), each.open(Ask(1 << 20)):
                pass
