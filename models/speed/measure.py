"""Measure how fast this machine trains: whole steps, peak memory, and the share of its peak.

``python -m models.speed.measure OUT.json`` measures. Every case runs in a process of its own, so
that its peak memory is its own. Cases that are compared take turns, step by step, so that other
work on the machine slows all of them alike. Such a process is this module too, called with
``--as``. It needs Linux.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import zarr
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

from models.config.presets import preset
from models.config.stages import Precision, StyleConfig
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain, DomainInfo
from models.data.sections import Section
from models.data.stylised import StylisedDomain
from models.networks.cpu.convolution import Convolution
from models.networks.generator import Generator
from models.networks.sizes import WINOGRAD_FROM
from models.networks.unet import UNet
from models.pseudo_labels import adapt_segmenter
from models.segmentation import pretrain
from models.speed.figures import Figures, Growth, Machine, StageResult, StyleResult, Timing
from models.speed.reference import peak_bytes, say
from models.style_transfer import Cut
from models.training.device import cpu_has_bf16
from models.training.loop import Run
from models.training.progress import Progress

CASES = ("128x32", "128x64", "256x64", "pretrain-8", "pretrain-400", "adapt-8", "adapt-400")
"""CUT's cases: side of the images x filters. The segmenter's: stage - sections of each dataset."""

_SECTION_PX, _STAGE_STEPS = 256, 125  # of four sections: all 400 are read once, and some again


class _Process:
    """A process under measurement; it takes one step for each line that it is sent."""

    def __init__(self, *command: object) -> None:
        pipe = subprocess.PIPE
        arguments = [sys.executable, *map(str, command)]
        self._process = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True)
        self._hear()
        self._seconds: list[float] = []

    def step(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._seconds.append(float(self._hear()))

    def end(self) -> Timing:
        peak_bytes, _ = self._process.communicate()
        return Timing.of(self._seconds, int(peak_bytes))

    def _hear(self) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line
        raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")


def measure_style(
    case: str, steps: int, peak_gflops: float, reference: Path | None
) -> list[StyleResult]:
    """Time a CUT step in both precisions, and the reference's step, in turns.

    ``reference`` is a checkout of the public CUT.

    Raises:
        RuntimeError: a process under measurement ended.
    """
    size = case.split("x")
    script = Path(__file__).with_name("reference.py")
    precisions: list[Precision] = ["float32", "bf16"] if cpu_has_bf16() else ["float32"]
    processes = {
        p: _Process("-m", "models.speed.measure", "--as", "style", *size, p) for p in precisions
    }
    theirs = None if reference is None else _Process(script, reference, *size)
    for _ in range(steps):
        for process in (*processes.values(), theirs):
            if process is not None:
                process.step()
    baseline = None if theirs is None else theirs.end()
    gflop, done = json.loads(_output("flops", *size))
    return [
        StyleResult(
            case=case,
            precision=precision,
            step=(step := process.end()),
            gflop=gflop,
            gflop_done=done,
            fraction_of_peak=gflop / step.median / peak_gflops,
            fraction_done=done / step.median / peak_gflops,
            reference=baseline,
            speedup=baseline.median / step.median if baseline else None,
            memory_ratio=step.peak_bytes / baseline.peak_bytes if baseline else None,
        )
        for precision, process in processes.items()
    ]


def measure_stage(case: str, steps: int = _STAGE_STEPS) -> StageResult:
    """Time the steps of pre-training or adaptation in a process of its own."""
    return StageResult.model_validate_json(_output("stage", case, steps))


def matrix_gflops(dtype: torch.dtype, side: int, repeats: int = 5) -> float:
    """Return the GFLOP/s of the fastest of some square matrix products."""
    a, b = torch.ones(2, side, side, dtype=dtype)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    # The fastest product: other work on the machine can only slow it.
    return 2 * side**3 / min(seconds) / 1e9


def measure(cases: Sequence[str], steps: int, reference: Path | None) -> Figures:
    """Measure the cases and the processor itself."""
    peaks: dict[Precision, float] = {
        "float32": matrix_gflops(torch.float32, 2048),
        "bf16": matrix_gflops(torch.bfloat16, 512),  # a processor without bfloat16 is slow here
    }
    style, stages = [], {}
    for case in cases:
        if "x" in case:
            style += measure_style(case, steps, peaks["float32"], reference)
        else:
            stages[case] = measure_stage(case)
    machine = Machine(
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        instructions=torch.backends.cpu.get_cpu_capability(),
        has_bf16=cpu_has_bf16(),
        matrix_gflops=peaks,
    )
    return Figures(
        machine=machine,
        steps=steps,
        style=tuple(style),
        stages=tuple(stages.values()),
        large_to_small=_large_to_small(stages),
    )


def _large_to_small(stages: Mapping[str, StageResult]) -> dict[str, Growth]:
    """Return the cost of a step on 400 sections as a multiple of the cost on 8, by stage."""
    ratios = {}
    for stage in ("pretrain", "adapt"):
        small, large = (stages.get(f"{stage}-{number}") for number in (8, 400))
        if small is not None and large is not None:
            ratios[stage] = Growth(
                seconds=large.step.median / small.step.median,
                first_seconds=large.first_seconds / small.first_seconds,
                peak_bytes=large.step.peak_bytes / small.step.peak_bytes,
            )
    return ratios


def _output(*arguments: object) -> str:
    command = [sys.executable, "-m", "models.speed.measure", "--as", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _style_process(side: int, filters: int, precision: Precision) -> None:
    cut = Cut(StyleConfig(base_filters=filters, precision=precision))
    images, rng = torch.rand(2, 1, 1, side, side) * 2 - 1, np.random.default_rng(0)

    def step() -> float:
        started = time.perf_counter()
        cut.step(images[0], images[1], cut.draw((side, side), rng))
        return time.perf_counter() - started

    step()  # the first one also plans and allocates
    say("ready")
    for _ in sys.stdin:
        say(step())
    say(peak_bytes())


def _flops_process(side: int, filters: int) -> None:
    cut = Cut(StyleConfig(base_filters=filters))
    images, draws = (
        torch.zeros(2, 1, 1, side, side),
        cut.draw((side, side), np.random.default_rng(0)),
    )
    counts = []
    layers = [m for network in cut.modules.values() for m in network.modules()]
    for channels in (sys.maxsize, WINOGRAD_FROM):  # as defined, and as done
        for layer in layers:
            if isinstance(layer, Convolution):
                layer.winograd_from = channels
        with FlopCounterMode(display=False) as counter:
            cut.step(images[0], images[1], draws)
        counts.append(counter.get_total_flops() / 1e9)
    say(counts)


def _stage_process(case: str, steps: int) -> None:
    stage, sections = case.split("-")
    config = stage_config(steps)
    moments, shares, passes = [time.perf_counter()], [], []

    def report(progress: Progress) -> None:
        moments.append(time.perf_counter())
        shares.append(progress.values.get("wait_share", 0.0))

    def count(module: nn.Module, _inputs: object, _output: object) -> None:
        if isinstance(module, Generator):
            passes.append(module)

    with tempfile.TemporaryDirectory() as folder:
        source = synthetic_domain(Path(folder) / "source.zarr", int(sections))
        register_module_forward_hook(count)
        if stage == "pretrain":
            pretrain(source, config, Run(report))
        else:
            target = synthetic_domain(Path(folder) / "target.zarr", int(sections))
            stylised = StylisedDomain(target, target.store, "benchmark")
            segmenter = UNet(source.num_classes, config.segmenter)
            adapt_segmenter(segmenter, source, stylised, config, Run(report))
    seconds = np.diff(moments).tolist()
    timing = Timing.of(seconds[-21:-1], peak_bytes())  # the last step validates, too
    first = statistics.median(seconds[1:21])  # the very first also plans and allocates
    result = StageResult(
        case=case,
        step=timing,
        first_seconds=first,
        wait_share=shares[-1],
        generator_passes=len(passes),
    )
    say(result.model_dump())


def stage_config(steps: int) -> StyleFilterConfig:
    """Return the ``quick`` preset's stages, for so many steps."""
    length = {"steps": steps, "validate_every_steps": steps}
    return preset("quick").changed(
        {"pretrain": length, "adaptation": length, "pixel_size_factor": 1.0}
    )


