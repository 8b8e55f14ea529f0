"""The only reader of the environment. Every variable starts with ``STYLEFILTER_``."""

import base64
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.tables import Lane
from models.config import Device

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_SECRET_BYTES = 24


class Settings(BaseSettings):
    """Where things are and how long they may take; without any variable, embedded mode."""

    model_config = SettingsConfigDict(
        env_prefix="STYLEFILTER_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    data_folder: Path = Field(
        Path("stylefilter-data"),
        description="Datasets, weights and, in embedded mode, the database and the broker.",
    )
    database_url: str = Field("", description="Empty: SQLite in the data folder.")
    database_password_file: Path | None = Field(
        None, description="File whose content becomes the password of the database URL."
    )
    broker_url: str = Field("", description="Empty: Celery over files in the data folder.")
    broker_password_file: Path | None = Field(
        None, description="File whose content becomes the password of the broker URL."
    )
    data_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders datasets may be registered from, separated by colons."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("localhost", "127.0.0.1", "::1"),
        description="Host names the API answers to, separated by commas; * answers to all.",
    )
    webhook_secret_file: Path | None = Field(
        None,
        description="File that signs webhooks: whsec_ and 24 random bytes or more in base64. "
        "None: there are no webhooks.",
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts that may get webhooks at any address, separated by commas; all others "
        "only at public addresses.",
    )
    device: Device = Field("cpu", description="Where jobs train by default.")
    predict_device: Device | None = Field(
        None, description="Where predictions run; none: where jobs train."
    )
    threads: int = Field(0, ge=0, description="CPU threads of torch; 0 leaves its own choice.")

    lanes: Annotated[tuple[Lane, ...], NoDecode] = Field(
        tuple(Lane), description="What a worker takes: gpu-train, gpu-infer, cpu; by commas."
    )
    max_attempts: int = Field(
        5, ge=1, le=100, description="Attempts of a job that keeps losing its worker or trainer."
    )

    lease_seconds: float = Field(60, gt=0, description="A job silent for longer is lost.")
    heartbeat_seconds: float = Field(10, gt=0, description="Interval of lease renewals.")
    cancel_grace_seconds: float = Field(30, gt=0, description="Then a trainer is killed.")
    stop_grace_seconds: float = Field(
        10, gt=0, description="A trainer told to stop saves its state; then it is killed."
    )
    checkpoint_seconds: float = Field(
        60, ge=0, description="Interval at which a running stage saves its state."
    )
    processes: int = Field(
        1, ge=1, le=64, description="Processes that train one job together, a GPU for each."
    )
    memory_bytes: int | None = Field(
        None,
        gt=0,
        description="Memory a job may take; none: what this machine or its container has, and in "
        "server mode unknown to the API, whose machine need not be the worker's.",
    )
    gpu_memory_bytes: int | None = Field(
        None, gt=0, description="Memory of the workers' GPUs; none: unknown to the API."
    )
    reconcile_seconds: float = Field(2, gt=0, description="Interval of the reconciler.")
    announce_again_seconds: float = Field(
        5, gt=0, description="A queued job is announced again after this; doubles up to 60 s."
    )

    metrics_days: float | None = Field(
        None,
        gt=0,
        description="Metrics and events of a job are deleted so long after its end; none: never.",
    )
    failed_checkpoint_days: float = Field(
        7, ge=0, description="So long what a failed job saved is kept for a retry to go on from."
    )

    max_upload_bytes: int = Field(8 << 30, gt=0, description="Largest body of POST /datasets.")
    max_predict_bytes: int = Field(1 << 28, gt=0, description="Largest body of POST /predict.")
    max_section_pixels: int = Field(1 << 28, gt=0, description="Largest section, pixels.")
    max_predict_pixels: int = Field(1 << 24, gt=0, description="Largest predicted image, pixels.")
    predict_queue: int = Field(16, ge=1, description="Waiting predictions before 503.")
    predict_models: int = Field(2, ge=1, description="Trained models kept in memory.")

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(":") if part)
        return value

    @field_validator("allowed_hosts", "webhook_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("lanes", mode="before")
    @classmethod
    def _split_lanes(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("data_folder", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.absolute()  # workers and trainers may run in another folder

    @property
    def database(self) -> str:
        """SQLAlchemy URL with its password filled in."""
        url = self.database_url or f"sqlite:///{self.data_folder / 'stylefilter.db'}"
        if url.startswith("postgresql://"):
            url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
        return _with_password(url, self.database_password_file)

    @property
    def broker(self) -> str:
        """Celery broker URL with its password filled in."""
        return _with_password(self.broker_url or "filesystem://", self.broker_password_file)

    @property
    def webhook_secret(self) -> bytes | None:
        """Key of the signatures; None: there are no webhooks."""
        file = self.webhook_secret_file
        if file is None:
            return None
        try:
            key = base64.b64decode(file.read_text().strip().removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if len(key) < _SECRET_BYTES:
            raise ValueError(f"{file} must hold whsec_ and {_SECRET_BYTES} bytes or more in base64")
        return key

    @property
    def job_memory_bytes(self) -> int | None:
        """Memory a job may take, as far as the API knows."""
        if self.memory_bytes is None and not self.broker_url:
            return machine_memory_bytes()
        return self.memory_bytes


@cache
def machine_memory_bytes() -> int:
    """What this machine has, or what the container it is lets a process have."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # control groups, version 2 and 1
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            limits.append(int((_CONTROL_GROUPS / name).read_text()))
    return min(limits)


def _with_password(url: str, password_file: Path | None) -> str:
    if password_file is None:
        return url
    parts = urlsplit(url)
    password = quote(password_file.read_text().strip(), safe="")
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{password}@{address}"))
