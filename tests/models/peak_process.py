"""A real training run in a process of its own, which then tells its peak of memory.

``python -m tests.models.peak_process FOLDER STAGE CONFIG SIDE`` trains a stage of CONFIG (JSON) on
sections of SIDE pixels and prints the process's peak in bytes.
"""

import sys
from pathlib import Path

import torch

from models.config.stylefilter import StyleFilterConfig
from models.segmentation import pretrain
from models.style_transfer import train_style
from tests.models.domains import QUIET, square_domain
from tests.models.stage_process import train_stage


def main() -> None:
    torch.set_num_threads(1)
    folder, stage, side = Path(sys.argv[1]), sys.argv[2], int(sys.argv[4])
    config = StyleFilterConfig.model_validate_json(sys.argv[3])
    source = square_domain(folder / "source.zarr", side=side)
    if stage == "pretrain":
        pretrain(source, config, QUIET)
    else:
        target = square_domain(folder / "target.zarr", side=side, bright=False)
        if stage == "style":
            train_style(source, target, config, QUIET)
        else:
            method = "rounds" if config.method == "chosen" else "stylefilter"
            train_stage("adapt", (source, target), config, QUIET, folder, method)
    peak = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    sys.stdout.write(f"{int(peak.split()[1]) << 10}\n")


if __name__ == "__main__":
    main()
