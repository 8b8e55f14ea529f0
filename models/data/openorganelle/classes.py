"""The class table: which annotated structures make which class."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, ValidationError, model_validator

from models.config.base import FrozenConfig
from models.data.description import ClassName
from models.data.domain import IGNORE

UNANNOTATED, UNKNOWN = 0, 255
"""The two ids of the array ``all`` that are no structure: nobody looked, or nobody could tell."""

_MAX_BYTES = 1 << 18
_MAX_STRUCTURES = 1000


def _plain(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name) is None:
        raise ValueError(f"{name!r} is no name of a structure: it has letters, digits, _, - and .")
    return name


Structure = Annotated[str, Field(max_length=100), AfterValidator(_plain)]
"""The name of a structure, such as ``mito_mem``, and of its array in a crop."""

StructureId = Annotated[int, Field(ge=0, le=65534)]


class ClassEntry(FrozenConfig):
    """A class, and the structures that it is made of."""

    name: ClassName = Field(description="The name of the class.")
    ids: dict[Structure, StructureId] = Field(
        min_length=1,
        max_length=_MAX_STRUCTURES,
        description="The structures of the class, and the id of each in `all`.",
    )


class ClassTable(FrozenConfig):
    """The classes in the order of their ids, and what becomes of all other structures."""

    version: Literal[1] = Field(description="The version of the form of this table.")
    name: ClassName = Field(description="The name of the table.")
    classes: tuple[ClassEntry, ...] = Field(
        min_length=2, max_length=255, description="The classes. The first has the id 0 in masks."
    )
    ignored: dict[Structure, StructureId] = Field(
        default_factory=dict,
        max_length=_MAX_STRUCTURES,
        description="The structures whose pixels have no class, and the id of each in `all`.",
    )
    unlisted: str = Field(
        "ignore",
        max_length=100,
        description="The class of pixels whose id is in no class and not ignored, or `ignore`.",
    )
    groups: dict[
        Structure, Annotated[tuple[Structure, ...], Field(min_length=1, max_length=_MAX_STRUCTURES)]
    ] = Field(
        default_factory=dict,
        max_length=_MAX_STRUCTURES,
        description="The arrays that hold several structures at once, and these structures.",
    )

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.classes)

    @cached_property
    def class_of(self) -> Mapping[str, int]:
        """The class id of each structure; 255 of one that is ignored."""
        owners = {name: index for index, entry in enumerate(self.classes) for name in entry.ids}
        return owners | dict.fromkeys(self.ignored, IGNORE)

    @cached_property
    def structure_of(self) -> Mapping[int, str]:
        """The structure of each id in ``all``."""
        return {number: name for _, name, number in self._listed()}

    @property
    def unlisted_class(self) -> int:
        """The class id of pixels whose id the table does not list; 255 for none."""
        return IGNORE if self.unlisted == "ignore" else self.class_names.index(self.unlisted)

    def lookup(self, annotated: Collection[int]) -> NDArray[np.uint8]:
        """Return the class id (65536,) of each id of ``all``; 255 where there is none.

        A listed structure has no class either where its class is not one of ``annotated``.
        """
        table = np.full(65536, self.unlisted_class, dtype=np.uint8)
        for number, name in self.structure_of.items():
            owner = self.class_of[name]
            table[number] = owner if owner in annotated else IGNORE
        table[[UNANNOTATED, UNKNOWN]] = IGNORE
        return table

    def structures(self, class_id: int) -> frozenset[str]:
        """Return the names of the arrays that show a class and nothing else.

        A group that holds a structure of another class is none of them.
        """
        own = {name for name, owner in self.class_of.items() if owner == class_id}
        return frozenset(own | {name for name, parts in self.groups.items() if own >= set(parts)})

    def _listed(self) -> Iterator[tuple[str, str, int]]:
        """Yield where a structure is listed, its name and its id."""
        for entry in self.classes:
            yield from (
                (f"class {entry.name!r}", name, number) for name, number in entry.ids.items()
            )
        yield from (("ignored", name, number) for name, number in self.ignored.items())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = self.class_names
        if len(set(names)) != len(names):
            raise ValueError("two classes have the same name: give each class a name of its own")
        if "ignore" in names:
            raise ValueError("a class is called 'ignore', which stands for no class: rename it")
        if self.unlisted != "ignore" and self.unlisted not in names:
            raise ValueError(
                f"unlisted is {self.unlisted!r}, which is no class: write ignore or a class"
            )
        self._check_listed_once()
        self._check_groups()
        return self

    def _check_listed_once(self) -> None:
        by_name: dict[str, str] = {}
        by_id: dict[int, str] = {}
        for where, name, number in self._listed():
            if number in (UNANNOTATED, UNKNOWN):
                meaning = "not annotated" if number == UNANNOTATED else "unknown"
                raise ValueError(f"{where} lists the id {number}, which stands for {meaning}")
            if name in by_name:
                raise ValueError(
                    f"structure {name!r} is listed in {by_name[name]} and in {where}: list it once"
                )
            if number in by_id:
                raise ValueError(
                    f"id {number} is listed in {by_id[number]} and in {where}: list it once"
                )
            by_name[name] = by_id[number] = where

    def _check_groups(self) -> None:
        known = {name for _, name, _ in self._listed()} - self.groups.keys()
        for group, parts in self.groups.items():
            strange = [part for part in parts if part not in known]
            if strange:
                raise ValueError(
                    f"group {group!r} lists {strange[0]!r}, which is no single structure of a "
                    "class or of ignored: list it there with its id"
                )


class ClassTableError(ValueError):
    """A class table cannot be used; the message says where and why."""


def load_classes(table: str | Path) -> ClassTable:
    """Return a class table: ``paper``, which comes with the program, or that of a YAML file.

    Raises:
        ClassTableError: there is no such table, or it is wrong.
    """
    if table == "paper":
        source = resources.files("models.data") / "classes" / "paper.yaml"
        return parse_classes(source.read_bytes(), "paper.yaml")
    path = Path(table)
    try:
        with path.open("rb") as file:
            return parse_classes(file.read(_MAX_BYTES + 1), str(path))
    except OSError as error:
        raise ClassTableError(
            f"{path} cannot be read: {error.strerror}. Name a YAML file, or paper"
        ) from error


def parse_classes(text: bytes, name: str) -> ClassTable:
    """Return the class table of a YAML text; messages call it by its ``name``.

    Raises:
        ClassTableError: the text is no YAML, or no class table.
    """
    if len(text) > _MAX_BYTES:
        raise ClassTableError(f"{name} has more than {_MAX_BYTES} bytes: it is no class table")
    try:
        return ClassTable.model_validate(yaml.load(text, Loader=_StrictLoader))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the table"
        raise ClassTableError(f"{name}: {where}: {first['msg']}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ClassTableError(f"{name} is not valid YAML: {error}") from error


class _StrictLoader(yaml.SafeLoader):
    """A loader that refuses what would change a table in silence, or blow it up."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*): write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:  # the last one would win
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"the key {twice[0]!r} stands twice in the mapping of line {line}")
        return super().construct_mapping(node, deep)
