"""CUT against vectors that the public reference computed in float64: tests/goldens/README.md."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.config.stages import StyleConfig
from models.losses import lsgan, patch_nce
from models.networks.cpu.convolution import Convolution
from models.networks.cpu.resampling import BlurDown, BlurUp
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator
from models.networks.patch_projector import PatchProjector, unit_vectors
from models.style_transfer import Cut, Draws

GOLDENS = Path(__file__).parents[2] / "goldens"
EXACT, STORED_FLOAT32 = 1e-9, 1e-6

Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture(params=[1, 64], ids=["winograd", "direct"])
def convolutions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The goldens' networks are too small to go by Winograd's algorithm unless told to."""
    monkeypatch.setattr(Convolution, "winograd_from", request.param)


def golden(name: str) -> Arrays:
    with np.load(GOLDENS / f"{name}.npz") as file:
        return dict(file)


def tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def positions(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))


def close(actual: Tensor, expected: NDArray[np.generic], rel: float = EXACT) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=rel, atol=1e-12)


def load(module: nn.Module, arrays: Arrays, prefix: str) -> None:
    weights = {
        key.removeprefix(prefix).replace("mlp_", "mlps."): tensor(value)
        for key, value in arrays.items()
        if key.startswith(prefix)
    }
    module.double().load_state_dict(weights, strict=True)


@pytest.mark.parametrize("case", ["b1", "b2", "b2all", "p256", "t05"])
def test_patch_nce(case: str) -> None:
    g = golden("patchnce")
    q = tensor(g[f"{case}_q"]).requires_grad_()
    k = tensor(g[f"{case}_k"]).requires_grad_()
    images = 1 if g[f"{case}_all_negatives"] else int(g[f"{case}_B"])
    rows = patch_nce(
        q.unflatten(0, (images, -1)), k.unflatten(0, (images, -1)), float(g[f"{case}_T"])
    )
    rows.mean().backward()
    close(rows.flatten(), g[f"{case}_loss_per_row"])
    close(rows.mean(), g[f"{case}_loss_mean"])
    close(q.grad, g[f"{case}_dq_of_mean"])
    assert k.grad is None


def test_unit_vectors() -> None:
    g = golden("sample_mlp")
    close(unit_vectors(tensor(g["l2norm_in"])), g["l2norm_out"])


@pytest.mark.parametrize("flipped", [False, True])
def test_projector(flipped: bool) -> None:
    g = golden("sample_mlp")
    projector = PatchProjector((1, 6, 5), width=8)
    load(projector, g, "F.")
    features = [tensor(g[f"feat{t}"]) for t in range(3)]
    if flipped:
        features = [feature.flip(-1) for feature in features]
    embedded = projector(features, [positions(g[f"ids{t}"]) for t in range(3)])
    for t in range(3):
        name = f"out_reused_ids_flipped{t}" if flipped else f"out{t}"
        close(embedded[t].flatten(0, 1), g[name])


@pytest.mark.parametrize("size", ["even", "odd"])
@pytest.mark.parametrize(("way", "module"), [("down", BlurDown()), ("up", BlurUp())])
def test_resampling(size: str, way: str, module: nn.Module) -> None:
    g = golden("blurpool")
    x = tensor(g[f"{size}_x"]).requires_grad_()
    y = module.double()(x)
    y.backward(tensor(g[f"{size}_{way}_gy"]))
    close(y, g[f"{size}_{way}_y"])
    close(x.grad, g[f"{size}_{way}_gx"])


@pytest.mark.parametrize("real", [True, False])
def test_lsgan(real: bool) -> None:
    g = golden("ganloss")
    scores = tensor(g["pred"]).requires_grad_()
    loss = lsgan(scores, real=real)
    loss.backward()
    name = "lsgan_real" if real else "lsgan_fake"
    close(loss, g[name])
    close(scores.grad, g[f"{name}_grad_of_mean"])


