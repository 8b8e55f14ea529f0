"""Docstrings begin with a verb or a noun, never with a question word or ``Of``."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = "app", "worker", "models"
FORBIDDEN = {"What", "How", "Which", "Whether", "Where", "Of", "Whose", "Why"}


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring: of modules, classes, functions and attributes."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            # A string that is a statement of its own: an attribute's stands after its assignment.
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text


def breaches(source: str) -> list[tuple[int, str]]:
    """Return line and first word of each docstring that begins with a forbidden word."""
    firsts = ((line, text.split()[0].strip(",:;.")) for line, text in docstrings(source))
    return [(line, word) for line, word in firsts if word in FORBIDDEN]


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in files
        for line, word in breaches(path.read_text())
    ]
    assert found == []


def test_every_kind_of_docstring_is_read() -> None:
    source = '''
"""What a module does."""

LIMIT = 1
"""Where it ends."""


class Thing:
    """Of a thing."""

    part: int
    """Whose part."""

    def act(self) -> None:
        """Whether it acts."""


def say() -> str:
    """Return what is said."""
'''
    assert {word for _, word in breaches(source)} == {"What", "Where", "Of", "Whose", "Whether"}
