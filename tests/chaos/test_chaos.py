"""Whatever dies, every job ends right, once, and with the weights of an undisturbed run.

Each fault is injected at random moments of a running job, from a seed that is printed with a table
of what was seen. `make chaos` repeats each many times.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.chaos.table import ROUNDS, SEED, Row, row_of
from tests.chaos.world import (
    EMBEDDED_FAULTS,
    SERVER_FAULTS,
    Fault,
    World,
    embedded_world,
    server_world,
)
from tests.processes import disk_of_its_own, wait_for
from tests.services import NoService, without

pytestmark = [pytest.mark.processes, pytest.mark.chaos, pytest.mark.services]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    try:
        with server_world(tmp_path_factory.mktemp("server")) as world:
            yield world
    except NoService as error:
        without(str(error))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with embedded_world(tmp_path_factory.mktemp("embedded")) as world:
        yield world


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("fault", SERVER_FAULTS, ids=lambda fault: fault.__name__)
def test_a_job_survives_in_server_mode(server: World, fault: Fault, number: int) -> None:
    survives(server, fault, f"{fault.__name__}", number)


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("fault", EMBEDDED_FAULTS, ids=lambda fault: fault.__name__)
def test_a_job_survives_in_embedded_mode(embedded: World, fault: Fault, number: int) -> None:
    survives(embedded, fault, f"embedded: {fault.__name__}", number)


def survives(world: World, fault: Fault, name: str, number: int) -> None:
    rng = random.Random(f"{SEED} {name} {number}")
    row = row_of(name)
    row.injected += 1
    job_id = world.submit()
    wait_for(lambda: world.row(job_id).step, "the first step")
    time.sleep(rng.uniform(0, 0.8 * world.seconds))  # at its end there is nothing left to hurt
    began = time.time()
    fault(world, rng, job_id)
    state = world.ended(job_id)
    row.recovery_seconds.append(recovered(world, job_id, began) - began)
    row.attempts.append(world.row(job_id).attempt)
    row.lost += state != "succeeded"
    assert state == "succeeded", world.read(job_id).error
    check_once(world, row, job_id)
    row.wrong += dict(world.weights(job_id)) != world.expected
    assert dict(world.weights(job_id)) == world.expected
    try:
        wait_for(lambda: not world.left_behind(job_id), "a tidy store")
    except AssertionError:
        row.left_behind += 1
        raise AssertionError(f"left behind: {world.left_behind(job_id)}") from None


def recovered(world: World, job_id: UUID, began: float) -> float:
    """When a job that has ended had gone on after a fault: with its next attempt, if it took one.

    Else with its next event; a fault after its end cost nothing.
    """
    after = [e for e in world.events(job_id) if e.created_at.timestamp() > began]
    again = [e for e in after if e.kind == "state" and e.data["state"] == "running"]
    return min((e.created_at.timestamp() for e in again or after), default=began)


def check_once(world: World, row: Row, job_id: UUID) -> None:
    """One result; and no attempt wrote anything once another had begun."""
    events = world.events(job_id)
    states = [event.data["state"] for event in events if event.kind == "state"]
    assert states[0] == "queued"
    assert states[-1] == "succeeded"
    assert states.count("succeeded") == 1
    newest, double = 0, 0
    for event in events:
        told = int(event.data["attempt"])
        double += told < newest
        newest = max(newest, told)
    kinds = sorted(kind for kind, _ in world.weights(job_id))
    double += kinds != ["segmenter", "style", "stylefilter"]
    row.double += double
    assert double == 0, [(event.kind, event.data) for event in events]


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    with disk_of_its_own(folder, megabytes=160):
        yield folder


@pytest.fixture(scope="module")
def on_small_disk(small_disk: Path) -> Iterator[World]:
    with embedded_world(small_disk) as world:
        yield world


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_job_on_a_full_disk_fails_in_words_and_can_be_retried(
    on_small_disk: World, number: int
) -> None:
    """The right end is a failure that says why; with room again, a retry makes the same result."""
    world, name = on_small_disk, "embedded: disk_full"
    rng = random.Random(f"{SEED} {name} {number}")
    row = row_of(name)
    row.injected += 1
    job_id = world.submit()
    wait_for(lambda: world.row(job_id).step, "the first step")
    time.sleep(rng.uniform(0, world.seconds / 2))
    began = time.time()
    with (world.folder / "filler").open("wb", buffering=0) as filler:
        block = bytes(1 << 16)
        try:
            while True:
                filler.write(block)
        except OSError:
            pass
    # The database keeps a little room of its own: what was full stays so until the job has ended.
    deadline = time.monotonic() + 60
    while world.row(job_id).state not in ("failed", "succeeded") and time.monotonic() < deadline:
        time.sleep(0.2)
    (world.folder / "filler").unlink()
    state = world.ended(job_id)
    if state == "failed":
        error = world.read(job_id).error
        assert error is not None
        assert (error.code, "disk is full" in error.message) == ("disk_full", True), error
        world.retry(job_id)
        state = world.ended(job_id)
    row.recovery_seconds.append(time.time() - began)
    row.attempts.append(world.row(job_id).attempt)
    row.lost += state != "succeeded"
    assert state == "succeeded", world.read(job_id).error
    row.wrong += dict(world.weights(job_id)) != world.expected
    assert dict(world.weights(job_id)) == world.expected
    wait_for(lambda: not world.left_behind(job_id), "a tidy store")
