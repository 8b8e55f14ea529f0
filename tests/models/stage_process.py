"""Each stage on tiny data: as a function, and as a process that can be killed or be one of several.

``python -m tests.models.stage_process FOLDER CASES ATTEMPT [DIE_AT]`` trains the cases (JSON, see
``Case``) and leaves the weights of process R in ``FOLDER/<name>-R.pt``, or why it refused in
``FOLDER/<name>-R.txt``, and what was reported in ``FOLDER/<name>.json``. Under torchrun the
processes train each case together. The first kills itself when it has reported step DIE_AT.
"""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor, nn

from models import segmentation, style_transfer
from models.baselines.weak_labels import adapt_weak_labels
from models.baselines.ynet import adapt_ynet
from models.config.baselines import WeakLabelsConfig, YNetConfig
from models.config.rounds import RoundsConfig
from models.config.stages import AdaptationConfig, PretrainConfig, SegmenterConfig, StyleConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain, Tile
from models.data.stylised import StylisedDomain, array_name
from models.labels_used.rounds import adapt_in_rounds
from models.networks.unet import UNet
from models.pseudo_labels import adapt_segmenter
from models.segmentation import pretrain
from models.training import loop
from models.training.loop import NonFiniteLoss, Run, seeded_weights
from models.training.parallel import process_group, rank
from models.training.progress import Progress
from models.training.resume import Checkpoints
from tests.models.domains import squares, write_domain

TrainedStage = Literal["style", "pretrain", "adapt"]
STAGES: tuple[TrainedStage, ...] = ("style", "pretrain", "adapt")

Changes = Mapping[str, Any]

ADAPT = {
    "stylefilter": adapt_segmenter,
    "y-net": adapt_ynet,
    "paul": adapt_weak_labels,
    "rounds": adapt_in_rounds,
}
"""The methods of the stage ``adapt``, by name."""

context = multiprocessing.get_context("forkserver")
"""Its processes are forked from one that has imported this already: they start in no time."""
# The optimisers import the second when the first of them is made.
context.set_forkserver_preload(["tests.models.stage_process", "torch._dynamo"])


@dataclass(frozen=True)
class Case:
    """A stage to train, and what differs from the tiny config: in it and in the segmenter.

    ``double`` computes CUT or StyleFilter in float64. ``nan`` makes the middle pixel of one source
    section NaN.
    """

    name: str
    stage: TrainedStage
    changes: Changes
    segmenter: Changes
    double: bool = False
    nan: bool = False
    method: str = "stylefilter"


def tiny(changes: Changes, segmenter: Changes | None = None) -> StyleFilterConfig:
    """A config whose stages take seconds; ``changes`` go to each stage that has such a field."""

    def stage(config: type[Any], **values: Any) -> Any:
        theirs = {"select_on", "validate_every_steps"} if config is StyleConfig else set()
        fields = config.model_fields.keys() - theirs
        mine = {name: value for name, value in changes.items() if name in fields}
        return config(**(values | mine))

    shared = {"crop_px": 32, "steps": 8}
    segmenting = {**shared, "validate_every_steps": 3, "learning_rate": 1e-3}
    return StyleFilterConfig(
        style=stage(
            StyleConfig,
            base_filters=4,
            num_blocks=5,
            num_patches=16,
            projector_width=16,
            flip_equivariance=True,
            **shared,
        ),
        segmenter=SegmenterConfig(**({"base_filters": 4, "depth": 2} | dict(segmenter or {}))),
        pretrain=stage(PretrainConfig, **segmenting),
        adaptation=stage(AdaptationConfig, **segmenting),
        ynet=YNetConfig(weight_reconstruction=1.0),
        weak_labels=WeakLabelsConfig(
            discriminator_filters=4,
            learning_rate=1e-3,
            weight_class_alignment=0.1,
            weight_output_alignment=0.1,
        ),
        rounds=stage(RoundsConfig),
    )


