"""Which of several arrays is read."""

import pytest

from models.data.readers.choice import the_array
from models.data.readers.limits import ImageError
from models.data.readers.stack import Ask, Purpose, ReadOptions


def ask(path: str | None = None, purpose: Purpose = "image") -> Ask:
    return Ask(1, purpose, ReadOptions(path=path))


def test_the_only_array_or_the_one_that_is_named() -> None:
    assert the_array(["a"], ask()) == "a"
    assert the_array(["/a", "/b/c"], ask("b/c/")) == "/b/c"
    assert the_array(["a"], ask("b", "mask")) == "a"


@pytest.mark.parametrize(
    ("names", "path", "said"),
    [
        ([], None, "no array"),
        ([], "a", "no array"),
        (["a", "b"], None, "a, b"),
        (["a"], "b", "'b'; it holds a"),
        ([str(n) for n in range(99)], None, "99 arrays.*19, ..."),
    ],
)
def test_others_are_refused(names: list[str], path: str | None, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        the_array(names, ask(path))
