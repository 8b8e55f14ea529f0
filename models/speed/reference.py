"""Take whole training steps of the public CUT, from a user's own checkout of it.

``python reference.py CHECKOUT SIDE FILTERS`` speaks as ``models.speed.measure`` expects of a
process under measurement: a line when it is ready, then the seconds of one step for each line that
it is sent, at the end its peak memory in bytes. It imports nothing of this project, for the
reference's package is called ``models`` too.
"""

import importlib
import json
import sys
import time
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import torch


def main(checkout: str, side: int, filters: int) -> None:
    """Build the model, then take steps as asked."""
    sys.path[0] = checkout  # in place of this file's folder
    stood_in = _stand_in("torchvision")
    with redirect_stdout(sys.stderr):
        model = importlib.import_module("models.cut_model").CUTModel(_options(filters))
        images = torch.rand(2, 1, 1, side, side) * 2 - 1
        batch = {"A": images[0], "B": images[1], "A_paths": "", "B_paths": ""}
        model.data_dependent_initialize(batch)
        model.set_input(batch)
        model.optimize_parameters()
    say({"stood_in": stood_in})
    for _ in sys.stdin:
        started = time.perf_counter()
        model.set_input(batch)
        model.optimize_parameters()
        say(time.perf_counter() - started)
    say(peak_bytes())


def _stand_in(package: str) -> list[str]:
    """Put an empty module in place of a package that the reference imports and no step uses."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        sys.modules[package] = ModuleType(package)
        return [package]
    return []


def _options(filters: int) -> Namespace:
    """Return the reference's defaults for CUT, but for grey images, one at a time, on the CPU."""
    return Namespace(
        isTrain=True, gpu_ids=[], checkpoints_dir=".", name="", preprocess="none", direction="AtoB",
        input_nc=1, output_nc=1, batch_size=1, ngf=filters, ndf=filters, n_layers_D=3,
        netG="resnet_9blocks", netD="basic", netF="mlp_sample", netF_nc=256, normG="instance",
        normD="instance", no_dropout=True, no_antialias=False, no_antialias_up=False,
        init_type="xavier", init_gain=0.02, gan_mode="lsgan", lr=2e-4, beta1=0.5, beta2=0.999,
        lambda_GAN=1.0, lambda_NCE=1.0, nce_idt=True, nce_layers="0,4,8,12,16", nce_T=0.07,
        nce_includes_all_negatives_from_minibatch=False, num_patches=256, flip_equivariance=False,
    )  # fmt: skip


def peak_bytes() -> int:
    """Return the most memory that this process has had, as Linux counts it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def say(value: object) -> None:
    """Write a line of JSON to the process that measures."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
