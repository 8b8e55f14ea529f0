"""The documents name what exists: files, headings, commands, variables, requests and fields."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import typer
from pydantic import BaseModel
from typer.core import TyperGroup

from app.cli.main import cli
from app.jobs.schemas import JobResult
from app.main import create_app
from app.settings import Settings
from models.config.stylefilter import StyleFilterConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md"))
    if "results" not in path.parts
)
FENCED = r"(?ms)^ *```\w*\n(.*?)^ *```"
"""Finds the blocks of code between fences; the blocks of a list are indented."""
PACKAGES = r"(?:app|worker|models|migrations|docker|docs|tests|\.github|\.ci)"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
current_pages = pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md"],  # it names what is gone, too
    ids=lambda page: str(page.relative_to(ROOT)),
)


def code_of(page: Path) -> list[str]:
    """Return the page's code: its blocks, commands continued over lines as one, and its spans."""
    spans = re.findall(r"`([^`\n]+)`", prose_of(page))
    return [block.replace("\\\n", " ") for block in blocks_of(page)] + spans


def blocks_of(page: Path) -> list[str]:
    """Return the page's blocks of code, fenced and indented, as they stand."""
    fenced = [dedent(block) for block in re.findall(FENCED, page.read_text())]
    indented = re.findall(r"(?:^ {4}\S.*\n)(?:^ {4}.*\n)*", prose_of(page), re.MULTILINE)
    return [*fenced, *indented]


