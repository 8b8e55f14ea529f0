"""GET /datasets/A/compatibility/B: what it finds, and the change that mends it."""

from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

from tests.app.files import png, problem, registered, upload

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def _send(api: httpx.Client, seed: int, *, invert: bool = False, **metadata: Any) -> str:
    """Register three sections of dark discs of 9 px radius, with masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128]
    images, masks = {}, {}
    for number in range(3):
        mask = np.zeros((128, 128), np.uint8)
        for cy, cx in rng.integers(15, 113, (6, 2)):
            mask[(y - cy) ** 2 + (x - cx) ** 2 < 81] = 1
        image = (180 - 100.0 * mask + rng.normal(0, 8, mask.shape)).clip(0, 255).astype(np.uint8)
        images[f"{number}.png"] = png(255 - image if invert else image)
        masks[f"{number}.png"] = png(mask)
    found: str = registered(upload(api, images, masks, **metadata))["id"]
    return found


def _compare(api: httpx.Client, source: str, target: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the whole answer, and its findings' changes by code."""
    response = api.get(f"/datasets/{source}/compatibility/{target}")
    assert response.status_code == 200, response.text
    body = response.json()
    return body, {each["code"]: each["change"] for each in body["findings"]}


def test_a_pair_that_fits_has_no_findings(api: httpx.Client) -> None:
    body, findings = _compare(api, _send(api, 1), _send(api, 2, pixel_size_nm=6.0))
    assert findings == {}
    assert body["contrast_inverted"] is False
    assert body["target_size_factor"] == 1.5
    assert body["smallest_section_px"] == [192, 192]
    assert body["shared_classes"] == ["background", "organelle"]
    assert body["benefit"]["probe"] is None
    assert "/jobs/probe" in body["benefit"]["advice"][0]


def test_inverted_contrast_names_the_field_that_mends_it(api: httpx.Client) -> None:
    body, findings = _compare(api, _send(api, 1), _send(api, 2, invert=True))
    assert findings["contrast_inverted"] == {"invert": True}
    assert body["contrast_evidence"] == "masks"
    organelle = next(each for each in body["classes"] if each["name"] == "organelle")
    assert organelle["source_grey"] < 0.3 < 0.7 < organelle["target_grey"]


def test_a_wrong_pixel_size_shows_in_the_thickness(api: httpx.Client) -> None:
    _, findings = _compare(api, _send(api, 1), _send(api, 2, pixel_size_nm=16.0))
    assert findings["structure_scale"]["pixel_size_nm"] == pytest.approx(4.0, rel=0.25)


def test_other_classes_are_named(api: httpx.Client) -> None:
    target = _send(api, 2, class_names=["background", "nucleus"])
    body, findings = _compare(api, _send(api, 1), target)
    assert (body["missing_classes"], body["extra_classes"]) == (["organelle"], ["nucleus"])
    assert {"classes_missing", "classes_extra"} <= findings.keys()


def test_what_cannot_be_compared_is_refused_in_words(api: httpx.Client) -> None:
    source = _send(api, 1)
    problem(api.get(f"/datasets/{source}/compatibility/{uuid4()}"), 404)
    tiny = _send(api, 2, pixel_size_nm=0.4)
    body = problem(api.get(f"/datasets/{source}/compatibility/{tiny}"), 422)
    assert "pixel size" in body["detail"]


def test_masks_of_test_sections_are_not_looked_at(api: httpx.Client) -> None:
    splits = {"train": [], "test": ["0", "1", "2"]}
    body, _ = _compare(api, _send(api, 1), _send(api, 2, invert=True, splits=splits))
    assert (body["contrast_evidence"], body["classes"]) == ("images", [])
