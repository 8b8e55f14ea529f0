"""What the faults brought: a row for each."""

import json
import os
import random
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.chaos.world import LEASE_SECONDS

ROUNDS = int(os.environ.get("STYLEFILTER_CHAOS_ROUNDS", "1"))
SEED = int(os.environ.get("STYLEFILTER_CHAOS_SEED", "0")) or random.SystemRandom().randrange(2**31)


@dataclass
class Row:
    """Of a fault: how often it was injected, and what went wrong how often."""

    fault: str
    injected: int = 0
    lost: int = 0
    double: int = 0
    wrong: int = 0
    left_behind: int = 0
    attempts: list[int] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)


_ROWS: dict[str, Row] = {}


def row_of(fault: str) -> Row:
    return _ROWS.setdefault(fault, Row(fault))


def lines() -> Iterator[str]:
    """The table in Markdown; nothing where no fault was injected."""
    if not _ROWS:
        return
    yield f"seed {SEED}, {ROUNDS} rounds a fault, lease {LEASE_SECONDS:g} s"
    yield ""
    columns = "times | jobs that did not end | double runs | wrong weights | left behind"
    yield f"| fault | {columns} | attempts, mean | recovery, s, median | longest |"
    yield "|---|" + "---|" * 8
    for row in _ROWS.values():
        seconds = row.recovery_seconds or [float("nan")]
        counts = (row.injected, row.lost, row.double, row.wrong, row.left_behind)
        yield (
            f"| {row.fault.replace('_', ' ')} | {' | '.join(map(str, counts))} "
            f"| {statistics.mean(row.attempts or [0]):.1f} "
            f"| {statistics.median(seconds):.1f} | {max(seconds):.1f} |"
        )


def write(path: Path) -> None:
    content = {"seed": SEED, "rounds": ROUNDS, "lease_seconds": LEASE_SECONDS}
    rows = [asdict(row) for row in _ROWS.values()]
    path.write_text(json.dumps(content | {"rows": rows}, indent=1) + "\n")