def prose_of(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return re.sub(FENCED, "", page.read_text())


def links_of(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file and the heading of each link that stays in the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if "://" not in target:
            path, _, heading = target.partition("#")
            yield (page.parent / path if path else page), heading


def headings_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub writes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    missing = [
        f"{path.name}#{heading}"
        for path, heading in links_of(page)
        if not path.exists() or (heading and heading not in headings_of(path))
    ]
    assert not missing


def test_the_glossary_lists_the_words_of_each_part_in_their_order() -> None:
    opening, *parts = re.split(r"(?m)^## ", (ROOT / "docs" / "glossary.md").read_text())
    listed = {
        title: " ".join(words.split())
        for title, words in re.findall(r"(?m)^- \[(.+)\]\(#.+\): ((?:.+\n)+?)(?=- |\n)", opening)
    }
    words = {
        part.partition("\n")[0]: ", ".join(
            re.sub(r" \(.*|\.$", "", word) for word in re.findall(r"(?m)^\*\*(.+?)\*\*", part)
        )
        for part in parts
    }
    assert listed == words


@current_pages
def test_files_that_are_named_exist(page: Path) -> None:
    named = [
        span for span in code_of(page) if re.fullmatch(rf"{PACKAGES}/[\w./*-]*(?:: \w+)?", span)
    ]
    missing = [span for span in named if not any(ROOT.glob(span.partition(":")[0].rstrip("/")))]
    assert not missing


@pytest.mark.parametrize("drawing", sorted(ROOT.glob("docs/*.svg")), ids=lambda path: path.name)
def test_files_in_drawings_exist(drawing: Path) -> None:
    named = re.findall(rf"\b{PACKAGES}/[\w./-]*", drawing.read_text())
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


@current_pages
def test_commands_and_options_exist(page: Path) -> None:
    wrong = []
    for line in "\n".join(code_of(page)).splitlines():
        for words in re.findall(r"\bstylefilter ((?:[a-z-]+ ?)+[^|&#;]*)", line):
            wrong += unknown_words(typer.main.get_command(cli), words.split())
    assert not wrong


@pages
def test_commands_are_continued_where_their_lines_end(page: Path) -> None:
    assert not [line for block in blocks_of(page) for line in broken_lines(block)]


def broken_lines(block: str) -> list[str]:
    """Return the lines of a block that a shell would not read as they are meant.

    Such a line has its backslash before its end, or begins with an option while the line before it
    is not continued.
    """
    broken, before = [], ""
    for line in block.splitlines():
        inside = re.search(r"(?<=\s)\\\s+\S", line)
        if inside or (re.match(r"\s+--?\w", line) and before and not before.endswith("\\")):
            broken.append(line)
        before = line
    return broken


def test_a_command_that_was_wrapped_like_prose_is_found() -> None:
    whole = "stylefilter benchmark --source DIR \\\n  --target DIR --folds 3\n"
    assert broken_lines(whole) == []
    assert broken_lines(whole.replace(" \\\n ", "\n ")) == ["  --target DIR --folds 3"]
    assert len(broken_lines(whole.replace(" \\\n ", " \\ "))) == 1


@pytest.mark.processes
@pages
def test_shell_blocks_can_be_parsed(page: Path) -> None:
    for block in re.findall(FENCED.replace(r"\w*", "bash"), page.read_text()):
        checked = subprocess.run(["bash", "-n"], input=block, text=True, stderr=subprocess.PIPE)
        assert checked.returncode == 0, checked.stderr


def unknown_words(group: object, words: list[str]) -> list[str]:
    """Return the subcommands and options of a command line that the command does not have."""
    command = group
    for word in words:
        if not isinstance(command, TyperGroup):
            break
        if word not in command.commands:
            return [word]
        command = command.commands[word]
    options = {
        name
        for option in getattr(command, "params", [])
        for name in (*option.opts, *option.secondary_opts)
    }
    return [word for word in words if word.startswith("--") and word not in options]


@current_pages
def test_variables_exist(page: Path) -> None:
    known = {f"STYLEFILTER_{name.upper()}" for name in Settings.model_fields}
    elsewhere = [
        ROOT / "docker-compose.yml",
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
        *ROOT.glob("tests/**/*.py"),
    ]
    known |= {name for path in elsewhere for name in variables(path.read_text())}
    assert not variables(page.read_text()) - known


def variables(text: str) -> set[str]:
    """Return the names of environment variables in a text."""
    return set(re.findall(r"\bSTYLEFILTER_[A-Z_]*[A-Z]\b", text))


@current_pages
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w.$()/-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets |= {".venv/.ready"}
    named = {name for code in code_of(page) for name in re.findall(r"\bmake ([\w./-]+)", code)}
    assert not named - targets


@current_pages
def test_requests_exist(page: Path, routes: set[tuple[str, str]]) -> None:
    text = page.read_text()
    named = set(re.findall(r"\b(GET|POST|PUT|PATCH|DELETE) (/[\w/.-]*)", text))
    assert not [f"{method} {path}" for method, path in named if not known(method, path, routes)]


@pytest.fixture(scope="module")
def routes() -> set[tuple[str, str]]:
    """Return the method and the path template of each request of the API."""
    paths = create_app(Settings()).openapi()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def known(method: str, path: str, routes: set[tuple[str, str]]) -> bool:
    """Return whether a path of the documents, with ID for an id, is a request of the API."""
    for its_method, template in routes:
        pattern = re.sub(r"\{\w+:path\}", r"[\\w./-]+", template)
        pattern = re.sub(r"\{\w+\}", r"[A-Za-z0-9.-]+", pattern)
        if method == its_method and re.fullmatch(pattern, path):
            return True
    return False


@current_pages
def test_fields_exist(page: Path) -> None:
    wrong = []
    for code in code_of(page):
        for part, name in re.findall(r"\b(style|segmenter|pretrain|adaptation)\.(\w+)", code):
            if name not in ("py", *fields_of(part)):
                wrong.append(f"{part}.{name}")
        for name in re.findall(r"\bresult\.(\w+)", code):
            if name not in ("json", *JobResult.model_fields):
                wrong.append(f"result.{name}")
    assert not wrong


def fields_of(part: str) -> set[str]:
    """Return the fields of a part of the configuration."""
    config = StyleFilterConfig.model_fields[part].annotation
    assert isinstance(config, type)
    assert issubclass(config, BaseModel)
    return set(config.model_fields)
