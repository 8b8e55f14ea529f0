"""A whole service of real processes that can be hurt: database, broker, API, two workers."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import psycopg
import redis
from sqlalchemy import select

from app.cli.synthetic.domain import CLASSES, write_domain
from app.client.client import Client
from app.database import Database
from app.datasets.schemas import DatasetCreate
from app.jobs.request_schemas import AdaptRequest
from app.jobs.schemas import JobRead
from app.labels.schemas import DeriveRequest
from app.tables import Job, JobEvent, TrainedModel
from tests.processes import PACE, environment, processes_of, wait_for
from tests.services import OwnPostgres, OwnRedis, free_port, own_postgres, own_redis

LEASE_SECONDS = float(PACE["STYLEFILTER_LEASE_SECONDS"])
"""Within which a job has to end, whatever happens to it."""

CONFIG = {
    "style": {"steps": 60},
    "pretrain": {"steps": 60, "validate_every_steps": 20},
    "adaptation": {"steps": 60, "validate_every_steps": 20},
}
"""Some ten seconds of training, in all three stages."""

API = ["-m", "uvicorn", "app.main:create_app", "--factory", "--log-level", "warning"]
WORKER = ["-m", "worker.main"]
UP = ["-m", "app.cli.main", "up"]


@dataclass
class Process:
    """A process of the service and how to start it again."""

    name: str
    command: list[str]
    variables: dict[str, str]
    log: Path
    running: "subprocess.Popen[bytes] | None" = None

    def start(self, **more: str) -> None:
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                [sys.executable, *self.command],
                env=environment(self.variables | more),
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self.running is not None
        self.running.send_signal(number)
        self.running.wait()

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid


@dataclass
class World:
    """The service, what it was given, and what an undisturbed run makes of it."""

    folder: Path
    url: str
    database: Database
    processes: dict[str, Process]
    source: UUID
    target: UUID
    postgres: OwnPostgres | None = None
    redis: OwnRedis | None = None
    expected: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    """From the first step to the end of an undisturbed run."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def workers(self) -> list[Process]:
        return [process for name, process in self.processes.items() if "worker" in name]

    def submit(self, **more: Any) -> UUID:
        body = {"source": self.source, "target": self.target, "preset": "smoke", "reuse": False}
        request = AdaptRequest.model_validate(body | {"config": CONFIG} | more)
        with Client(self.url) as client:
            wait_for(client.ready, "/readyz")  # it may have been started a moment ago
            return client.adapt(request).id

    def retry(self, job_id: UUID) -> None:
        with Client(self.url) as client:
            client.retry(job_id)

    def row(self, job_id: UUID) -> Job:
        with self.database.reading() as session:
            return session.get_one(Job, job_id)

    def read(self, job_id: UUID) -> JobRead:
        with Client(self.url) as client:
            return client.job(job_id)

    def ended(self, job_id: UUID) -> str:
        """The state a job ends in."""
        ends = ("succeeded", "failed", "cancelled")

        def state() -> str | None:
            found = self.row(job_id).state
            return found if found in ends else None

        return str(wait_for(patient(state), f"the end of job {job_id}"))

    def events(self, job_id: UUID) -> list[JobEvent]:
        query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
        with self.database.reading() as session:
            return list(session.scalars(query))

    def weights(self, job_id: UUID) -> list[tuple[str, bytes]]:
        """The weight files of all models that a job registered."""
        query = select(TrainedModel).where(TrainedModel.job_id == job_id)
        with self.database.reading() as session:
            return [
                (row.kind, (self.data / row.path / "weights.safetensors").read_bytes())
                for row in session.scalars(query)
            ]

    def trainers(self) -> dict[int, str]:
        """Trainer processes by id."""
        return {
            pid: line for pid, line in processes_of(self.data).items() if "worker.trainer" in line
        }

    def left_behind(self, job_id: UUID) -> list[str]:
        """What an ended job should not have left in the store, or running."""
        folder = self.data / "jobs" / str(job_id)
        row = self.row(job_id)
        wanted = {"logs", "pictures"}
        if row.state == "succeeded":
            wanted.add(str(row.attempt))
        if row.state == "failed":
            wanted.add("checkpoints")  # for a retry
        left = [str(path) for path in folder.iterdir() if path.name not in wanted]
        left += [str(path) for path in (self.data / "incoming").iterdir()]
        left += [str(path) for path in folder.rglob("work")]
        return left + [line for line in self.trainers().values() if str(job_id) in line]


def patient(condition: Callable[[], Any]) -> Callable[[], Any]:
    """A condition that is not met while the database is away."""

    def asked() -> Any:
        try:
            return condition()
        except Exception:  # noqa: BLE001 - of any driver: it is asked again, until its time is up
            return None

    return asked


