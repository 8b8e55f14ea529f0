"""What stands beside a network's weights; free of torch."""

import json
from typing import Literal, Self

from models.config import StyleFilterConfig
from models.config_versions import CONFIG_VERSION, upgraded
from models.data.domain import Domain
from models.frozen_config import FrozenConfig

METHOD_VERSION = "5"
"""Raised whenever the same config and data would give other weights."""


class DomainMeta(FrozenConfig):
    """How images of a domain are normalised and scaled before a network sees them."""

    name: str
    pixel_size_nm: float
    intensity_window: tuple[float, float]

    @classmethod
    def of(cls, domain: Domain) -> Self:
        info = domain.info
        return cls(
            name=info.name,
            pixel_size_nm=info.pixel_size_nm,
            intensity_window=info.intensity_window,
        )


class ModelMeta(FrozenConfig):
    """What prediction needs to know of a network, and what it was trained on.

    ``target`` is None for a segmenter that has seen the source only.
    """

    kind: Literal["generator", "segmenter"]
    config: StyleFilterConfig
    config_version: int = CONFIG_VERSION
    class_names: tuple[str, ...]
    working_nm: float
    source: DomainMeta
    target: DomainMeta | None
    method_version: str = METHOD_VERSION

    @classmethod
    def read(cls, stored: str) -> Self:
        """Return what a ``config.json`` of this or an earlier version says, in today's fields.

        Fields beside the configuration that this version does not know are passed over.

        Raises:
            ValueError: it is damaged; as ConfigUnusable, its configuration cannot be used.
        """
        fields = json.loads(stored)
        if not isinstance(fields, dict):
            raise ValueError("is no object")
        known = {name: fields[name] for name in cls.model_fields.keys() & fields.keys()}
        config = upgraded(fields.get("config"), fields.get("config_version"))
        return cls.model_validate(known | {"config": config, "config_version": CONFIG_VERSION})

    @property
    def crop_px(self) -> int:
        """Side of the crops a segmenter was last trained on."""
        adapted = self.target is not None
        return (self.config.adaptation if adapted else self.config.pretrain).crop_px