@pytest.mark.usefixtures("convolutions")
def test_generator() -> None:
    g = golden("generator")
    generator = Generator(base_filters=4)
    load(generator, g, "G.")
    y, taps = generator.translate(tensor(g["x"]))
    close(y, g["y"])
    close(generator(tensor(g["x_rect"])), g["y_rect"])
    for encoded, tap, index in zip(
        generator.encode(tensor(g["x"])), taps, (0, 4, 8, 12, 16), strict=True
    ):
        assert torch.equal(encoded, tap)
        np.testing.assert_allclose(tap.detach().numpy(), g[f"feat{index}"], rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("convolutions")
def test_discriminator() -> None:
    g = golden("discriminator")
    discriminator = Discriminator(base_filters=4)
    load(discriminator, g, "D.")
    close(discriminator(tensor(g["x"])), g["y"])
    close(discriminator(tensor(g["x32"])), g["y32"])


@pytest.mark.usefixtures("convolutions")
@pytest.mark.parametrize("name", ["step_cut", "step_cut_bs2", "step_fastcut_flip"])
def test_full_step(name: str) -> None:
    g = golden(name)
    fast = "fastcut" in name
    cut = tiny_cut(fast, golden("step_cut"))
    nets = {"G": cut.generator, "F": cut.projector, "D": cut.discriminator}
    before = {name: weight.detach().clone() for name, weight in named(nets)}
    draws = Draws(
        flip=bool(g.get("flipped", False)),
        positions_a=[positions(g[f"ids_A_{t}"]) for t in range(5)],
        positions_b=[] if fast else [positions(g[f"ids_B_{t}"]) for t in range(5)],
    )
    real_a = tensor(g["real_A"])
    losses = cut.step(real_a, tensor(g["real_B"]), draws)

    expected = {"loss_d": "loss_D", "loss_gan": "loss_G_GAN", "loss_nce": "loss_NCE"}
    if not fast:
        expected["loss_nce_identity"] = "loss_NCE_Y"
    assert set(losses) == set(expected)
    for ours, theirs in expected.items():
        assert losses[ours] == pytest.approx(float(g[theirs]), rel=EXACT)
    check_gradients(g, nets)
    check_updates(g, nets, before)


def tiny_cut(fast: bool, start: Arrays) -> Cut:
    config = StyleConfig(
        base_filters=4,
        projector_width=16,
        num_patches=64,
        lambda_nce=10 if fast else 1,
        nce_identity=not fast,
        flip_equivariance=fast,
    )
    cut = Cut(config)
    load(cut.generator, start, "init.G.")
    load(cut.projector, start, "init.F.")
    load(cut.discriminator, start, "init.D.")
    return cut


def named(nets: dict[str, nn.Module]) -> list[tuple[str, nn.Parameter]]:
    """Parameters under the goldens' names."""
    return [
        (f"{net}.{key.replace('mlps.', 'mlp_')}", parameter)
        for net, module in nets.items()
        for key, parameter in module.named_parameters()
    ]


def check_gradients(g: Arrays, nets: dict[str, nn.Module]) -> None:
    checked = 0
    for name, parameter in named(nets):
        if name in g["dead_params"]:
            continue
        gradient = parameter.grad.numpy()
        if f"grad.{name}" in g:
            expected = g[f"grad.{name}"]
            error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
            assert error < STORED_FLOAT32, name
        else:
            norm = float(g[f"gradnorm.{name}"])
            assert np.linalg.norm(gradient) == pytest.approx(norm, rel=EXACT), name
        checked += 1
    assert checked == 78 - 24


def check_updates(g: Arrays, nets: dict[str, nn.Module], before: dict[str, Tensor]) -> None:
    if "checksum.G.n" not in g:
        return
    change = {net: [0.0, 0.0, 0] for net in nets}
    for name, parameter in named(nets):
        if name in g["dead_params"]:
            continue
        if f"updated.{name}" in g:
            updated = g[f"updated.{name}"]
            np.testing.assert_allclose(parameter.detach().numpy(), updated, rtol=0, atol=1e-7)
        delta = parameter.detach() - before[name]
        sums = change[name[0]]
        sums[0] += float(delta.abs().sum())
        sums[1] += float(delta.sum())
        sums[2] += delta.numel()
    for net, (l1, total, count) in change.items():
        assert l1 == pytest.approx(float(g[f"checksum.{net}.delta_l1"]), rel=1e-6)
        assert total == pytest.approx(float(g[f"checksum.{net}.delta_sum"]), rel=1e-6)
        assert count == int(g[f"checksum.{net}.n"])