@contextmanager
def server_world(folder: Path) -> Iterator[World]:
    """PostgreSQL and Redis of its own, the API, two workers."""
    with ExitStack() as stack:
        postgres = stack.enter_context(own_postgres())
        broker = stack.enter_context(own_redis())
        variables = {
            "STYLEFILTER_DATABASE_URL": postgres.url,
            "STYLEFILTER_BROKER_URL": broker.url,
        }
        port = free_port()
        commands = {
            "api": [*API, "--port", str(port)],
            "worker-1": WORKER,
            "worker-2": WORKER,
        }
        world = stack.enter_context(_world(folder, variables, commands, f"http://127.0.0.1:{port}"))
        world.postgres, world.redis = postgres, broker
        yield world


@contextmanager
def embedded_world(folder: Path) -> Iterator[World]:
    """`stylefilter up`: SQLite, messages in files, one worker that the API's process starts."""
    port = free_port()
    commands = {"up": [*UP, "--port", str(port)]}
    with _world(folder, {}, commands, f"http://127.0.0.1:{port}") as world:
        yield world


@contextmanager
def _world(
    folder: Path, variables: Mapping[str, str], commands: Mapping[str, list[str]], url: str
) -> Iterator[World]:
    names: tuple[Literal["source", "target"], ...] = ("source", "target")
    for name in names:
        write_domain(folder / "roots" / name, name, num_sections=6, size_px=128, seed=3)
    settings = PACE | {
        "STYLEFILTER_DATA_FOLDER": str(folder / "data"),
        "STYLEFILTER_DATA_ROOTS": str(folder / "roots"),
        "STYLEFILTER_CHECKPOINT_SECONDS": "0.5",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    database = Database(
        settings.get("STYLEFILTER_DATABASE_URL", "").replace("postgresql:", "postgresql+psycopg:")
        or f"sqlite:///{folder / 'data' / 'stylefilter.db'}"
    )
    database.migrate()
    processes = {
        name: Process(name, command, settings, folder / f"{name}.log")
        for name, command in commands.items()
    }
    try:
        for process in processes.values():
            process.start()
        with Client(url) as client:
            wait_for(client.ready, "/readyz")
            source, target = (
                client.register_folder(
                    DatasetCreate(
                        name=name,
                        class_names=list(CLASSES),
                        pixel_size_nm=nm,
                        folder=name,
                        tile_px=tile_px,
                    )
                ).id
                for name, nm, tile_px in (("source", 8.0, None), ("target", 10.0, 64))
            )
            client.derive_labels(target, DeriveRequest(split="train"))
        world = World(folder, url, database, processes, source, target)
        undisturbed = world.submit()
        wait_for(lambda: world.row(undisturbed).step, "the first step")
        began = time.monotonic()
        assert world.ended(undisturbed) == "succeeded", world.read(undisturbed).error
        world.seconds = time.monotonic() - began
        world.expected = dict(world.weights(undisturbed))
        assert len(world.expected) == 3
        yield world
    finally:
        for process in processes.values():
            if process.running is not None and process.running.poll() is None:
                process.running.send_signal(signal.SIGCONT)
                process.end(signal.SIGKILL)
        wait_for(lambda: not processes_of(folder / "data"), "the end of all processes")
        database.close()


# --- faults ---------------------------------------------------------------------------------------


def trainer_killed(world: World, rng: random.Random, job_id: UUID) -> None:
    for pid in world.trainers():
        os.kill(pid, signal.SIGKILL)


def worker_killed(world: World, rng: random.Random, job_id: UUID) -> None:
    """The whole worker that holds the job; its service manager starts another."""
    holder = _holder(world, job_id)
    holder.end()
    time.sleep(rng.uniform(0, 2))
    holder.start()


def worker_stopped(world: World, rng: random.Random, job_id: UUID) -> None:
    """As by a new version that is deployed."""
    holder = _holder(world, job_id)
    holder.end(signal.SIGTERM)
    holder.start()


def worker_frozen(world: World, rng: random.Random, job_id: UUID) -> None:
    """Worker and trainer sleep through their lease, and wake when another has the job."""
    holder = _holder(world, job_id)
    pids = [holder.pid, *world.trainers()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + rng.uniform(2, 5))
    for pid in pids:
        with suppress(ProcessLookupError):  # the worker that woke has ended its trainer
            os.kill(pid, signal.SIGCONT)


def api_killed(world: World, rng: random.Random, job_id: UUID) -> None:
    world.processes["api"].end()
    time.sleep(rng.uniform(0, 2))
    world.processes["api"].start()


def redis_restarted(world: World, rng: random.Random, job_id: UUID) -> None:
    """It forgets all messages."""
    assert world.redis is not None
    world.redis.stop(rng.choice([signal.SIGTERM, signal.SIGKILL]))
    time.sleep(rng.uniform(0, 3))
    world.redis.start()


def redis_flushed(world: World, rng: random.Random, job_id: UUID) -> None:
    assert world.redis is not None
    with redis.Redis.from_url(world.redis.url) as client:
        client.flushall()


def database_restarted(world: World, rng: random.Random, job_id: UUID) -> None:
    assert world.postgres is not None
    world.postgres.stop(rng.choice([signal.SIGINT, signal.SIGQUIT]))
    time.sleep(rng.uniform(0, 3))
    world.postgres.start()


def database_connections_cut(world: World, rng: random.Random, job_id: UUID) -> None:
    assert world.postgres is not None
    with psycopg.connect(world.postgres.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )


def message_repeated(world: World, rng: random.Random, job_id: UUID) -> None:
    """At once to both workers, and late."""
    _announce(world, job_id, times=10)


def workers_raced(world: World, rng: random.Random, job_id: UUID) -> None:
    """The job loses its trainer; both workers are told again and again while it may be taken up."""
    trainer_killed(world, rng, job_id)
    ends = time.monotonic() + 4
    while time.monotonic() < ends:
        _announce(world, job_id, times=2)
        time.sleep(rng.uniform(0, 0.1))


def _announce(world: World, job_id: UUID, *, times: int) -> None:
    from app.jobs.queue import JobQueue
    from app.settings import Settings

    variables = next(iter(world.processes.values())).variables
    queue = JobQueue(
        Settings(
            data_folder=world.data,
            broker_url=variables.get("STYLEFILTER_BROKER_URL", ""),
        )
    )
    for _ in range(times):
        queue.announce(job_id, "cpu")
    queue.close()


def messages_lost(world: World, rng: random.Random, job_id: UUID) -> None:
    if world.redis is not None:
        redis_flushed(world, rng, job_id)
    for path in (world.data / "broker" / "messages").glob("*.msg"):
        path.unlink(missing_ok=True)


def clock_shifted(world: World, rng: random.Random, job_id: UUID) -> None:
    """The worker that holds the job is replaced by one whose clock is an hour off."""
    holder = _holder(world, job_id)
    holder.end()
    holder.start(**_shifted_clock(world, rng))


def _shifted_clock(world: World, rng: random.Random) -> dict[str, str]:
    """Variables of a process whose clock is an hour off."""
    shift = world.folder / "shifted"
    shift.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("shifted_clock.py"), shift / "sitecustomize.py")
    return {"PYTHONPATH": str(shift), "SHIFTED_SECONDS": str(rng.choice([-3600, 3600]))}


