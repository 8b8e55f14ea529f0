"""A store in the layout of OpenOrganelle, small, with known voxels and with all that can go wrong.

Legend: arrays are (Z, Y, X). The micrographs have voxels of 5.24 x 4 x 4 nm, the labels of half of
that along each axis.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray

CELL = "jrc_demo"
EM_NM = (5.24, 4.0, 4.0)
EM_SHAPE = (40, 64, 96)
LABEL_NM = (2.62, 2.0, 2.0)

Kind = Literal["v2", "v2 checksum", "v3", "v3 shards"]
KINDS: tuple[Kind, ...] = ("v2", "v2 checksum", "v3", "v3 shards")
Array = NDArray[np.generic]
Triple = tuple[int, int, int]


def micrographs() -> NDArray[np.uint8]:
    z, y, x = np.indices(EM_SHAPE)
    grey: NDArray[np.uint8] = ((z * 53 + y * 7 + x * 3 + y * x) % 251).astype(np.uint8)
    return grey


def structures(shape: Triple, ids: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Return label voxels: blobs of 3 x 5 x 5 voxels, so that blocks of 2 x 2 x 2 are mixed."""
    random = np.random.default_rng(seed)
    coarse = random.choice(np.array(ids, np.uint8), size=[n // 3 + 1 for n in shape])
    blobs = coarse.repeat(3, 0).repeat(5, 1).repeat(5, 2)
    return blobs[: shape[0], : shape[1], : shape[2]]


@dataclass
class CropSpec:
    """A crop to write: its first voxel in the micrographs, and its arrays of label voxels."""

    start: Triple
    arrays: Mapping[str, Array]
    attributes: Mapping[str, object] = field(default_factory=dict)
    array_attributes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def annotated(*names: str) -> dict[str, object]:
    """Return the attributes of a crop in which these structures were annotated."""
    return {"cellmap": {"annotation": {"version": "0.1.1", "class_names": list(names)}}}


def typed(kind: str, **counts: int) -> dict[str, object]:
    """Return the attributes of a structure's array, with the counts of its absent voxels."""
    values = {"absent": 0, "unknown": 255} | ({"present": 1} if kind == "semantic" else {})
    return {
        "cellmap": {
            "annotation": {
                "class_name": "any",
                "annotation_type": {"type": f"{kind}_segmentation", "encoding": values},
                "complement_counts": counts,
            }
        }
    }


class Writer:
    """Writes a cell. ``kind`` is the version of Zarr, and what differs between its writers."""

    def __init__(self, folder: Path, kind: Kind = "v2") -> None:
        self.path = folder / CELL / f"{CELL}.zarr"
        self.kind = kind
        self._root = zarr.open_group(str(self.path), mode="w", zarr_format=2 if "v2" in kind else 3)

    def em(self, voxels: Array, name: str = "fibsem-uint8") -> None:
        halves = {"s0": voxels, "s1": voxels[::2, ::2, ::2]}
        self.multiscale(f"recon-1/em/{name}", halves, EM_NM, (0.0, 0.0, 0.0), chunk=(8, 16, 16))

    def crop(self, name: str, spec: CropSpec) -> None:
        key = f"recon-1/labels/groundtruth/{name}"
        self._root.require_group(key).update_attributes(dict(spec.attributes))
        # The centre of the first label voxel lies half of it inside the first large voxel.
        starts = zip(spec.start, EM_NM, strict=True)
        centre = [start * voxel - voxel / 4 for start, voxel in starts]
        for array, voxels in spec.arrays.items():
            halves = {"s0": voxels, "s1": voxels[::2, ::2, ::2]}
            extra = spec.array_attributes.get(array, {})
            self.multiscale(
                f"{key}/{array}", halves, LABEL_NM, centre, chunk=(6, 8, 8), extra=extra
            )

    def multiscale(
        self,
        key: str,
        levels: Mapping[str, Array],
        voxel_nm: tuple[float, float, float],
        centre_nm: Any,
        *,
        chunk: Triple,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        group = self._root.require_group(key)
        datasets = []
        for number, (name, voxels) in enumerate(levels.items()):
            scale = [side * 2**number for side in voxel_nm]
            shift = [
                first + (large - side) / 2
                for first, large, side in zip(centre_nm, scale, voxel_nm, strict=True)
            ]
            datasets.append(
                {
                    "path": name,
                    "coordinateTransformations": [
                        {"type": "scale", "scale": scale},
                        {"type": "translation", "translation": shift},
                    ],
                }
            )
            self._array(group, name, voxels, chunk, extra or {})
        axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
        told: dict[str, Any] = {"axes": axes, "datasets": datasets, "name": ""}
        if "v3" in self.kind:
            attributes: dict[str, Any] = {"ome": {"version": "0.5", "multiscales": [told]}}
        else:
            attributes = {"multiscales": [told | {"version": "0.4"}]}
        group.update_attributes(attributes | dict(extra or {}))

    def _array(
        self, group: zarr.Group, name: str, voxels: Array, chunk: Triple, extra: Mapping[str, Any]
    ) -> None:
        shards = tuple(2 * side for side in chunk) if self.kind == "v3 shards" else None
        own: dict[str, Any] = {}
        if "v2" in self.kind:
            own["compressors"] = numcodecs.Zstd(level=3, checksum="checksum" in self.kind)
            own["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
        array = group.create_array(
            name, shape=voxels.shape, dtype=voxels.dtype, chunks=chunk, shards=shards,
            attributes=dict(extra), **own,
        )  # fmt: skip
        array[...] = voxels


MITO_IDS, ER_IDS, ENVELOPE_IDS = (3, 4, 5), (16, 17, 18, 19), (20, 21, 22, 23)
EVERY = (
    "ecs", "pm", "mito_mem", "mito_lum", "mito_ribo", "ves_mem", "ves_lum", "endo_mem", "endo_lum",
    "lyso_mem", "lyso_lum", "er_mem", "er_lum", "eres_mem", "eres_lum", "ne_mem", "ne_lum",
    "np_out", "np_in", "nucpl", "mt_out", "mt_in", "cyto", "ribo",
)  # fmt: skip


def demo_crops() -> dict[str, CropSpec]:
    """Return the crops of the demo cell.

    - ``crop1`` has everything, with voxels that are unknown, not annotated, and not in the table.
    - ``crop2`` is homogeneous: extracellular space.
    - ``crop3`` was not annotated for the ER.
    - ``crop4`` has no array ``all``: a group, instances, and the group ``er`` with the envelope.
    - ``crop10`` lies at the place of ``crop2``.
    """
    shape = (20, 24, 32)
    ids = (0, 1, 2, *MITO_IDS, *ER_IDS, *ENVELOPE_IDS, 30, 34, 35, 35, 35, 37, 60, 255)
    return {
        "crop1": CropSpec((6, 5, 11), {"all": structures(shape, ids, 1)}, annotated(*EVERY, "nuc")),
        "crop2": CropSpec((22, 40, 60), {"all": np.ones((8, 16, 16), np.uint8)}, annotated(*EVERY)),
        "crop3": CropSpec(
            (20, 0, 0), {"all": structures((10, 20, 20), (3, 16, 35), 3)}, annotated("mito", "cyto")
        ),
        "crop4": _crop_of_structures(),
        "crop10": CropSpec((22, 40, 60), {"all": np.ones((8, 16, 16), np.uint8)}, annotated("ecs")),
    }


def _crop_of_structures() -> CropSpec:
    truth = structures((12, 16, 20), (1, 4, 16, 17, 20, 22, 35), 4)
    mito = np.zeros(truth.shape, np.uint16)
    mito[truth == 4] = np.arange(1, 1 + np.count_nonzero(truth == 4))  # more than 255 instances
    arrays = {
        "ecs": (truth == 1).astype(np.uint8),
        "mito": mito,
        "er": np.isin(truth, (16, 17, 20, 22)).astype(np.uint8),
        "ne_mem": (truth == 20).astype(np.uint8),
        "ne_lum": np.zeros(truth.shape, np.uint8),
        "np_out": (truth == 22).astype(np.uint8),
        "np_in": np.zeros(truth.shape, np.uint8),
        "cyto": np.where(truth == 35, 1, 0).astype(np.uint8),
        "pm": np.zeros(truth.shape, np.uint8),
    }
    arrays["cyto"][:2, :2, :2] = 255
    told = {
        name: typed("semantic", absent=int((array == 0).sum()), unknown=int((array == 255).sum()))
        for name, array in arrays.items()
    }
    told["mito"] = typed("instance", absent=int((mito == 0).sum()), unknown=0)
    names = [*arrays, "ves"]  # ves was noted, but its array is missing
    return CropSpec((2, 30, 4), arrays, annotated(*names), told)


def write_demo(folder: Path, kind: Kind = "v2") -> Path:
    """Write the demo cell, and return its hierarchy ``folder/jrc_demo/jrc_demo.zarr``."""
    shutil.copytree(Path(_written(kind).name), folder, dirs_exist_ok=True)
    return folder / CELL / f"{CELL}.zarr"


@cache
def _written(kind: Kind) -> TemporaryDirectory[str]:
    """Write the demo cell once: its many small files take longer to write than to copy."""
    folder = TemporaryDirectory()
    writer = Writer(Path(folder.name), kind)
    writer.em(micrographs())
    for name, spec in demo_crops().items():
        writer.crop(name, spec)
    return folder
