"""Inputs that once failed are registered over HTTP as their owner means them, or refused in words.

Each case is one example of a kind of fault. ``right`` lists the answers that are accepted.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import zarr

from app.settings import Settings
from tests.app.faults import cases
from tests.app.faults.kit import CASES, Case

assert cases  # importing it fills CASES
MAPPING_FIELD = "mask_values"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", CASES)
def test_a_known_fault_is_mended(name: str, api: httpx.Client, settings: Settings) -> None:
    _, _, write = CASES[name]
    case = Case(settings.data_roots[0], name)
    write(case)
    wrong = []
    for wanted in case.tries:
        for way in wanted["ways"]:
            answer = _register(api, case, wanted, way)
            differences = [_difference(settings, api, answer, right) for right in wanted["right"]]
            if all(differences):
                wrong.append(f"{wanted['register']} by {way}: {differences}; {answer.text[:500]}")
    assert not wrong, "\n".join(wrong)


def _register(api: httpx.Client, case: Case, wanted: dict[str, Any], way: str) -> httpx.Response:
    metadata = {key: value for key, value in wanted["metadata"].items() if value is not None}
    if "mapping" in wanted:
        metadata[MAPPING_FIELD] = wanted["mapping"]
    if way == "folder":
        folder = f"{case.name}/{wanted['register']}"
        return api.post("/datasets", json=metadata | {"folder": folder})
    files = [
        (layer, (Path(path).name, (case.folder / path).read_bytes()))
        for layer in ("images", "masks")
        for path in wanted[layer]
    ]
    return api.post("/datasets", data={"metadata": json.dumps(metadata)}, files=files)


def _difference(
    settings: Settings, api: httpx.Client, answer: httpx.Response, right: dict[str, Any]
) -> str:
    """Return in which way an answer differs from one that is right; empty if it does not."""
    # The same content registered again is answered with the first dataset.
    status = 201 if answer.status_code == 200 else answer.status_code
    if status != right["status"]:
        return f"status {answer.status_code}"
    if not _about(answer.text, right.get("message_about", [])):
        return f"the message is not about {right['message_about']}"
    if status != 201:
        return ""
    body = answer.json()
    notes = " ".join(note["message"] for note in body.get("notes", []))
    if not _about(notes, right.get("warning_about", [])):
        return f"no warning about {right['warning_about']}"
    if "dataset" not in right:
        return ""
    tiles = api.get(f"/datasets/{body['id']}/images", params={"limit": 1}).json()
    assert tiles["items"]
    return _dataset_difference(settings.data_folder, body, right["dataset"])


def _about(text: str, words: list[str]) -> bool:
    return not words or any(word.lower() in text.lower() for word in words)


def _dataset_difference(data: Path, body: dict[str, Any], right: dict[str, Any]) -> str:
    for field in ("num_sections", "num_masks", "dtype", "class_pixels", "pixel_size_nm"):
        if field in right and body[field] != right[field]:
            return f"{field} is {body[field]}, not {right[field]}"
    if "num_images" in right and body["num_images"] != right["num_images"]:
        return f"num_images is {body['num_images']}"
    tolerance = right["intensity_window_tolerance"]
    window = np.array(body["intensity_window"])
    if np.abs(window - right["intensity_window"]).max() > tolerance:
        return f"the window is {window}, not {right['intensity_window']} to {tolerance}"
    if difference := _split_difference(body["sections"], right):
        return difference
    group = zarr.open_group(str(data / "datasets" / body["id"]), mode="r")
    for section in right["sections"]:
        if difference := _section_difference(group, body["sections"], section):
            return f"section {section['index']}: {difference}"
    return ""


def _split_difference(sections: list[dict[str, Any]], right: dict[str, Any]) -> str:
    splits = [section["split"] for section in sections]
    names = [section["name"] for section in sections]
    for name in right.get("unused", []):
        if splits[names.index(name)] != "unused":
            return f"{name} is in {splits[names.index(name)]}"
    if right.get("gap_between_splits"):
        pairs = zip(splits, splits[1:], strict=False)
        if any(a != b and "unused" not in (a, b) for a, b in pairs) or len(set(splits)) < 4:
            return f"splits are {splits}"
    return ""


def _section_difference(
    group: zarr.Group, found: list[dict[str, Any]], right: dict[str, Any]
) -> str:
    index = right["index"]
    for field in ("height", "width"):
        if found[index][field] != right[field]:
            return f"{field} is {found[index][field]}"
    # The part before the slash is free: it is the name of the file.
    if found[index]["name"].rpartition("/")[2] != right["name"].rpartition("/")[2]:
        return f"its name is {found[index]['name']}"
    image = np.asarray(group[f"images/{index:06d}"])
    if difference := _pixel_difference(image, right):
        return difference
    if "mask_sha256" in right:
        mask = np.asarray(group[f"masks/{index:06d}"])
        if _sha256(mask) != right["mask_sha256"]:
            return "another mask"
    return ""


def _pixel_difference(image: np.ndarray, right: dict[str, Any]) -> str:
    if "sha256" in right and _sha256(image) != right["sha256"]:
        return "other pixels"
    if "pixel_y_x_value" in right:
        y, x, value = right["pixel_y_x_value"]
        if image[y, x] != value:
            return f"pixel {y}, {x} is {image[y, x]}"
    if "mean" in right and abs(image.mean() - right["mean"]) > right["mean_tolerance"]:
        return f"the mean is {image.mean()}"
    if "rising_y_x" in right:
        values = [float(image[y, x]) for y, x in right["rising_y_x"]]
        if sorted(set(values)) != values:
            return f"grey values do not rise: {values}"
    return ""


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