def embedded_worker_killed(world: World, rng: random.Random, job_id: UUID) -> None:
    (pid,) = [pid for pid, line in processes_of(world.data).items() if "worker.main" in line]
    os.kill(pid, signal.SIGKILL)


def embedded_worker_frozen(world: World, rng: random.Random, job_id: UUID) -> None:
    """The only worker and its trainer sleep through their lease."""
    pids = [pid for pid, line in processes_of(world.data).items() if "worker.main" in line]
    pids += list(world.trainers())
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + rng.uniform(2, 5))
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def service_shifted(world: World, rng: random.Random, job_id: UUID) -> None:
    """`stylefilter up` is started anew with a clock that is an hour off."""
    world.processes["up"].end(signal.SIGINT)
    world.processes["up"].start(**_shifted_clock(world, rng))


def service_killed(world: World, rng: random.Random, job_id: UUID) -> None:
    """`stylefilter up`, and with it all: started again by its user."""
    world.processes["up"].end()
    wait_for(lambda: not processes_of(world.data), "the end of all processes")
    world.processes["up"].start()


def service_stopped(world: World, rng: random.Random, job_id: UUID) -> None:
    world.processes["up"].end(signal.SIGINT)
    world.processes["up"].start()


def _holder(world: World, job_id: UUID) -> Process:
    """The worker that holds the job; any, where none does at the moment."""
    owner = world.row(job_id).lease_owner or ""
    holders = [worker for worker in world.workers if owner.endswith(f":{worker.pid}")]
    return holders[0] if holders else world.workers[0]


Fault = Callable[[World, random.Random, UUID], None]

SERVER_FAULTS: list[Fault] = [
    trainer_killed,
    worker_killed,
    worker_stopped,
    worker_frozen,
    api_killed,
    redis_restarted,
    redis_flushed,
    database_restarted,
    database_connections_cut,
    message_repeated,
    messages_lost,
    workers_raced,
    clock_shifted,
]
EMBEDDED_FAULTS: list[Fault] = [
    trainer_killed,
    embedded_worker_killed,
    service_killed,
    service_stopped,
    service_shifted,
    embedded_worker_frozen,
    message_repeated,
    messages_lost,
]
