"""The base of every config: frozen, strict, and changed by some of its fields; free of torch."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict


class Replaces:
    """The mark of a length in steps. Unless it is None, it replaces the named lengths in epochs."""

    def __init__(self, *epochs: str) -> None:
        self.epochs = frozenset(epochs)


class Option:
    """The mark of a field that changes nothing while it has its default.

    The field may then be left out of what identifies a training (``FrozenConfig.deciding``), so
    that results from before the field existed keep their identity.
    """


class FrozenConfig(BaseModel):
    """The base of all configs: immutable; unknown keys, infinities and NaN are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def changed(self, fields: Mapping[str, object]) -> Self:
        """Return this config with some fields replaced, and validated once, as a whole.

        ``fields`` is a part of the config as JSON holds it; fields that it leaves out stay, in
        nested objects too. A length in epochs sets the steps that would replace it to None, unless
        ``fields`` gives these steps as well.

        Raises:
            ValidationError: pydantic's, which names the path of each wrong field.
        """
        return self.model_validate(self._merged(fields))

    def deciding(self) -> dict[str, object]:
        """Return the fields that decide a result, as JSON holds them: no ``Option`` at its default.

        Fields of nested configs are left out alike.
        """
        deciding = dict[str, object]()
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            optional = any(isinstance(mark, Option) for mark in field.metadata)
            if not (optional and value == field.default):
                nested = isinstance(value, FrozenConfig)
                deciding[name] = value.deciding() if nested else value
        return deciding

    def _merged(self, fields: Mapping[str, object]) -> dict[str, object]:
        # A plain dict, not yet a config: values are validated together at the end.
        merged: dict[str, object] = dict(self)
        for name, field in type(self).model_fields.items():
            marks = (mark for mark in field.metadata if isinstance(mark, Replaces))
            # Steps that a preset sets would otherwise hide the epochs that were asked for.
            if any(mark.epochs & fields.keys() for mark in marks):
                merged[name] = None
        for name, value in fields.items():
            own = merged.get(name)
            if isinstance(own, FrozenConfig) and isinstance(value, Mapping):
                merged[name] = own._merged(value)
            else:
                merged[name] = value
        return merged
