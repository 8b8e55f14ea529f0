"""A typed client of the HTTP API; importing it loads no FastAPI and no Celery."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx

from app.client.advice import Advice
from app.client.connection import AGAIN_SECONDS, PATIENCE_SECONDS, ApiError, Connection, Unavailable
from app.client.file_on_demand import FileOnDemand
from app.datasets.schemas import (
    DatasetCreate,
    DatasetRead,
    DatasetReport,
    ImageRead,
    OpenOrganelleCreate,
    SentUploads,
)
from app.inspection.schemas import Compatibility, DatasetInspection
from app.jobs.curves import MetricsQuery
from app.jobs.event_schemas import EventRead
from app.jobs.request_schemas import AdaptRequest, BenchmarkRequest
from app.jobs.result import JobResult
from app.jobs.schemas import JobRead, MetricsRead
from app.jobs.verdicts import VerdictRead
from app.labels.schemas import (
    ChangeNote,
    ChangeRead,
    DerivedSummary,
    DeriveRequest,
    LabelsRead,
    LabelsSummary,
    LabelsUpdate,
    TileSizesRead,
)
from app.registry.schemas import ModelRead
from app.tables import UNFINISHED, JobState

_CSV = "text/csv"
_ACCEPTED = 202

Watch = Callable[[JobRead], None]
"""A function that is shown a job from time to time."""


class Client(Advice):
    """Sends requests to one service. Use it as a context manager.

    Each method raises ApiError if the service refuses the request, and Unavailable if the service
    cannot be reached.
    """

    def __init__(
        self, url: str, timeout_seconds: float = 600, *, pieces_from_bytes: int = 1 << 26
    ) -> None:
        """Make a client. Files of more than ``pieces_from_bytes`` are sent in pieces."""
        self._pieces_from_bytes = pieces_from_bytes
        self._http = Connection(url, timeout_seconds)

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
        """Return True if the service answers and is ready."""
        return self._http.answers("/readyz")

    def upload_dataset(
        self,
        metadata: DatasetCreate,
        images: Sequence[Path],
        masks: Sequence[Path] = (),
        *,
        watch: Watch = lambda _: None,
    ) -> DatasetReport:
        """Register PNG, TIFF or zipped Zarr files of this computer as a dataset.

        A mask belongs to the image whose file has the same name. Large files are sent in pieces:
        if the connection breaks, the client goes on where it broke. If a job
        registers the dataset, the client waits for its end, and calls ``watch`` with the job each
        second.
        """
        if _size_of((*images, *masks)) > self._pieces_from_bytes:
            uploads = SentUploads(
                images=self._http.send_in_pieces(images),
                masks=self._http.send_in_pieces(masks),
            )
            return self.register_folder(
                metadata.model_copy(update={"uploads": uploads}), watch=watch
            )
        with ExitStack() as opened:
            files = [
                (kind, (path.name, opened.enter_context(closing(FileOnDemand(path)))))
                for kind, paths in (("images", images), ("masks", masks))
                for path in paths
            ]
            data = {"metadata": metadata.model_dump_json(exclude_none=True)}
            response = self._http.send("POST", "/datasets", data=data, files=files)
        return self._registered(response, watch)

    def register_folder(
        self, metadata: DatasetCreate, *, watch: Watch = lambda _: None
    ) -> DatasetReport:
        """Register ``metadata.folder``, a folder of the service's computer, as a dataset.

        Instead of a folder, ``metadata.uploads`` may name files that were sent before. If a job
        registers the dataset, the client waits for the job as ``upload_dataset`` does.
        """
        response = self._http.send("POST", "/datasets", json=metadata.model_dump(mode="json"))
        return self._registered(response, watch)

    def register_cell(
        self, request: OpenOrganelleCreate, *, watch: Watch = lambda _: None
    ) -> DatasetReport:
        """Register annotated crops of a public cell, which a job of the service reads.

        The client waits for the job as ``upload_dataset`` does.
        """
        response = self._http.send("POST", "/datasets", json=request.model_dump(mode="json"))
        return self._registered(response, watch)

    def dataset(self, dataset: UUID) -> DatasetReport:
        """Return a dataset."""
        return self._http.read(DatasetReport, "GET", f"/datasets/{dataset}")

    def inspect_dataset(self, dataset: UUID) -> DatasetInspection:
        """Return what a dataset holds, and what looks wrong."""
        return self._http.read(DatasetInspection, "GET", f"/datasets/{dataset}/report")

    def contact_sheet(self, dataset: UUID) -> bytes:
        """Return small pictures of a dataset's sections with their masks, as PNG."""
        return self._http.send("GET", f"/datasets/{dataset}/contact-sheet.png").content

    def compare_datasets(self, source: UUID, target: UUID) -> Compatibility:
        """Compare two datasets as source and target."""
        return self._http.read(Compatibility, "GET", f"/datasets/{source}/compatibility/{target}")

    def datasets(self) -> Iterator[DatasetRead]:
        """Yield the registered datasets, newest first."""
        return self._http.pages("/datasets", DatasetRead)

    def images(self, dataset: UUID) -> Iterator[ImageRead]:
        """Yield the images of a dataset, in the order of their numbers."""
        return self._http.pages(f"/datasets/{dataset}/images", ImageRead)

    def labels(self, dataset: UUID) -> Iterator[LabelsRead]:
        """Yield the labels of each image of a dataset, in the order of their numbers."""
        return self._http.pages(f"/datasets/{dataset}/labels", LabelsRead)

    def put_labels(
        self,
        dataset: UUID,
        labels: LabelsUpdate | Path,
        note: ChangeNote | None = None,
        version: str | None = None,
    ) -> LabelsSummary:
        """Label images: for each class, an image is present, absent or unknown.

        ``labels`` may be a file: JSON if its name ends so, else a table of CSV. The service
        refuses them if the labels that it has are of another ``version``.
        """
        table = isinstance(labels, Path) and labels.suffix.lower() != ".json"
        if isinstance(labels, LabelsUpdate):
            body = labels.model_dump_json(exclude_none=True, by_alias=True).encode()
        else:
            body = labels.read_bytes()
        return self._http.read(
            LabelsSummary,
            "PUT",
            f"/datasets/{dataset}/labels",
            content=body,
            params=_noted(note),
            headers=_matching(version) | {"Content-Type": _CSV if table else "application/json"},
        )

    def labels_table(self, dataset: UUID, *, points: bool = False) -> bytes:
        """Return all labels, or all points, as a table of CSV, which ``put_labels`` takes."""
        path = f"/datasets/{dataset}/labels{'/points' if points else '?format=csv'}"
        return self._http.send("GET", path).content

    def derive_labels(
        self,
        dataset: UUID,
        request: DeriveRequest,
        note: ChangeNote | None = None,
        version: str | None = None,
    ) -> DerivedSummary:
        """Label images by their masks; ``version`` as for ``put_labels``."""
        return self._http.read(
            DerivedSummary,
            "POST",
            f"/datasets/{dataset}/labels/derive",
            json=request.model_dump(mode="json"),
            params=_noted(note),
            headers=_matching(version),
        )

    def label_history(self, dataset: UUID) -> Iterator[ChangeRead]:
        """Yield the changes of a dataset's labels, newest first."""
        return self._http.pages(f"/datasets/{dataset}/labels/history", ChangeRead)

    def tile_sizes(self, dataset: UUID) -> TileSizesRead:
        """Return in how many tiles of several sizes each class lies, by the masks."""
        return self._http.read(TileSizesRead, "GET", f"/datasets/{dataset}/tile-sizes")

    def adapt(self, request: AdaptRequest) -> JobRead:
        """Submit an adaptation; ``request.config`` may hold any part of a configuration."""
        body = request.model_dump(mode="json", exclude_unset=True)
        return self._http.read(JobRead, "POST", "/jobs/adapt", json=body)

    def benchmark(self, request: BenchmarkRequest, key: str) -> JobRead:
        """Submit a benchmark. A second call with the same ``key`` returns the same job."""
        body = request.model_dump(mode="json", exclude_unset=True)
        headers = {"Idempotency-Key": key}
        return self._http.read(JobRead, "POST", "/jobs/benchmark", json=body, headers=headers)

    def report(self, job: UUID, name: str) -> bytes:
        """Return a file of a benchmark's report, such as ``report.html`` or ``folds.json``."""
        return self._http.send("GET", f"/jobs/{job}/report/{name}").content

    def cell(self, job: UUID) -> bytes:
        """Return the results of a part of a benchmark, as JSON: a ``models.table1.cells.Cell``."""
        return self._http.send("GET", f"/jobs/{job}/cell").content

    def jobs(self, parent: UUID) -> list[JobRead]:
        """Return all parts of a benchmark."""
        return list(self._http.pages("/jobs", JobRead, parent=str(parent)))

    def job(self, job: UUID, *, patience_seconds: float = 0) -> JobRead:
        """Return a job. If the service cannot be reached, try for ``patience_seconds``."""
        began = time.monotonic()
        while True:
            try:
                return self._http.read(JobRead, "GET", f"/jobs/{job}")
            except Unavailable:
                if time.monotonic() - began >= patience_seconds:
                    raise
                time.sleep(AGAIN_SECONDS)

    def cancel(self, job: UUID) -> JobRead:
        """Cancel a job. A running job ends when its trainer has stopped."""
        return self._http.read(JobRead, "POST", f"/jobs/{job}/cancel")

    def pause(self, job: UUID) -> JobRead:
        """Pause a job. A running job saves its state first."""
        return self._http.read(JobRead, "POST", f"/jobs/{job}/pause")

    def resume(self, job: UUID) -> JobRead:
        """Resume a paused job where it stopped."""
        return self._http.read(JobRead, "POST", f"/jobs/{job}/resume")

    def retry(self, job: UUID) -> JobRead:
        """Queue a failed job again. It goes on from the last state that was saved."""
        return self._http.read(JobRead, "POST", f"/jobs/{job}/retry")

    def watch(self, job: UUID, interval_seconds: float = 1.0) -> Iterator[JobRead]:
        """Yield the job every ``interval_seconds``, and a last time when it has ended."""
        while True:
            current = self.job(job)
            yield current
            if current.state not in UNFINISHED:
                return
            time.sleep(interval_seconds)

    def events(
        self, job: UUID, after: int | None = None, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> Iterator[EventRead]:
        """Yield the events of a job until it has ended: all of them, or those after one.

        ``after`` is the id of the last event that is known already. If the stream breaks, the
        client opens it again where it broke, unless the service cannot be reached for
        ``patience_seconds``.
        """
        return self._http.events(f"/jobs/{job}/events", after, patience_seconds)

    def verdict(self, job: UUID) -> VerdictRead:
        """Return what the target's labels say of the models of a job, and which one to use."""
        return self._http.read(VerdictRead, "GET", f"/jobs/{job}/verdict")

    def metrics(self, job: UUID, asked: MetricsQuery) -> MetricsRead:
        """Return the series of losses and scores of a job that are asked for."""
        params = asked.model_dump(exclude_none=True)
        return self._http.read(MetricsRead, "GET", f"/jobs/{job}/metrics", params=params)

    def log(self, job: UUID, attempt: int | None = None) -> str:
        """Return the end of the log of an attempt, by default of the last one."""
        params = {} if attempt is None else {"attempt": attempt}
        return self._http.send("GET", f"/jobs/{job}/log", params=params).text

    def model(self, model: UUID) -> ModelRead:
        """Return a trained model."""
        return self._http.read(ModelRead, "GET", f"/models/{model}")

    def predict(self, image: Path, fields: dict[str, str], accept: str = "image/png") -> bytes:
        """Segment an image file and return the mask as a file of the type ``accept``.

        ``fields`` are the other fields of the form of POST /predict.
        """
        with closing(FileOnDemand(image)) as stream:
            response = self._http.send(
                "POST",
                "/predict",
                data=fields,
                files=[("image", (image.name, stream))],
                headers={"Accept": accept},
            )
        return response.content

    def _registered(self, response: httpx.Response, watch: Watch) -> DatasetReport:
        """Return the dataset of an answer to a registration, after the end of its job if any."""
        if response.status_code != _ACCEPTED:
            return DatasetReport.model_validate_json(response.content)
        job = JobRead.model_validate_json(response.content)
        while job.state in UNFINISHED:
            watch(job)
            time.sleep(AGAIN_SECONDS)
            job = self.job(job.id, patience_seconds=PATIENCE_SECONDS)
        watch(job)
        if job.state != JobState.SUCCEEDED:
            reason = f": {job.error.message}" if job.error is not None else ""
            raise ApiError(f"job {job.id}, which registers the dataset, is {job.state}{reason}")
        made = JobResult.model_validate(job.result).dataset
        assert made is not None
        return self.dataset(made)


def _size_of(paths: Sequence[Path]) -> int:
    try:
        return sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise ApiError(str(error)) from error


def _noted(note: ChangeNote | None) -> dict[str, str | float]:
    return {} if note is None else note.model_dump(exclude_none=True)


def _matching(version: str | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}
