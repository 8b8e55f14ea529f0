"""A probe of a pair whose contrast is inverted, and what it keeps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.choice.looks import Look, LooksUnreadable, load_looks, save_looks
from models.choice.probed import best_of_each, enough, scored
from models.choice.probing import Asked, Prober, sections_to_see
from models.choice.tiles import training_jury
from models.config.presets import preset
from models.data.domain import Domain
from models.data.tiles import relabelled
from models.metadata import DomainMeta, ModelMeta
from models.segmentation import pretrain
from tests.models.choice.predictions import rare_domain
from tests.models.domains import QUIET, square_domain

CONFIG = preset("smoke").changed(
    {"pretrain": {"steps": 120, "learning_rate": 1e-2, "validate_every_steps": 60}}
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    source = square_domain(tmp_path_factory.mktemp("probed") / "s.zarr")
    meta = ModelMeta(
        kind="segmenter",
        config=CONFIG,
        class_names=source.info.class_names,
        working_nm=source.working_nm,
        source=DomainMeta.of(source),
        target=None,
    )
    return Asked("m", pretrain(source, CONFIG, QUIET).eval(), meta, source)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    """Inverted; the tiles of the last training section have no labels."""
    domain = square_domain(tmp_path_factory.mktemp("inverted") / "t.zarr", bright=False)
    labelled = relabelled(domain, 16, splits=("train",))
    tiles = [
        replace(tile, labels=(-1, -1)) if tile.section == 2 else tile for tile in labelled.tiles
    ]
    return Domain(domain.store, domain.info, domain.sections, tiles)


def look(asked: Asked, target: Domain, folder: Path) -> list[Look]:
    return list(Prober(asked, target, sections_to_see(target, 8), folder).looks())


@pytest.mark.training
def test_the_inverted_view_scores_best_and_is_kept(
    asked: Asked, target: Domain, tmp_path: Path
) -> None:
    looks = look(asked, target, tmp_path)
    assert len(looks) == 10
    names = [(each.meta.view, each.meta.statistics) for each in looks]
    assert names[0] == ("raw", "source")
    assert [each.meta.as_it_is for each in looks] == [True] + [False] * 9
    first = looks[0]
    # 9 tiles of 16 px in each of three sections, labelled or not.
    assert first.tiles.tolist() == list(range(27))
    assert first.sections.tolist() == [0] * 9 + [1] * 9 + [2] * 9
    labels = np.array([tile.labels for tile in target.tiles])
    each = [scored(one, one.evidence(labels, target.info.class_names, None)) for one in looks]
    assert {len(one.evidence.labels) for one in each} == {18}
    (best,) = best_of_each(each)
    assert best.look.meta.view.startswith("inverted")
    assert best.evidence.errors[1].sum() < each[0].evidence.errors[1].sum()
    assert best.look.meta.consistency is not None  # with so few labels it counts
    assert np.isfinite(first.source_area).any()

    save_looks(tmp_path / "looks.npz", looks)
    again = load_looks(tmp_path / "looks.npz")
    assert [one.meta for one in again] == [one.meta for one in looks]
    np.testing.assert_allclose(again[3].peaks, looks[3].peaks, atol=1e-6)
    assert (again[3].tiles == looks[3].tiles).all()


@pytest.mark.training
def test_without_labels_consistency_ranks(asked: Asked, target: Domain, tmp_path: Path) -> None:
    bare = Domain(
        target.store,
        target.info,
        target.sections,
        [replace(tile, labels=(-1, -1)) for tile in target.tiles],
    )
    looks = look(asked, bare, tmp_path)
    labels = np.full((len(bare.tiles), 2), -1)
    each = [scored(one, one.evidence(labels, bare.info.class_names, None)) for one in looks]
    assert [one.evidence.loss() for one in each] == [None] * 10
    (best,) = best_of_each(each)
    assert best.look.meta.consistency == max(one.look.meta.consistency or 0 for one in each)
    assert not enough(each).enough


@pytest.mark.training
def test_a_model_without_its_source_is_asked_in_three_views(
    asked: Asked, target: Domain, tmp_path: Path
) -> None:
    looks = look(replace(asked, source=None), target, tmp_path)
    assert {one.meta.view for one in looks} == {"raw", "inverted", "stretched"}
    assert np.isnan(looks[0].source_area).all()


def test_sections_are_spread_and_most_have_labels(tmp_path: Path) -> None:
    domain = rare_domain(tmp_path / "r.zarr", sections=20)
    labelled = {4, 5, 6, 7, 8, 9}
    tiles = [
        tile if tile.section in labelled else replace(tile, labels=(-1, -1))
        for tile in domain.tiles
    ]
    some = Domain(domain.store, domain.info, domain.sections, tiles)
    seen = [section.index for section in sections_to_see(some, 8)]
    assert len(seen) == 8
    assert seen == sorted(seen)
    assert len(labelled & set(seen)) == 6
    assert [s.index for s in sections_to_see(domain, 100)] == list(range(20))
    assert len(sections_to_see(domain, 1)) == 1
    assert len(training_jury(some).sections) == 6


def test_a_damaged_file_of_looks_is_told(tmp_path: Path) -> None:
    (tmp_path / "looks.npz").write_bytes(b"PK\x03\x04 no archive")
    for name in ("looks.npz", "none.npz"):
        with pytest.raises(LooksUnreadable, match=name):
            load_looks(tmp_path / name)
