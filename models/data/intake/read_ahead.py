"""Open the files of a dataset, and decode small ones, in threads before their turn.

What is found wrong meanwhile is told when the file's turn comes, as if it were opened then.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice

from models.data.intake.inputs import Input
from models.data.intake.pairing import Pair
from models.data.intake.threads import Threads
from models.data.readers.limits import Array, ImageError
from models.data.readers.stack import Ask, Purpose, Stack

_BYTES_AHEAD = 96 << 20


@dataclass(frozen=True)
class OpenedAhead:
    """An input that a thread opens; it can be opened once."""

    given: Input
    future: Future[tuple[Stack, ExitStack]]

    @property
    def name(self) -> str:
        return self.given.name

    @property
    def stem(self) -> str:
        return self.given.stem

    @contextmanager
    def open(self, _ask: Ask) -> Iterator[Stack]:
        stack, opened = self.future.result()
        with opened:
            yield stack

    def again(self) -> Input | None:
        return self.given.again()

    def discard(self) -> None:
        """Close what was opened, if it is open."""
        if not self.future.cancel() and self.future.exception() is None:
            self.future.result()[1].close()


def read_ahead(
    pairs: Iterable[Pair], ask: Callable[[Purpose], Ask], threads: Threads
) -> Generator[Pair, None, None]:
    """Yield pairs in order while the next ones are opened; each is closed when the next comes."""
    ahead = threads.number + 1
    small = _BYTES_AHEAD // (2 * ahead)  # an image and its mask
    waiting: deque[tuple[OpenedAhead, OpenedAhead | None]] = deque()

    def begun(given: Input, purpose: Purpose) -> OpenedAhead:
        return OpenedAhead(given, threads.begin(partial(_opened, given, ask(purpose), small)))

    left = iter(pairs)
    try:
        while True:
            for pair in islice(left, ahead - len(waiting)):
                mask = None if pair.mask is None else begun(pair.mask, "mask")
                waiting.append((begun(pair.image, "image"), mask))
            if not waiting:
                return
            yield Pair(*waiting[0])
            _discard(waiting.popleft())
    finally:
        for both in waiting:
            _discard(both)


def _discard(both: tuple[OpenedAhead, OpenedAhead | None]) -> None:
    for each in both:
        if each is not None:
            each.discard()


def _opened(given: Input, ask: Ask, small: int) -> tuple[Stack, ExitStack]:
    with ExitStack() as opened:
        stack = opened.enter_context(given.open(ask))
        size = stack.section_bytes
        if stack.num_sections == 1 and size is not None and size <= small:
            stack = replace(stack, sections=_begun(stack.sections))
        return stack, opened.pop_all()


def _begun(sections: Iterator[Array]) -> Iterator[Array]:
    """Read the first section now; an error is raised when it is asked for."""
    try:
        first = next(sections)
    except StopIteration:
        return iter(())
    except ImageError as error:
        return _failed(error)
    return chain([first], sections)


def _failed(error: ImageError) -> Iterator[Array]:
    raise error
    yield
