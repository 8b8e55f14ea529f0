"""``stylefilter demo`` uses the service over HTTP as a user would, and shows the result."""

import io
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.cli.console import console
from app.cli.folder_upload import FolderError, send_folder
from app.cli.options import PRESET, SEED, SERVICE, SOURCE, TARGET, TILE_PX
from app.cli.synthetic.domain import write_domain
from app.cli.temporary_service import own_service
from app.cli.watch import draw, end_of
from app.client.client import Client
from app.client.connection import ApiError
from app.datasets.schemas import DatasetReport
from app.inspection.figure import comparison
from app.jobs.request_schemas import AdaptRequest
from app.jobs.result import JobResult
from app.jobs.schemas import JobRead
from app.jobs.verdicts import ModelToUse
from app.labels.schemas import DeriveRequest
from app.tables import JobState, ModelKind
from models.config.presets import PresetName

_SYNTHETIC_SECTIONS = 14
_SYNTHETIC_PX = 512


@dataclass(frozen=True)
class DemoOptions:
    """The options of the command."""

    source: Path | None
    target: Path | None
    preset: PresetName
    tile_px: int
    seed: int
    out: Path
    url: str | None


class DemoError(Exception):
    """Says why the demo cannot go on."""


def demo(  # noqa: PLR0913 - options of a command are its parameters
    source: Annotated[Path | None, SOURCE] = None,
    target: Annotated[Path | None, TARGET] = None,
    preset: Annotated[PresetName, PRESET] = "best",
    tile_px: Annotated[int, TILE_PX] = 128,
    seed: Annotated[int, SEED] = 0,
    out: Annotated[
        Path, typer.Option(help="The folder to write the picture, the table and all data to.")
    ] = Path("demo"),
    url: Annotated[str | None, SERVICE] = None,
) -> None:
    """Adapt a segmentation model from a source to a target, and compare it with the unadapted one.

    The target's labels choose what is handed out; with another preset than best it is StyleFilter
    or the unadapted model.

    The source is images with masks, the target is images of another microscope. Without the two
    folders the demo draws a pair of its own.
    """
    if (source is None) != (target is None):
        raise typer.BadParameter("only one of --source and --target is given: give both or neither")
    options = DemoOptions(
        source=source, target=target, preset=preset, tile_px=tile_px, seed=seed, out=out, url=url
    )
    raise typer.Exit(run_demo(options, console))


def run_demo(options: DemoOptions, console: Console) -> int:
    """Run the demo and return its exit code."""
    started = time.monotonic()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            url = options.url or stack.enter_context(_own_service(options.out, console))
            client = stack.enter_context(Client(url))
            Demo(options, client, console).run()
    except (DemoError, FolderError, ApiError) as error:
        console.print(f"[red]The demo stopped:[/red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. The job of the demo is cancelled.")
        return 130
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
    return 0


