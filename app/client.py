"""A typed client of the HTTP API."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from uuid import UUID

import httpx
from pydantic import ValidationError

from app.datasets.schemas import DatasetCreate, DatasetReport
from app.jobs.schemas import AdaptRequest, JobRead
from app.labels.schemas import DeriveRequest, LabelsSummary, LabelsUpdate
from app.registry.schemas import ModelRead
from app.tables import UNFINISHED


class ApiError(Exception):
    """The service refused a request, or cannot be reached; says why."""


class Client:
    """Talks to one service. Use it as a context manager."""

    def __init__(self, url: str, timeout_seconds: float = 600) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def ready(self) -> bool:
        """Whether the service answers and says it is ready."""
        try:
            return self._http.get("/readyz", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    def upload_dataset(
        self, metadata: DatasetCreate, images: Sequence[Path], masks: Sequence[Path] = ()
    ) -> DatasetReport:
        """Register files of this machine as a dataset."""
        with ExitStack() as opened:
            files = [
                (kind, (path.name, opened.enter_context(closing(_FileOnDemand(path)))))
                for kind, paths in (("images", images), ("masks", masks))
                for path in paths
            ]
            data = {"metadata": metadata.model_dump_json(exclude_none=True)}
            response = self._send("POST", "/datasets", data=data, files=files)
        return DatasetReport.model_validate_json(response.content)

    def register_folder(self, metadata: DatasetCreate) -> DatasetReport:
        """Register a folder of the service's machine."""
        response = self._send("POST", "/datasets", json=metadata.model_dump(mode="json"))
        return DatasetReport.model_validate_json(response.content)

    def put_labels(self, dataset: UUID, labels: LabelsUpdate) -> LabelsSummary:
        body = labels.model_dump(mode="json")
        response = self._send("PUT", f"/datasets/{dataset}/labels", json=body)
        return LabelsSummary.model_validate_json(response.content)

    def derive_labels(self, dataset: UUID, request: DeriveRequest) -> LabelsSummary:
        body = request.model_dump(mode="json")
        response = self._send("POST", f"/datasets/{dataset}/labels/derive", json=body)
        return LabelsSummary.model_validate_json(response.content)

    def adapt(self, request: AdaptRequest) -> JobRead:
        body = request.model_dump(mode="json", exclude_unset=True)
        response = self._send("POST", "/jobs/adapt", json=body)
        return JobRead.model_validate_json(response.content)

    def job(self, job: UUID) -> JobRead:
        return JobRead.model_validate_json(self._send("GET", f"/jobs/{job}").content)

    def cancel(self, job: UUID) -> JobRead:
        return JobRead.model_validate_json(self._send("POST", f"/jobs/{job}/cancel").content)

    def watch(self, job: UUID, interval_seconds: float = 1.0) -> Iterator[JobRead]:
        """Yield the job now and then, and a last time when it has ended."""
        while True:
            current = self.job(job)
            yield current
            if current.state not in UNFINISHED:
                return
            time.sleep(interval_seconds)

    def model(self, model: UUID) -> ModelRead:
        return ModelRead.model_validate_json(self._send("GET", f"/models/{model}").content)

    def predict(self, image: Path, fields: dict[str, str], accept: str = "image/png") -> bytes:
        """Predict one image file; ``fields`` are the form fields of POST /predict."""
        with closing(_FileOnDemand(image)) as stream:
            response = self._send(
                "POST",
                "/predict",
                data=fields,
                files=[("image", (image.name, stream))],
                headers={"Accept": accept},
            )
        return response.content

    def _send(self, method: str, path: str, **kwargs: object) -> httpx.Response:
        try:
            response = self._http.request(method, path, **kwargs)  # type: ignore[arg-type]
        except (httpx.HTTPError, OSError) as error:  # OSError: of a file to send
            raise ApiError(f"{method} {path}: {error or type(error).__name__}") from error
        if response.is_error:
            raise ApiError(f"{method} {path}: {_detail(response)}")
        return response


class _FileOnDemand:
    """A file to send, open only while it is being read: of many, one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None

    def tell(self) -> int:
        return 0 if self._stream is None else self._stream.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To the start, or (only told, not done) to the end: httpx asks for no more."""
        if whence == os.SEEK_END:
            return self._path.stat().st_size
        self.close()
        return offset

    def read(self, size: int = -1) -> bytes:
        if self._stream is None:
            self._stream = self._path.open("rb")
        data = self._stream.read(size)
        if not data:
            self.close()
        return data

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _detail(response: httpx.Response) -> str:
    from app.errors import Problem

    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return f"status {response.status_code}"
    listed = "".join(f"\n  {item.where}: {item.message}" for item in problem.errors)
    return f"{problem.detail}{listed}"
