"""``stylefilter benchmark`` at its terminal: begun, stopped, gone on with, refused."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner, Result

from app.cli import benchmark
from app.cli.main import cli
from app.database import Database
from app.jobs.transitions import Failure, claim, fail, give_up_dependents, succeed
from app.settings import Settings
from app.storage import Storage
from app.tables import Dataset, Job, JobKind, JobState
from models.config.presets import preset
from models.table1.results import BenchmarkReport
from tests.app.files import grey, mask, png
from tests.processes import wait_for
from tests.worker.report.reports import made, row
from worker.report.files import write

Run = Callable[..., Result]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(api: httpx.Client, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on two folders of twelve sections, with further options; its service is ours."""
    monkeypatch.setattr(benchmark, "POLL_SECONDS", 0.02)
    for name, shift in (("source", 1), ("target", 101)):
        for kind in ("images", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        for n in range(12):
            (tmp_path / name / "images" / f"{n}.png").write_bytes(png(grey(n + shift)))
            (tmp_path / name / "masks" / f"{n}.png").write_bytes(png(mask()))
        meta = {"name": name, "classes": ["background", "organelle"], "pixel_size_nm": 4}
        (tmp_path / name / "meta.json").write_text(json.dumps(meta))

    def command(*options: str) -> Result:
        folders = [f"--{name}={tmp_path / name}" for name in ("source", "target")]
        fixed = ["--preset=smoke", "--folds=1", "--tile-px=16", "--row=source-only", "--row=cut"]
        where = [f"--out={out}", f"--url={api.base_url}"]
        return CliRunner().invoke(cli, ["benchmark", *folders, *fixed, *where, *options])

    return command


SOME_REPORT = made(row("source-only", mito=(0.5,), nucleus=(0.25,)), folds=1)


class Worker:
    """Ends jobs as a worker would, without their hours of training."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._storage, self._database = Storage(settings.data_folder), database

    def benchmarks(self) -> list[UUID]:
        query = select(Job.id).where(Job.kind == JobKind.BENCHMARK).order_by(Job.created_at)
        with self._database.reading() as session:
            return list(session.scalars(query))

    def num_datasets(self) -> int:
        with self._database.reading() as session:
            return session.execute(select(func.count()).select_from(Dataset)).scalar_one()

    def end_all(self, *failing: JobKind) -> None:
        """Succeed with whatever waits, but fail jobs of these kinds."""
        while (lease := claim(self._database, "here", 60)) is not None:
            with self._database.session() as session:
                job = session.get_one(Job, lease.job_id)
                if job.kind in failing:
                    fail(session, lease, Failure("failed", "it was too dark", ""))
                else:
                    if job.kind == JobKind.BENCHMARK:
                        self._report(job)
                    succeed(session, lease, {})
                give_up_dependents(session)
                session.commit()

    def _report(self, job: Job) -> None:
        folder = self._storage.attempt(job.id, job.attempt) / "report"
        folder.parent.mkdir(parents=True)
        write(SOME_REPORT, folder)
        (folder / "folds.json").write_text("{}\n")

    @contextmanager
    def ending(self, *failing: JobKind) -> Iterator[None]:
        """In a thread: wait for another benchmark than those that are there, and end it."""
        before = len(self.benchmarks())

        def work() -> None:
            wait_for(lambda: len(self.benchmarks()) > before, "the benchmark")
            self.end_all(*failing)

        thread = threading.Thread(target=work)
        thread.start()
        yield
        thread.join()


@pytest.fixture
def worker(settings: Settings, database: Database) -> Worker:
    return Worker(settings, database)


def test_the_report_is_fetched_and_the_same_command_changes_nothing(
    run: Run, worker: Worker, out: Path
) -> None:
    with worker.ending():
        ended = run()
    assert ended.exit_code == 0, ended.output
    assert re.search(r"pretrain fold 1: .*succeeded", ended.output)
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    reported = {"report.json", "report.md", "report.html", "folds.json"}
    assert there == {*reported, "charts/mean.svg", "charts/classes.svg", "charts/time.svg"} | {
        "benchmark.json"
    }
    table = BenchmarkReport.model_validate_json((out / "report.json").read_bytes())
    assert table == SOME_REPORT
    (out / "report.md").unlink()
    assert run().exit_code == 0
    assert (out / "report.md").exists()
    assert (len(worker.benchmarks()), worker.num_datasets()) == (1, 2)


def test_who_was_stopped_before_the_answer_gets_the_job_that_was_made(
    run: Run, worker: Worker, out: Path
) -> None:
    with worker.ending():
        assert run().exit_code == 0
    state = json.loads((out / "benchmark.json").read_text())
    (out / "benchmark.json").write_text(json.dumps(state | {"job": None}))
    assert run().exit_code == 0
    assert json.loads((out / "benchmark.json").read_text()) == state
    assert (len(worker.benchmarks()), worker.num_datasets()) == (1, 2)


def test_a_failed_benchmark_is_retried(run: Run, worker: Worker, database: Database) -> None:
    with worker.ending(JobKind.BENCHMARK):
        ended = run()
    assert ended.exit_code == 1
    assert f"job {worker.benchmarks()[0]}" in unwrapped(ended)
    assert "it was too dark" in unwrapped(ended)
    again = threading.Thread(target=lambda: (wait_until_queued(database), worker.end_all()))
    again.start()
    assert run().exit_code == 0
    again.join()
    assert len(worker.benchmarks()) == 1


def test_a_paused_benchmark_goes_on(
    run: Run, worker: Worker, api: httpx.Client, database: Database, out: Path
) -> None:
    with worker.ending(JobKind.BENCHMARK):
        run()
    (job,) = worker.benchmarks()
    assert api.post(f"/jobs/{job}/retry").status_code == 202
    assert api.post(f"/jobs/{job}/pause").json()["state"] == "paused"
    again = threading.Thread(target=lambda: (wait_until_queued(database), worker.end_all()))
    again.start()
    assert run().exit_code == 0
    again.join()
    assert (out / "report.json").exists()


def test_cells_that_failed_are_measured_by_another_benchmark(run: Run, worker: Worker) -> None:
    with worker.ending(JobKind.TRAIN_STYLE):
        assert run().exit_code == 0
    with worker.ending():
        assert run().exit_code == 0
    assert (len(worker.benchmarks()), worker.num_datasets()) == (2, 2)


def test_another_benchmark_is_not_begun_in_the_folder(run: Run, worker: Worker, out: Path) -> None:
    with worker.ending():
        assert run().exit_code == 0
    state = (out / "benchmark.json").read_bytes()
    ended = run("--seed=1")
    assert ended.exit_code == 1
    assert "--out" in unwrapped(ended)
    assert (out / "benchmark.json").read_bytes() == state
    assert len(worker.benchmarks()) == 1


def test_one_that_was_refused_may_be_begun_anew(run: Run, worker: Worker, out: Path) -> None:
    ended = run("--exclude=nucleus")
    assert ended.exit_code == 1
    assert "body.excluded: " in unwrapped(ended)
    assert unwrapped(ended).count("'nucleus'") == 1
    # Refused: what is mended in the folders is sent again; here nothing is, so nothing is added.
    assert (worker.num_datasets(), (out / "benchmark.json").exists()) == (2, False)
    with worker.ending():
        assert run().exit_code == 0
    assert (len(worker.benchmarks()), worker.num_datasets()) == (1, 2)
    (out / "benchmark.json").write_text("{")
    assert "damaged" in unwrapped(run())


@pytest.mark.parametrize("options", [["--row=best"], ["--label-tile=3"]])
def test_a_wrong_option_is_refused_before_anything_is_uploaded(
    run: Run, worker: Worker, options: list[str]
) -> None:
    ended = run(*options)
    assert ended.exit_code == 2
    assert worker.num_datasets() == 0


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("{", [], "no valid JSON"),
        ("[1]", [], "no JSON object"),
        ('{"seed": 2}', ["--seed=3"], "--seed"),
        ('{"pretrain": {"accumulate": 3}}', [], "config.pretrain: accumulate 3 does not divide"),
        ('{"style": {"filters": 3}}', [], "config.style.filters"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(
    run: Run, worker: Worker, tmp_path: Path, content: str, options: list[str], words: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    ended = run(f"--config={tmp_path / 'config.json'}", *options)
    assert ended.exit_code == 2
    assert words in unwrapped(ended).replace("│ ", "")
    assert worker.num_datasets() == 0


def test_a_part_of_a_config_is_checked_in_its_preset(
    run: Run, worker: Worker, api: httpx.Client, tmp_path: Path
) -> None:
    part = {"adaptation": {"accumulate": 4}}
    (tmp_path / "config.json").write_text(json.dumps(part))
    with worker.ending():
        ended = run(f"--config={tmp_path / 'config.json'}", "--preset=quick", "--seed=3")
    assert ended.exit_code == 0, ended.output
    (job,) = worker.benchmarks()
    whole = preset("quick").changed(part | {"seed": 3})
    assert api.get(f"/jobs/{job}").json()["config"] == whole.model_dump(mode="json")


def test_every_seed_is_asked_for(run: Run, worker: Worker, api: httpx.Client) -> None:
    with worker.ending():
        assert run("--seeds=0", "--seeds=1").exit_code == 0
    (job,) = worker.benchmarks()
    items = api.get("/jobs", params={"parent": str(job)}).json()["items"]
    assert len(items) == 6
    assert sum("seed 1:" in item["part"] for item in items) == 3
    assert run("--seeds=0", "--seed=1").exit_code == 2


def unwrapped(ended: Result) -> str:
    """What was said, as one line."""
    return " ".join(ended.output.split())


def wait_until_queued(database: Database) -> None:
    def is_queued() -> bool:
        query = select(Job.state).where(Job.kind == JobKind.BENCHMARK)
        with database.reading() as session:
            return session.scalars(query).one() == JobState.QUEUED

    wait_for(is_queued, "the benchmark to be queued")
