"""Reads the settings of the service from environment variables, all named ``STYLEFILTER_...``.

No other module reads the environment. Without any variable the service runs in embedded mode: with
SQLite as its database and files as its broker, both in the data folder.
"""

import base64
import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.tables import Lane
from models.config.stages import Device

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_SECRET_BYTES = 24

_ROOT = re.compile(r"[a-z][a-z0-9]*://(?:[^@/]*@)?[^:/]*(?::[0-9]+(?=[:/]|$))?[^:]*|[^:]+")
"""A data root in a list of them: the colons of an address part nothing."""

_SECRETS = re.compile(r"(?<=://).*(?=@)|(?<=\?).*", re.DOTALL)

_URL = re.compile(r"(s3://[^/?#@:]+|https?://[^/?#@:]+(:[0-9]+)?)(/[^?#]*)?")


class Settings(BaseSettings):
    """The settings of the API, the workers and their trainers."""

    model_config = SettingsConfigDict(
        env_prefix="STYLEFILTER_",
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # addresses hold passwords
    )

    data_folder: Path = Field(
        Path("stylefilter-data"),
        description="The folder of datasets, weights and, in embedded mode, the database and the "
        "broker.",
    )
    database_url: str = Field(
        "", description="The URL of the database; empty for SQLite in the data folder."
    )
    database_password_file: Path | None = Field(
        None, description="A file that holds the password of the database URL."
    )
    broker_url: str = Field(
        "", description="The URL of Celery's broker; empty for files in the data folder."
    )
    broker_password_file: Path | None = Field(
        None, description="A file that holds the password of the broker URL."
    )
    data_roots: Annotated[tuple[Path | str, ...], NoDecode] = Field(
        (),
        description="The folders whose subfolders may be registered as datasets, separated by "
        "colons. An address is a folder, too: s3://bucket/folder, https://... or http://.... "
        "Credentials for S3 come from the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "AWS_REGION, and AWS_ENDPOINT_URL names a server other than Amazon's.",
    )
    results_url: str | None = Field(
        None,
        description="The place that the results of jobs are copied to: s3://bucket/folder, or the "
        "path of a folder. Credentials come from the same variables.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("localhost", "127.0.0.1", "::1"),
        description="The host names that the API answers to, separated by commas; * stands for "
        "all names.",
    )
    webhook_secret_file: Path | None = Field(
        None,
        description="A file that holds the key to sign webhooks with: whsec_ and then at least 24 "
        "random bytes in base64. Without it no webhooks are sent.",
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="The hosts that may receive webhooks at private addresses too, separated by "
        "commas. All other hosts receive them at public addresses only.",
    )
    device: Device = Field("cpu", description="The device that jobs train on by default.")
    predict_device: Device | None = Field(
        None, description="The device that predicts; without it, the device that jobs train on."
    )
    threads: int = Field(
        0, ge=0, description="The number of CPU threads of torch; 0 leaves the choice to torch."
    )

    lanes: Annotated[tuple[Lane, ...], NoDecode] = Field(
        tuple(Lane),
        description="The lanes from which a worker takes jobs, separated by commas: gpu-train, "
        "gpu-infer, cpu.",
    )
    max_attempts: int = Field(
        5,
        ge=1,
        le=100,
        description="The number of attempts that a job may lose with its worker or trainer before "
        "it fails.",
    )

    lease_seconds: float = Field(
        60,
        gt=0,
        description="The time for which a worker holds a job. If the worker does not renew this "
        "lease, the job is given to another worker.",
    )
    heartbeat_seconds: float = Field(
        10, gt=0, description="The interval at which a worker renews its lease."
    )
    cancel_grace_seconds: float = Field(
        30, gt=0, description="The time after which the trainer of a cancelled job is killed."
    )
    stop_grace_seconds: float = Field(
        10,
        gt=0,
        description="The time that a trainer has to save its state when its worker stops; then "
        "the trainer is killed.",
    )
    checkpoint_seconds: float = Field(
        60, ge=0, description="The interval at which a running stage saves its state."
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="The number of processes that train one job together, each on a GPU of its "
        "own.",
    )
    memory_bytes: int | None = Field(
        None,
        gt=0,
        description="The main memory that a job may take. Without it this is the memory of the "
        "machine or container; with a broker URL the API then checks no memory, because the worker "
        "may run on another machine.",
    )
    gpu_memory_bytes: int | None = Field(
        None,
        gt=0,
        description="The memory of each of the workers' GPUs. Without it the API checks no GPU "
        "memory.",
    )
    reconcile_seconds: float = Field(
        2, gt=0, description="The interval at which the reconciler looks at the jobs."
    )
    announce_again_seconds: float = Field(
        5,
        gt=0,
        description="The time after which a waiting job is announced to the workers again. It "
        "doubles each time, up to 60 s.",
    )

    metrics_days: float | None = Field(
        None,
        gt=0,
        description="The days after the end of a job until its metrics and events are deleted. "
        "Without it they are kept for ever.",
    )
    failed_checkpoint_days: float = Field(
        7,
        ge=0,
        description="The days for which the saved state of a failed job is kept, for a retry.",
    )

    max_upload_bytes: int = Field(
        8 << 30, gt=0, description="The largest body of POST /datasets, in bytes."
    )
    register_now_bytes: int = Field(
        1 << 26,
        ge=0,
        description="The most bytes of files, and of pixels in them, that are registered within "
        "the request; a job registers larger datasets.",
    )
    max_predict_bytes: int = Field(
        1 << 28, gt=0, description="The largest image file of POST /predict, in bytes."
    )
    max_section_pixels: int = Field(
        1 << 28, gt=0, description="The most pixels of a section, as registered and as resampled."
    )
    max_predict_pixels: int = Field(
        1 << 24, gt=0, description="The most pixels of an image to predict."
    )
    heavy_threads: int = Field(
        2,
        ge=1,
        le=64,
        description="The most requests that decode or draw images, or write many labels, at once.",
    )
    heavy_queue: int = Field(
        16,
        ge=0,
        description="The most of these requests that may wait; more are refused with 503.",
    )
    predict_queue: int = Field(
        16, ge=1, description="The most predictions that may wait; more are refused with 503."
    )
    predict_models: int = Field(2, ge=1, description="The most trained models kept in memory.")

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(map(_root, _ROOT.findall(value)))
        return value

    @field_validator("results_url")
    @classmethod
    def _check_results(cls, value: str | None) -> str | None:
        if value is None:
            return None
        root = _root(value)
        if isinstance(root, Path):
            return str(root.absolute())
        if not root.startswith("s3://"):
            raise ValueError("names a web server, which takes no files: give s3://bucket/folder")
        return root

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
        """The SQLAlchemy URL of the database, with its password filled in."""
        url = self.database_url or f"sqlite:///{self.data_folder / 'stylefilter.db'}"
        if url.startswith("postgresql://"):
            url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
        return _with_password(url, self.database_password_file)

    @property
    def broker(self) -> str:
        """The URL of Celery's broker, with its password filled in."""
        return _with_password(self.broker_url or "filesystem://", self.broker_password_file)

    @property
    def webhook_secret(self) -> bytes | None:
        """The key to sign webhooks with; None if no webhooks are sent."""
        file = self.webhook_secret_file
        if file is None:
            return None
        try:
            key = base64.b64decode(file.read_text().strip().removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if len(key) < _SECRET_BYTES:
            raise ValueError(
                f"{file}, which STYLEFILTER_WEBHOOK_SECRET_FILE names, holds no key for webhooks: "
                f"write whsec_ and then at least {_SECRET_BYTES} random bytes in base64"
            )
        return key

    @property
    def job_memory_bytes(self) -> int | None:
        """The main memory that a job may take; None if the API cannot know it."""
        if self.memory_bytes is None and not self.broker_url:
            return machine_memory_bytes()
        return self.memory_bytes


class WrongSetting(ValueError):
    """An environment variable holds a value that is not allowed."""


def read_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        WrongSetting: the message names each variable that is wrong, its value and the reason. Of
            an address it does not show what may be a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = [
            f"STYLEFILTER_{str(each['loc'][0]).upper()} is {_shown(each['input'])}: {each['msg']}"
            for each in error.errors()
        ]
        raise WrongSetting("; ".join(wrong)) from None


def _shown(value: object) -> str:
    """Return a value for a message, without user, password and query of the addresses in it."""
    return repr(_SECRETS.sub("...", str(value)))


def _root(part: str) -> Path | str:
    """Return a data root: a path, or the address of a folder elsewhere."""
    if "://" not in part:
        return Path(part)
    if part.startswith("file://"):
        return Path(unquote(urlsplit(part).path))
    if not _URL.fullmatch(part):
        raise ValueError(
            "holds an address that is not read: give s3://bucket/folder, or https://server/folder, "
            "without a password, a question mark or a #"
        )
    return part


@cache
def machine_memory_bytes() -> int:
    """Return the main memory of this machine or, if it is less, that of its container."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # control groups, version 2 and 1
        with suppress(OSError, ValueError):  # no such file, or it holds the word "max"
            limits.append(int((_CONTROL_GROUPS / name).read_text()))
    return min(limits)


def _with_password(url: str, password_file: Path | None) -> str:
    if password_file is None:
        return url
    parts = urlsplit(url)
    password = quote(password_file.read_text().strip(), safe="")
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{password}@{address}"))
