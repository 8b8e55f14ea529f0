"""Each test module stands where the module that it tests stands."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent

CROSS_CUTTING = {
    Path("test_docs.py"): "compares the documents with the code",
    Path("test_layout.py"): "is about the tests themselves",
    Path("test_words.py"): "reads the docstrings of all packages",
    Path("test_old_state.py"): "reads the state that an earlier version left in all places",
    Path("app/test_upgrade.py"): "reads over HTTP what an earlier version left in all places",
    Path("chaos"): "injects faults into a whole service",
    Path("end_to_end"): "drives the service as it is started, with all its processes",
    Path("app/faults"): "registers inputs that once failed, through all parts that read them",
    Path("models/method"): "trains or checks the paper's method as a whole",
}
"""The folders and files that test no single module, each with its reason."""

MODULES = [
    path.relative_to(TESTS)
    for path in sorted(TESTS.rglob("test_*.py"))
    if not any(path.is_relative_to(TESTS / place) for place in CROSS_CUTTING)
]


@pytest.mark.parametrize("test", MODULES, ids=str)
def test_a_test_module_mirrors_a_module(test: Path) -> None:
    """``test_<module>.py``, or ``test_<module>_<aspect>.py`` where one file would be too long."""
    package, words = ROOT / test.parent, test.stem.removeprefix("test_").split("_")
    names = ["_".join(words[:n]) for n in range(1, len(words) + 1)]
    assert any((package / f"{name}.py").is_file() for name in names), (
        f"{package.relative_to(ROOT)} has no module named {' or '.join(names)}: rename the test "
        "module, or name it in CROSS_CUTTING with its reason"
    )


@pytest.mark.parametrize("place", CROSS_CUTTING, ids=str)
def test_a_cross_cutting_place_exists(place: Path) -> None:
    assert (TESTS / place).exists()
