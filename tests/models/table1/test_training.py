"""Each method trains what it needs and nothing else, and shares what others train alike."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from models.baselines.fourier import FourierMatch
from models.baselines.histogram import HistogramMatch
from models.config.presets import preset
from models.config.stylefilter import StyleFilterConfig
from models.data.domain import Domain, Tile
from models.data.sections import Split
from models.inference import stylise
from models.networks.generator import Generator
from models.segmentation import pretrain
from models.stylefilter import StyleFilter, adapt
from models.table1.methods import METHODS, ROWS, MethodName, needs_style, rows_by_method
from models.table1.training import Trained, styliser, train_method
from models.training.loop import Run, seeded_weights
from models.training.progress import Progress
from tests.models.domains import QUIET, equal_weights, square_domain

pytestmark = pytest.mark.training

SMOKE = preset("smoke")
ADAPTING = [name for name, method in METHODS.items() if method.adapt is not None]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Domain, Domain]:
    # As many tiles as a correction of area needs.
    tiles = [
        Tile(index, y0, x0, 12, 12, (1, (index + (y0 + x0) // 12) % 2))
        for index in range(3)
        for y0 in range(0, 48, 12)
        for x0 in range(0, 48, 12)
    ]
    source = square_domain(tmp_path / "source.zarr")
    return source, square_domain(tmp_path / "target.zarr", bright=False, tiles=tiles)


@dataclass
class Watched:
    """A run that notes which stages trained, and which were asked for by what identity."""

    steps: list[tuple[str, int]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def run(self) -> Run:
        return Run(self._report, None, self._finished)

    def _report(self, progress: Progress) -> None:
        self.steps.append((progress.stage, progress.step))

    def _finished(self, stage: str, identity: str) -> None:
        self.asked.append((stage, identity))


def trained(
    method: MethodName,
    pair: tuple[Domain, Domain],
    folder: Path,
    config: StyleFilterConfig = SMOKE,
) -> tuple[Trained, Watched]:
    """Train a method for all of its rows."""
    watched = Watched()
    steps = StyleFilter(*pair, config, watched.run(), folder / method)
    with_style = needs_style(method, rows_by_method(ROWS)[method])
    return train_method(METHODS[method], steps, with_style=with_style), watched


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_what_it_needs_and_nothing_else(
    pair: tuple[Domain, Domain], tmp_path: Path, method: MethodName
) -> None:
    made, watched = trained(method, pair, tmp_path)
    stages = list(dict.fromkeys(stage for stage, _ in watched.steps))
    adapts = method in ADAPTING
    # Candidates that train nothing are scored before others train; source-only may be chosen.
    scored = ["verdict"] if method == "chosen" else []
    style = ["style"] if needs_style(method, []) or method == "source-only" else []
    assert stages == ["pretrain", *style, *scored, *(["stylise", "adapt"] if adapts else [])]
    assert (made.style is not None) == bool(style)
    if not scored:
        assert equal_weights(made.adapted, made.source_only) != adapts
    # What all share is what the stages alone would train.
    domain = pair[1] if method == "target-only" else pair[0]
    assert equal_weights(made.source_only, pretrain(domain, SMOKE, QUIET))


def test_rows_that_differ_in_what_they_learn_differ(
    pair: tuple[Domain, Domain], tmp_path: Path
) -> None:
    made = {method: trained(method, pair, tmp_path) for method in ADAPTING}
    names = list(made)
    for number, one in enumerate(names):
        for other in names[:number]:
            assert not equal_weights(made[one][0].adapted, made[other][0].adapted), (one, other)
    identities = {watched.asked[-1] for _, watched in made.values()}
    assert len(identities) == len(names)
    shared = {watched.asked[0] for _, watched in made.values()}
    assert len(shared) == 1  # one source-only segmenter for all


def test_the_row_stylefilter_is_stylefilter(pair: tuple[Domain, Domain], tmp_path: Path) -> None:
    row = trained("stylefilter", pair, tmp_path)[0]
    paper = adapt(*pair, SMOKE, QUIET, tmp_path / "work")
    assert equal_weights(row.adapted, paper.adapted)
    assert row.style is not None
    assert equal_weights(row.style, paper.style)


def test_images_are_stylised_as_the_row_says(pair: tuple[Domain, Domain]) -> None:
    source, target = pair
    image = target.image(target.sections[0])
    with seeded_weights(0):
        generator = Generator(4, 5).eval()
    expected = {
        "none": image,
        "cut": stylise(generator, image),
        "histogram": HistogramMatch.to(source)(image),
        "fourier": FourierMatch.of(source, SMOKE.fourier_beta)(image),
    }
    for name, stylised in expected.items():
        by = styliser(name, source, SMOKE, generator)  # type: ignore[arg-type]
        assert torch.equal(torch.from_numpy(by.style(image).copy()), torch.tensor(stylised))


def test_another_fold_is_another_training(pair: tuple[Domain, Domain], tmp_path: Path) -> None:
    """Also where it has as many sections of each role, and labels take no part."""
    source, target = pair

    def identity(folds: str) -> tuple[str, str]:
        roles: dict[str, Split] = {"a": "train", "v": "val", "t": "test"}
        sections = [
            replace(section, split=roles[role])
            for section, role in zip(target.sections, folds, strict=True)
        ]
        fold = Domain(
            target.store, target.info, sections, target.tiles, working_nm=target.working_nm
        )
        return trained("y-net", (source, fold), tmp_path / folds)[1].asked[-1]

    assert identity("aavtt") == identity("aavtt")
    assert len({identity("aavtt"), identity("taavt"), identity("ttaav")}) == 3