def pair(folder: Path, *, nan: bool = False) -> tuple[Domain, Domain]:
    """Bright squares, and dark ones with image-level labels; alike in every process."""
    tiles = [Tile(index, 0, 0, 24, 48, (1, 0)) for index in range(3)]
    tiles += [Tile(index, 24, x0, 16, 16, (1, 1)) for index in range(3) for x0 in (0, 16)]
    domains = []
    for name, bright in (("source", True), ("target", False)):
        pairs = [squares(48, seed, bright=bright) for seed in range(4)]
        images = [image.astype(np.float32) for image, _ in pairs]
        if nan and name == "source":
            images[0][24, 24] = np.nan
        domains.append(
            write_domain(
                folder / f"{name}.zarr",
                images,
                [mask for _, mask in pairs],
                ["train", "train", "train", "val"],
                tiles if name == "target" else [],
                digest=name,
            )
        )
    return domains[0], domains[1]


def inverted(target: Domain, folder: Path) -> StylisedDomain:
    """The target stylised by hand: grey values turned over, which makes dark squares bright."""
    store = zarr.open_group(str(folder / "stylised.zarr"), mode="w")
    for section in target.split("train") + target.split("val"):
        store.create_array(array_name(section), data=1 - target.image(section))
    return StylisedDomain(target, folder / "stylised.zarr", "inversion")


def train_stage(
    stage: TrainedStage,
    domains: tuple[Domain, Domain],
    config: StyleFilterConfig,
    run: Run,
    folder: Path,
    method: str = "stylefilter",
) -> nn.Module:
    """Train one stage; adaptation starts from a segmenter that has learnt nothing."""
    source, target = domains
    if stage == "style":
        return style_transfer.train_style(source, target, config, run)
    if stage == "pretrain":
        return pretrain(source, config, run)
    with seeded_weights(1):
        source_only = UNet(source.num_classes, config.segmenter)
    return ADAPT[method](source_only, source, inverted(target, folder), config, run)


def train_case(
    case: Case,
    folder: Path,
    report: Callable[[Progress], None],
    checkpoints: Checkpoints | None = None,
) -> nn.Module:
    """Train a case on data that this process writes for itself below ``folder``."""
    own = folder / f"data-{case.name}-{os.getpid()}"
    config = tiny(case.changes, case.segmenter)
    domains, run = pair(own, nan=case.nan), Run(report, checkpoints)
    with float64() if case.double else nullcontext():
        return train_stage(case.stage, domains, config, run, own, case.method)


@contextmanager
def float64() -> Iterator[None]:
    """Modules made inside, and the images they learn from, are in double precision."""
    narrow, to_device = torch.get_default_dtype(), loop.to_device

    def doubled(array: NDArray[np.generic], device: torch.device) -> Tensor:
        tensor = to_device(array, device)
        return tensor.double() if tensor.is_floating_point() else tensor

    torch.set_default_dtype(torch.float64)
    users = style_transfer, segmentation
    for user in users:
        user.to_device = doubled
    try:
        yield
    finally:
        torch.set_default_dtype(narrow)
        for user in users:
            user.to_device = to_device


def main(folder: Path, cases: str, attempt: str, die_at: int | None = None) -> None:
    torch.set_num_threads(1)
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    with process_group("cpu") if together else nullcontext():
        for case in json.loads(cases):
            _train(Case(**case), folder, attempt, die_at)


def _train(case: Case, folder: Path, attempt: str, die_at: int | None) -> None:
    values = []

    def report(progress: Progress) -> None:
        values.append(dict(progress.values))
        if progress.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints = Checkpoints(folder / case.name, attempt=attempt, every_seconds=0)
    try:
        trained = train_case(case, folder, report, checkpoints)
    except NonFiniteLoss as error:
        (folder / f"{case.name}-{rank()}.txt").write_text(str(error))
        return
    torch.save(trained.state_dict(), folder / f"{case.name}-{rank()}.pt")
    if rank() == 0:
        (folder / f"{case.name}.json").write_text(json.dumps(values))


def as_json(cases: list[Case]) -> str:
    """The command line's CASES."""
    return json.dumps([asdict(case) for case in cases])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
