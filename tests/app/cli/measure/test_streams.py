"""The measurement of event streams, in small: a real service, a real training, real streams."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.measure.stream_figures import Figures
from app.database import Database
from tests.app.records import add_waiting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc"),
]


def test_one_run_measures_all(tmp_path: Path, database: Database, database_url: str) -> None:
    out = tmp_path / "figures.json"
    command = ["measure", "streams", "--number", "3", "--jobs", "1", "--pairs", "2"]
    command += ["--seconds", "1", "--database-url", database_url, "--out", str(out)]
    ran = CliRunner().invoke(cli, command)
    assert ran.exit_code == 0, ran.output
    figures = Figures.model_validate_json(out.read_bytes())
    assert figures.database == database.engine.dialect.name
    assert [window.streams for window in figures.windows] == [0, 3, 3, 0]
    none, some, some_more, none_again = figures.windows
    ratios = (
        some.steps_per_second / none.steps_per_second,
        some_more.steps_per_second / none_again.steps_per_second,
    )
    assert figures.ratio == pytest.approx(sum(ratios) / 2)
    first, third = figures.ratio_quartiles
    assert min(ratios) <= first <= figures.ratio <= third <= max(ratios)
    assert min(none.steps_per_second, some.clients_cpu_share) > 0
    assert 0 <= none.api_cpu_share < 2  # in ticks of 10 ms: an idle second may count as nothing
    assert 20e6 < none.api_rss_bytes < 2e9
    assert figures.delays.arrivals >= 2 * 3  # by each stream, in both of its windows
    assert 0 < figures.delays.median <= figures.delays.percentile_95
    (start,) = figures.starts
    assert 0 < start.claim_to_stage < start.claim_to_step < start.submission_to_step
    assert start.claim_to_stage < start.submission_to_stage
    for words in ("3 streams", "training steps per second", "from claim to first stage"):
        assert words in ran.output


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_used_database_is_refused(database: Database, database_url: str) -> None:
    add_waiting(database)
    ran = CliRunner().invoke(cli, ["measure", "streams", "--database-url", database_url])
    assert ran.exit_code == 2
    assert "empty" in ran.output
