"""Reading ahead: the order, the errors and the files of reading in turn."""

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from models.data.description import Description
from models.data.intake.findings import DomainRefused
from models.data.intake.inputs import InputFile, Inputs
from models.data.intake.one_pass import SectionsRead, store_domain
from models.data.intake.pairing import Pair
from models.data.intake.read_ahead import read_ahead
from models.data.intake.threads import Threads
from models.data.readers.limits import Array, ImageError
from models.data.readers.stack import Ask, Purpose, Stack
from tests.app.files import grey, png, tells

CELLS = Description(class_names=["background", "organelle"], pixel_size_nm=4.0)


@dataclass
class Given:
    """An input that notes when it is opened, read and closed."""

    name: str
    notes: list[str] = field(default_factory=list)
    wrong: bool = False
    section_bytes: int | None = 6

    @property
    def stem(self) -> str:
        return self.name

    @contextmanager
    def open(self, _ask: Ask) -> Iterator[Stack]:
        self.notes.append("opened")
        yield Stack(self._sections(), 1, section_bytes=self.section_bytes)
        self.notes.append("closed")

    def _sections(self) -> Iterator[Array]:
        self.notes.append("read")
        if self.wrong:
            raise ImageError("is damaged")
        yield np.zeros((2, 3), np.uint8)

    def again(self) -> None:
        return None


def ask(_purpose: Purpose) -> Ask:
    return Ask(100)


def test_pairs_come_in_order_and_each_is_closed() -> None:
    pairs = [Pair(Given(f"{n}"), Given(f"{n}") if n % 2 else None) for n in range(30)]
    names = []
    with Threads() as threads, closing(read_ahead(pairs, ask, threads)) as opened:
        for pair in opened:
            names.append(pair.image.name)
            with pair.image.open(ask("image")) as stack:
                assert next(stack.sections).shape == (2, 3)
    assert names == [f"{n}" for n in range(30)]
    # The masks were never asked for, and are closed nevertheless.
    for given in (each for pair in pairs for each in (pair.image, pair.mask) if each is not None):
        assert isinstance(given, Given)
        assert given.notes == ["opened", "read", "closed"]


def test_what_is_open_is_closed_when_reading_ends_early() -> None:
    pairs = [Pair(Given(f"{n}"), None) for n in range(30)]
    with Threads() as threads, closing(read_ahead(pairs, ask, threads)) as opened:
        next(opened)
    for pair in pairs:
        assert isinstance(pair.image, Given)
        assert pair.image.notes in ([], ["opened", "read", "closed"])


def test_errors_and_large_sections_wait_for_their_turn() -> None:
    wrong, large = Given("wrong", wrong=True), Given("large", section_bytes=1 << 40)
    pairs = [Pair(wrong, None), Pair(large, None)]
    with Threads() as threads, closing(read_ahead(pairs, ask, threads)) as opened:
        with next(opened).image.open(ask("image")) as stack, pytest.raises(ImageError):
            next(stack.sections)
        with next(opened).image.open(ask("image")) as stack:
            assert large.notes == ["opened"]
            assert next(stack.sections).shape == (2, 3)


def test_every_wrong_file_among_many_is_named_in_order(tmp_path: Path) -> None:
    contents = {f"{n:02}.png": png(grey(n)) for n in range(20)}
    contents |= {"03.png": b"no image", "11.png": contents["11.png"][:300], "12.png": b""}
    images = [InputFile(name, io.BytesIO(data)) for name, data in contents.items()]
    with pytest.raises(DomainRefused) as refused:
        store_domain(CELLS, Inputs(images), tmp_path / "d")
    said = {problem.where: problem.message for problem in refused.value.problems}
    assert list(said) == ["03.png", "11.png", "12.png"]
    tells(said, {"03.png": ("format",), "11.png": ("damaged",), "12.png": ("format",)})


def test_a_disk_that_fails_ends_the_intake(tmp_path: Path) -> None:
    images = [InputFile(f"{n:02}.png", io.BytesIO(png(grey(n)))) for n in range(20)]
    folder = tmp_path / "d"

    def block(read: SectionsRead) -> None:
        if read.num_read == 1:
            for index in (10, 12):
                (folder / f"images/{index:06d}").write_bytes(b"")

    with pytest.raises(NotADirectoryError) as failed:
        store_domain(CELLS, Inputs(images), folder, on_section=block)
    assert "images/000010" in str(failed.value)
