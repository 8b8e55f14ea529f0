"""Written aside, named last."""

from pathlib import Path

import pytest

from models.data.files import written_aside


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / "state.json"
    for text in ("old", "new"):
        with written_aside(path, durable=durable) as draft:
            assert draft.parent == path.parent
            draft.write_text(text)
            assert not path.exists() or path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_takes_its_name_when_it_is_full(tmp_path: Path) -> None:
    path, aside = tmp_path / "model", tmp_path / "aside"
    with written_aside(path, into=aside) as draft:
        draft.mkdir()
        (draft / "weights").write_bytes(b"1")
        assert draft.parent == aside
        assert not path.exists()
    assert (path / "weights").read_bytes() == b"1"
    assert list(aside.iterdir()) == []


def test_a_folder_that_holds_something_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "weights").write_bytes(b"1")
    with pytest.raises(OSError, match="not empty"), written_aside(path) as draft:
        draft.mkdir()
    assert (path / "weights").read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_what_fails_leaves_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    path.write_text("old")

    def write() -> None:
        with written_aside(path) as draft:
            if kind == "file":
                draft.write_text("half")
            elif kind == "folder":
                draft.mkdir()
                (draft / "a").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
