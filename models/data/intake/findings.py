"""The findings of an intake: problems, which refuse a domain, and notes, which do not."""

from collections.abc import Sequence
from dataclasses import dataclass

_NAMED = 10


@dataclass(frozen=True)
class Note:
    """Tells the owner of a domain a fact that is no reason to refuse it.

    ``where`` is the name of a file or section, or a field of the description. ``code`` is one word
    for programs, and ``message`` says in words what was found and what to do.
    """

    where: str
    code: str
    message: str


@dataclass(frozen=True)
class Problem:
    """A fault and its place: the name of a file, or a field of the description."""

    where: str
    message: str


class DomainRefused(ValueError):
    """Images, masks and description make no domain; ``problems`` names each thing to mend."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        count, first = len(problems), problems[0]
        super().__init__(f"{count} problem(s); the first is {first.where}: {first.message}")
        self.problems = tuple(problems)


class Findings:
    """Collects problems and notes, so that a refusal names all problems at once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notes: list[Note] = []

    def problem(self, where: str, message: str) -> None:
        """Add a fault, for which ``refuse`` will raise."""
        self.problems.append(Problem(where, message))

    def note(self, where: str, code: str, message: str) -> None:
        """Add a fact that the owner should know."""
        self.notes.append(Note(where, code, message))

    def refuse(self) -> None:
        """Raise DomainRefused if there is a problem."""
        if self.problems:
            raise DomainRefused(self.problems)


def listed(names: Sequence[str]) -> str:
    """Return names in a row; of more than ten the first ten and the number of the others."""
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown
