"""The domains on which baselines adapt in tests."""

from pathlib import Path

import pytest

from tests.models.baselines.weak_label_steps import Domains, domains_of


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    return domains_of(tmp_path)