def synthetic_domain(store: Path, num_sections: int) -> Domain:
    """Write training sections of random grey values and classes, and open them as a domain."""
    group, rng, sections = zarr.open_group(str(store), mode="w"), np.random.default_rng(0), []
    for index in range(num_sections):
        shape = (_SECTION_PX, _SECTION_PX)
        group.create_array(f"images/{index:06d}", data=rng.random(shape, dtype=np.float32))
        group.create_array(f"masks/{index:06d}", data=rng.integers(2, size=shape, dtype=np.uint8))
        sections.append(Section(index, str(index), "train", *shape, has_mask=True))
    info = DomainInfo(store.stem, ("background", "organelle"), 4.0, (0, 1), str(store))
    return Domain(store, info, sections, [])


def main() -> None:
    """Measure all cases, or be the process of one case."""
    parser = ArgumentParser(prog="python -m models.speed.measure")
    parser.add_argument(
        "out", nargs="?", type=Path, help="The file that takes the figures, as JSON."
    )
    parser.add_argument(
        "--reference",
        type=Path,
        help="A folder with a checkout of the public CUT, to measure beside ours.",
    )
    parser.add_argument("--steps", type=int, default=5, help="Timed steps of each CUT case.")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=CASES, help="The cases to measure."
    )
    parser.add_argument("--as", dest="role", nargs="+", help="For the module's own use.")
    chosen = parser.parse_args()
    if chosen.role is not None:
        _be(*chosen.role)
        return
    figures = measure(chosen.cases, chosen.steps, chosen.reference)
    chosen.out.write_text(figures.model_dump_json(indent=2) + "\n")


def _be(role: str, *arguments: str) -> None:
    if role == "style":
        side, filters, precision = arguments
        _style_process(int(side), int(filters), StyleConfig(precision=precision).precision)
    elif role == "flops":
        side, filters = arguments
        _flops_process(int(side), int(filters))
    else:
        case, steps = arguments
        _stage_process(case, int(steps))


if __name__ == "__main__":
    main()
