"""docker-compose.yml without Docker: what it promises, and its very commands as processes here."""

import base64
import io
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import numpy as np
import psycopg
import pytest
import redis
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.engine import make_url

from app.cli.synthetic.domain import CLASSES, write_domain
from app.client.client import Client
from app.datasets.schemas import DatasetCreate
from app.jobs.request_schemas import AdaptRequest
from app.labels.schemas import DeriveRequest
from app.settings import Settings
from app.tables import JobState
from tests.processes import DEADLINE_SECONDS, PACE, environment, exit_code, running, wait_for
from tests.s3 import ENVIRONMENT
from tests.services import free_port, without

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
PROMETHEUS = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
ALERTS = yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text())

ONE_SHOT = {"secrets", "migrate"}
OURS = {"migrate", "api", "worker"}


def plain(value: str, **variables: str) -> str:
    """A value as compose passes it on, by default when no variable is set."""

    def given(match: re.Match[str]) -> str:
        name, sign, word = match.groups()
        found = variables.get(name, "")
        return (found or word) if sign == ":-" else (found and word)

    rest = re.sub(r"\$\{(\w+)(:[-+])([^}]*)\}", given, value)
    assert "${" not in rest, value
    return rest.replace("$$", "$")


def test_every_lasting_service_has_a_health_check_and_none_sleeps() -> None:
    for name in SERVICES.keys() - ONE_SHOT:
        check = SERVICES[name]["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert {"interval", "timeout", "retries", "start_period"} <= check.keys()
    texts = [(ROOT / "docker-compose.yml").read_text()]
    texts += [path.read_text() for path in (ROOT / "docker").rglob("*") if path.is_file()]
    assert not any(re.search(r"\bsleep\b", text) for text in texts)


def test_services_start_in_order() -> None:
    conditions = {
        name: {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    done, healthy = "service_completed_successfully", "service_healthy"
    assert conditions == {
        "secrets": {},
        "postgres": {"secrets": done},
        "redis": {"secrets": done},
        "migrate": {"postgres": healthy},
        "api": {"migrate": done, "redis": healthy},
        "worker": {"migrate": done, "redis": healthy},
        "prometheus": {"api": healthy},
    }


def test_only_the_api_is_published_and_on_this_machine_alone() -> None:
    published = {name for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api"}
    assert [plain(port) for port in SERVICES["api"]["ports"]] == ["127.0.0.1:8000:8000"]
    assert not any("network_mode" in SERVICES[name] for name in SERVICES.keys() - {"secrets"})


def test_there_is_no_secret_in_it() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if value is None:
                continue  # given from outside, if at all
            if re.search("PASSWORD|SECRET", variable) and not variable.endswith("_FILE"):
                assert name == "secrets"
                assert plain(value) == "", "given from outside, and no default"
            assert urlsplit(str(value)).password is None
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    assert "PASSWORD" not in dockerfile
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_images_are_pinned_and_ours_runs_without_root() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name
        if name in OURS:
            assert service["build"]["dockerfile"] == "docker/Dockerfile"
            assert service["cap_drop"] == ["ALL"]
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim", dockerfile, re.MULTILINE)
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["stylefilter"]
    assert dockerfile.count("pip install --constraint constraints.txt") == 2


def test_the_worker_reserves_a_gpu_and_gets_time_to_hand_its_job_back() -> None:
    worker = SERVICES["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert plain(worker["environment"]["STYLEFILTER_DEVICE"]) == "cuda"
    assert worker["stop_grace_period"] == "30s"
    assert worker["shm_size"] == "2gb"


def test_data_is_shared_and_datasets_are_read_only() -> None:
    mounts = {name: [plain(v) for v in SERVICES[name].get("volumes", [])] for name in SERVICES}
    assert "data:/data" in mounts["api"]
    assert "data:/data" in mounts["worker"]
    assert "./datasets:/datasets:ro" in mounts["api"]
    for name in ("api", "worker"):
        assert plain(SERVICES[name]["environment"]["STYLEFILTER_DATA_ROOTS"]) == "/datasets"
    for name in SERVICES.keys() - {"secrets"}:
        assert all(m.endswith(":ro") for m in mounts[name] if m.startswith(("passwords:", "./")))


def test_every_variable_of_ours_is_a_setting() -> None:
    known = {f"STYLEFILTER_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        used = {v for v in SERVICES[name]["environment"] if v.startswith("STYLEFILTER_")}
        assert used
        assert used <= known


def test_the_image_reads_buckets_and_hdf5_and_gets_the_credentials() -> None:
    assert "'.[hdf5,remote]'" in (ROOT / "docker/Dockerfile").read_text()
    for name in ("api", "worker"):
        given = {v for v, value in SERVICES[name]["environment"].items() if value is None}
        assert given == {*ENVIRONMENT, "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"}


def secrets(folder: Path, **given: str) -> dict[str, str]:
    command = ["sh", str(ROOT / "docker/secrets.sh"), str(folder)]
    blank = {"POSTGRES_PASSWORD": "", "REDIS_PASSWORD": "", "WEBHOOK_SECRET": ""}
    subprocess.run(command, env=environment(blank | given), check=True)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_passwords_are_random_or_given_and_stay(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for folder in (first, second, third):
        folder.mkdir()
    made, other = secrets(first), secrets(second)
    assert made.keys() == {"postgres", "redis"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in made.values())
    assert len({*made.values(), *other.values()}) == 4
    # The readers run as other users.
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in first.iterdir())
    given = secrets(third, POSTGRES_PASSWORD="a b", REDIS_PASSWORD='c"d\\')
    assert given == {"postgres": "a b", "redis": 'c"d\\'}
    assert secrets(first, POSTGRES_PASSWORD="later") == made


def test_the_secret_of_webhooks_is_a_file_where_one_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(**given: str) -> Settings:
        """Of the API, once the passwords are written."""
        writer = SERVICES["secrets"]["environment"]
        written = secrets(tmp_path, **{name: plain(writer[name], **given) for name in writer})
        for name, value in SERVICES["api"]["environment"].items():
            if "WEBHOOK" in name:
                passed = plain(value, **given)
                assert given.get("STYLEFILTER_WEBHOOK_SECRET", "-") not in passed
                monkeypatch.setenv(name, passed.replace("/passwords", str(tmp_path)))
        assert written.get("webhook") == given.get("STYLEFILTER_WEBHOOK_SECRET")
        return Settings()

    without_one = settings()
    assert (without_one.webhook_secret, without_one.webhook_hosts) == (None, ())
    for key in (bytes(range(32)), bytes(24)):  # it may change
        text = f"whsec_{base64.b64encode(key).decode()}"
        hosts = "hooks.internal,10.0.0.7"
        found = settings(STYLEFILTER_WEBHOOK_SECRET=text, STYLEFILTER_WEBHOOK_HOSTS=hosts)
        assert found.webhook_secret == key
        assert found.webhook_hosts == ("hooks.internal", "10.0.0.7")
        assert (tmp_path / "webhook").stat().st_mode & 0o777 == 0o444
    assert settings().webhook_secret is None
    for name in OURS - {"api"}:
        assert not any("WEBHOOK" in variable for variable in SERVICES[name]["environment"])


@dataclass(frozen=True)
class Server:
    """The commands of the file, running."""

    url: str
    api: "subprocess.Popen[bytes]"
    worker: "subprocess.Popen[bytes]"
    redis: "subprocess.Popen[bytes]"
    variables: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    write_domain(root / "source", "source", num_sections=6, size_px=128, seed=3)
    write_domain(root / "target", "target", num_sections=6, size_px=128, seed=3)
    return root


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """URL of a database without a schema: migrate has all the work."""
    name = f"stylefilter_test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def local(name: str, addresses: dict[str, str], folder: Path) -> dict[str, str]:
    """A service's environment with names and paths of its containers replaced by local ones."""
    variables = {k: plain(v) for k, v in SERVICES[name]["environment"].items() if v is not None}
    for variable, value in variables.items():
        for remote, here in addresses.items():
            value = value.replace(remote, here)
        if value.startswith(("/data", "/passwords")):
            value = f"{folder}{value}"
        variables[variable] = value
    return variables | PACE


@pytest.fixture
def server(empty_database: str, pair: Path, tmp_path: Path) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        without("redis-server is not installed: its command cannot be tried")
    database, redis_port, port = make_url(empty_database), free_port(), free_port()
    passwords = tmp_path / "passwords"
    passwords.mkdir()
    secrets(passwords, POSTGRES_PASSWORD=database.password or "")
    addresses = {
        "stylefilter@postgres:5432/stylefilter": f"{database.username}@{database.host}"
        f":{database.port}/{database.database}",
        "redis:6379": f"127.0.0.1:{redis_port}",
        "/datasets": str(pair),
    }
    variables = {name: local(name, addresses, tmp_path) for name in OURS}
    (tmp_path / "data").mkdir()
    subprocess.run(
        SERVICES["migrate"]["command"],
        env=environment(variables["migrate"]),
        cwd=tmp_path,
        check=True,
        timeout=DEADLINE_SECONDS,
    )
    assert SERVICES["redis"]["command"] == ["sh", "/redis.sh", "/passwords/redis"]
    redis_command = ["sh", str(ROOT / "docker/redis.sh"), str(passwords / "redis")]
    redis_command += ["--port", str(redis_port), "--bind", "127.0.0.1"]
    api_command = [
        {"0.0.0.0": "127.0.0.1", "8000": str(port)}.get(word, word)
        for word in SERVICES["api"]["command"]
    ]
    with ExitStack() as stack:
        broker = stack.enter_context(running(redis_command, {}, tmp_path / "redis.log"))
        api = stack.enter_context(running(api_command, variables["api"], tmp_path / "api.log"))
        worker = stack.enter_context(
            running(SERVICES["worker"]["command"], variables["worker"], tmp_path / "worker.log")
        )
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            wait_for(client.ready, "/readyz")
        yield Server(url, api, worker, broker, variables)


def metric_names(url: str) -> dict[str, float]:
    """Samples of /metrics by name and labels."""
    text = urllib.request.urlopen(f"{url}/metrics", timeout=DEADLINE_SECONDS).read().decode()
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def healthy(name: str, server: Server) -> int:
    """Exit code of the service's own health check."""
    command = [
        word.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
        for word in SERVICES[name]["healthcheck"]["test"][1:]
    ]
    env = environment(server.variables[name])
    return subprocess.run(
        command, env=env, timeout=DEADLINE_SECONDS, check=False, capture_output=True
    ).returncode


@pytest.mark.services
@pytest.mark.slow
def test_the_commands_of_the_file_adapt_and_predict(server: Server, pair: Path) -> None:
    with Client(server.url) as client:
        source = client.register_folder(
            DatasetCreate(
                name="source", class_names=list(CLASSES), pixel_size_nm=8, folder="source"
            )
        )
        images, masks = (sorted((pair / "target" / kind).iterdir()) for kind in ("images", "masks"))
        target = client.upload_dataset(
            DatasetCreate(name="target", class_names=list(CLASSES), pixel_size_nm=10, tile_px=64),
            images,
            masks,
        )
        client.derive_labels(target.id, DeriveRequest(split="train"))
        # The file's own default is cuda, of which a test machine has none; predictions run on the
        # CPU by the file.
        body = {"source": source.id, "target": target.id, "preset": "smoke"}
        body["config"] = {"device": "cpu"}
        job = client.adapt(AdaptRequest.model_validate(body))
        wait_for(lambda: client.job(job.id).state == JobState.RUNNING, "the worker")
        assert healthy("worker", server) == 0, "while it works"
        *_, ended = client.watch(job.id)
        assert ended.state == JobState.SUCCEEDED, ended.error
        model = next(m for m in map(client.model, ended.models) if m.kind == "stylefilter")
        mask = np.asarray(
            Image.open(io.BytesIO(client.predict(images[0], {"model": str(model.id)})))
        )
        assert mask.shape == (128, 128)
        assert mask.dtype == np.uint8
        assert mask.max() < len(CLASSES)
    samples = metric_names(server.url)
    assert samples["stylefilter_jobs state=succeeded"] == 1
    assert samples["stylefilter_stage_duration_seconds_count stage=adapt"] == 1
    assert samples["stylefilter_predict_duration_seconds_count stylise=true"] == 1
    check_prometheus(server.url, samples)
    check_redis(server)

    assert healthy("api", server) == 0
    for process in (server.worker, server.api):
        process.send_signal(signal.SIGTERM)
    # uvicorn shuts down, then dies of the signal it was sent.
    assert exit_code(server.worker) == 0
    assert exit_code(server.api) in (0, -signal.SIGTERM)
    assert healthy("api", server) != 0
    assert healthy("worker", server) != 0


def check_redis(server: Server) -> None:
    """No password, no answer; and what the server must not forget or evict."""
    url = urlsplit(server.variables["worker"]["STYLEFILTER_BROKER_URL"])
    assert url.port is not None
    with (
        redis.Redis("127.0.0.1", url.port) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    password = Path(server.variables["worker"]["STYLEFILTER_BROKER_PASSWORD_FILE"]).read_text()
    with redis.Redis("127.0.0.1", url.port, password=password) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
    command_line = Path(f"/proc/{server.redis.pid}/cmdline")
    if command_line.exists():
        assert password.encode() not in command_line.read_bytes()


WORDS = {"and", "on", "instance", "lane", "sum", "rate", "delta"}


def check_prometheus(url: str, samples: dict[str, float]) -> None:
    """What Prometheus scrapes and asks for is what the service gives."""
    (scraped,) = PROMETHEUS["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["api:8000"]}]
    assert (
        urllib.request.urlopen(url + scraped["metrics_path"], timeout=DEADLINE_SECONDS).status
        == 200
    )
    assert [(ROOT / "docker/prometheus" / name).exists() for name in PROMETHEUS["rule_files"]] == [
        True
    ]
    exported = {name.split(" ")[0] for name in samples} | {"up"}
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 3
    for rule in rules:
        asked = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", rule["expr"])
        names = set(re.findall(r"[a-z_]{2,}", asked)) - WORDS
        assert names
        assert names <= exported, rule["alert"]
        for state in re.findall(r'state="(\w+)"', rule["expr"]):
            assert f"stylefilter_jobs state={state}" in samples
        for job in re.findall(r'job="(\w+)"', rule["expr"]):
            assert job == scraped["job_name"]
