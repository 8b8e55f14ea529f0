"""The metadata that is stored beside a network's weights; free of torch."""

import json
from typing import Literal, Self

from pydantic import Field

from models.config.base import FrozenConfig
from models.config.choice import LEAST_PIXEL_FACTOR, MOST_PIXEL_FACTOR, ViewName
from models.config.stylefilter import StyleFilterConfig
from models.config.versions import CONFIG_VERSION, upgraded
from models.data.domain import Domain

METHOD_VERSION = "5"
"""The version of the method. It rises when the same config and data would give other weights."""


class DomainMeta(FrozenConfig):
    """The numbers by which images of a domain are normalised and scaled for a network."""

    name: str
    pixel_size_nm: float
    intensity_window: tuple[float, float]

    @classmethod
    def of(cls, domain: Domain) -> Self:
        """Return the metadata of a domain."""
        info = domain.info
        return cls(
            name=info.name,
            pixel_size_nm=info.pixel_size_nm,
            intensity_window=info.intensity_window,
        )


class ViewMeta(FrozenConfig):
    """The change of an image that comes before a network, with the numbers that it needs.

    ``quantiles`` are those of the source's grey values, for the views with ``histogram`` in their
    name. The network sees the image at ``pixel_factor`` times the working pixel size.
    """

    name: ViewName = "raw"
    quantiles: tuple[float, ...] = ()
    pixel_factor: float = Field(1.0, ge=LEAST_PIXEL_FACTOR, le=MOST_PIXEL_FACTOR)


RAW = ViewMeta()
"""The image as it is."""


class ModelMeta(FrozenConfig):
    """The facts about a network that prediction needs, and the data that trained the network.

    The network works at ``working_nm`` nanometres per pixel. ``target`` is None for a segmenter
    that has seen the source only. ``view`` is a part of a segmenter: it comes before any style.
    """

    kind: Literal["generator", "segmenter"]
    config: StyleFilterConfig
    config_version: int = CONFIG_VERSION
    class_names: tuple[str, ...]
    working_nm: float
    source: DomainMeta
    target: DomainMeta | None
    method_version: str = METHOD_VERSION
    view: ViewMeta = RAW

    @classmethod
    def read(cls, stored: str) -> Self:
        """Return the content of a ``config.json`` of this or an earlier version, in today's fields.

        Fields beside the configuration that this version does not know are ignored.

        Raises:
            ValueError: it is damaged, or (as ConfigUnusable) its configuration cannot be used.
        """
        fields = json.loads(stored)
        if not isinstance(fields, dict):
            raise ValueError("it is not a JSON object")
        known = {name: fields[name] for name in cls.model_fields.keys() & fields.keys()}
        config = upgraded(fields.get("config"), fields.get("config_version"))
        return cls.model_validate(known | {"config": config, "config_version": CONFIG_VERSION})

    @property
    def crop_px(self) -> int:
        """The side, in pixels, of the crops that a segmenter was last trained on."""
        adapted = self.target is not None
        return (self.config.adaptation if adapted else self.config.pretrain).crop_px