class Demo:
    """Registers both datasets, labels the target, adapts, watches, predicts and compares."""

    def __init__(self, options: DemoOptions, client: Client, console: Console) -> None:
        self._options = options
        self._client = client
        self._console = console

    def run(self) -> None:
        source_folder, target_folder = self._folders()
        source = self._register(source_folder, tile_px=None)
        target = self._register(target_folder, tile_px=self._options.tile_px)
        summary = self._client.derive_labels(target.id, DeriveRequest(split="train"))
        self._console.print(
            f"Labelled {summary.changed_images} training tiles of {target.name!r}: the classes "
            "that each tile shows, derived from its mask as an annotator would name them."
        )
        request = AdaptRequest.model_validate(
            {
                "source": source.id,
                "target": target.id,
                "preset": self._options.preset,
                "config": {"seed": self._options.seed} | self._changes(),
            }
        )
        submitted = self._client.adapt(request)
        try:
            job = draw(self._client, submitted.id, self._console)
        except KeyboardInterrupt:
            self._client.cancel(submitted.id)  # otherwise it would go on at the next start
            raise
        if job.state != JobState.SUCCEEDED:
            raise DemoError(end_of(job))
        self._figure(job, target, target_folder)
        self._table(job)

    def _changes(self) -> dict[str, object]:
        """Return the fields of the preset that suit the synthetic pair.

        The pair is easy, so its stages can be shorter. With ``quick`` the pseudo-labels come from
        the weights that are being trained: on this pair such weights lose no class, while the
        weights of the source alone are wrong about most of the target.
        """
        if self._options.source is not None:
            return {}
        if self._options.preset == "best":
            return {
                "pretrain": {"steps": 300, "validate_every_steps": 100},
                "adaptation": {"steps": 60, "validate_every_steps": 60},
                "rounds": {"relabel_every_steps": 20},
                "choice": {"max_trained": 1},
            }
        if self._options.preset != "quick":
            return {}
        return {
            "style": {"steps": 600},
            "pretrain": {"steps": 250, "validate_every_steps": 125},
            "adaptation": {
                "steps": 60,
                "validate_every_steps": 20,
                "pseudo_labeler": "current",
            },
        }

    def _folders(self) -> tuple[Path, Path]:
        if self._options.source is not None and self._options.target is not None:
            return self._options.source, self._options.target
        folders = (self._options.out / "source", self._options.out / "target")
        for index, (folder, domain) in enumerate(zip(folders, ("source", "target"), strict=True)):
            self._console.print(f"Drawing the synthetic {domain} domain in {folder}")
            write_domain(
                folder,
                "source" if domain == "source" else "target",
                num_sections=_SYNTHETIC_SECTIONS,
                size_px=_SYNTHETIC_PX,
                seed=1000 * self._options.seed + 500 * index,
            )
        return folders

    def _register(self, folder: Path, *, tile_px: int | None) -> DatasetReport:
        report = send_folder(self._client, folder, tile_px=tile_px)
        self._console.print(
            f"Registered {report.name!r}: {report.num_sections} sections, {report.num_images} "
            f"images, {report.pixel_size_nm} nm per pixel"
        )
        return report

    def _figure(self, job: JobRead, target: DatasetReport, folder: Path) -> None:
        """Predict a test section by the source alone and as the job advises, and draw the masks."""
        found = self._client.verdict(job.id)
        self._console.print(f"Handed out: {found.verdict.used.title}")
        tested = [s.name for s in target.sections if s.split == "test" and s.has_mask]
        if not tested:
            self._console.print(
                "No picture was drawn, because the target has no test section with a mask."
            )
            return
        models = {model.kind: model for model in map(self._client.model, job.models)}
        image = folder / "images" / f"{tested[0]}.png"
        like = {"dataset": str(target.id)}
        raw = {"model": str(models[ModelKind.SEGMENTER].id), "stylise": "false"} | like
        panels = {
            "source-only": _mask(self._client.predict(image, raw)),
            "handed out": _mask(self._client.predict(image, _fields(found.use) | like)),
            "truth": np.asarray(Image.open(folder / "masks" / f"{tested[0]}.png")),
        }
        path = self._options.out / "comparison.png"
        images = {"target image": np.asarray(Image.open(image))}
        comparison(images, panels, target.class_names).save(path)
        self._console.print(f"Wrote {path}")

    def _table(self, job: JobRead) -> None:
        evaluations = JobResult.model_validate(job.result or {}).evaluations
        if not evaluations:
            self._console.print(
                "Nothing was scored, because the target has no test section with a mask."
            )
            return
        table = Table(
            title=f"DICE on {evaluations[0].num_sections} test sections, in % (100 is perfect)"
        )
        table.add_column("method")
        names = list(evaluations[0].dice)
        for name in [*names, "mean"]:
            table.add_column(name, justify="right")
        for row in evaluations:
            scores = [*(row.dice[name] for name in names), row.mean_dice]
            table.add_row(row.method, *("-" if s is None else f"{100 * s:.1f}" for s in scores))
        self._console.print(table)
        path = self._options.out / "result.json"
        path.write_text(job.model_dump_json(indent=2) + "\n")
        self._console.print(f"Wrote {path}")


@contextmanager
def _own_service(out: Path, console: Console) -> Iterator[str]:
    with own_service(out, {}) as service:
        console.print(f"Started a service at {service.url}; its log is {service.log}")
        yield service.url


def _fields(use: ModelToUse | None) -> dict[str, str]:
    """Return the fields of ``POST /predict`` with which the model that is handed out predicts."""
    assert use is not None  # the job has just left its models
    fields = {"model": str(use.model), "stylise": str(use.stylise)}
    return fields if use.style_model is None else fields | {"style_model": str(use.style_model)}


def _mask(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(png)))
