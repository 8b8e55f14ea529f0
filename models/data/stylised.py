"""The target in the style of the source: stylised once, then read like any domain."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from models.data.domain import Domain
from models.data.sections import Section


class StylisedDomain(Domain):
    """The sections of ``raw`` with the images of ``store``: float32 in [0, 1], working pixel size.

    ``store`` is a Zarr group of arrays ``images/<index>``, made by the styliser whose identity is
    ``style``. Masks, tiles and labels are those of ``raw``. Only sections with an image in the
    store are listed.
    """

    def __init__(self, raw: Domain, store: Path, style: str) -> None:
        self._images = zarr.open_group(str(store), mode="r")
        stylised = [s for s in raw.sections if array_name(s) in self._images]
        # Another generator makes other data: stages must not take each other's results.
        info = replace(raw.info, digest=f"{raw.info.digest} stylised by {style}")
        super().__init__(raw.store, info, stylised, raw.tiles, working_nm=raw.working_nm)
        self.raw = raw

    def _read_image(self, section: Section) -> NDArray[np.float32]:
        image = np.asarray(self._images[array_name(section)], dtype=np.float32)
        image.setflags(write=False)
        return image


def array_name(section: Section) -> str:
    """Return the name of a section's image in the store."""
    return f"images/{section.index:06d}"
