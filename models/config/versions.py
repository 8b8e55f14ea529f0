"""Upgrades of configurations that earlier versions stored; free of torch.

Rows and ``config.json`` keep a configuration as it was written, with its version. ``upgraded``
brings it to today's fields: the upgrade of each version says what that version's fields meant.
"""

from collections.abc import Callable, Mapping

from pydantic import JsonValue, ValidationError

from models.config.stylefilter import StyleFilterConfig

CONFIG_VERSION = 13
"""The version of today's fields.

It rises whenever a field is added, removed or renamed, or a default or a meaning changes.
"""

_LAST_WITHOUT_NUMBER = 5
"""The last version whose configurations were written without its number."""

_Fields = dict[str, JsonValue]


class ConfigUnusable(ValueError):
    """This version cannot run a stored configuration."""


def upgraded(config: JsonValue, version: int | None) -> StyleFilterConfig:
    """Return a stored configuration in today's fields, checked like a new one.

    ``version`` is the number that is stored beside it. None means that it was written without a
    number; then its fields tell the version.

    Raises:
        ConfigUnusable: its version is later than this program's, or a value is not allowed today.
    """
    if not isinstance(config, dict):
        raise ConfigUnusable("the stored configuration is not a JSON object")
    version = _told_by_fields(config) if version is None else version
    if not 1 <= version <= CONFIG_VERSION:
        raise ConfigUnusable(
            f"the stored configuration has version {version}; this program reads 1 to "
            f"{CONFIG_VERSION}"
        )
    for upgrade in _UPGRADES[version - 1 :]:
        config = upgrade(config)
    try:
        return StyleFilterConfig.model_validate(config)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'config'}: {each['msg']}"
            for each in error.errors()
        )
        raise ConfigUnusable(f"the stored configuration cannot be used today: {wrong}") from error


def _told_by_fields(config: _Fields) -> int:
    """Return the version of a configuration without a number, by the first field that it lacks."""
    marks = (
        ("adaptation", "norm_statistics"),
        ("adaptation", "start_eligible"),
        ("weak_labels", "smoothness"),
        ("style", "select_on"),
    )
    for version, (stage, name) in enumerate(marks, start=1):
        fields = config.get(stage)
        if not isinstance(fields, dict) or name not in fields:
            return version
    return _LAST_WITHOUT_NUMBER


def _adding(**stages: JsonValue) -> Callable[[_Fields], _Fields]:
    """Return an upgrade that adds fields, with the values that held before they existed."""
    return lambda config: _with(config, stages)


def _with(config: Mapping[str, JsonValue], added: Mapping[str, JsonValue]) -> _Fields:
    merged = {**added, **config}  # what was stored prevails
    for name, fields in added.items():
        own = merged[name]
        if isinstance(fields, dict) and isinstance(own, dict):
            merged[name] = _with(own, fields)
    return merged


_STRONG: _Fields = {
    "probability": 0.0,
    "gamma": 0.5,
    "blur": 0.35,
    "sharpen": 0.2,
    "contrast": 0.5,
    "brightness": 0.2,
    "noise_sigma": 0.12,
    "cutouts": 0.5,
}

_MILD: _Fields = {"augmentation": {"zoom": 0.0, "strong": _STRONG}}

_STEP: _Fields = {"precision": "float32", "accumulate": 1}

_UPGRADES: tuple[Callable[[_Fields], _Fields], ...] = (
    _adding(  # 1 -> 2
        style=_STEP,
        pretrain=_STEP,
        adaptation={
            **_STEP,
            "pseudo_labeler": "current",
            "ema_decay": 0.99,
            # A running mean over both domains' batches: not today's default.
            "norm_statistics": "both",
            "select_on": "target_val",
            "epoch_by": "source",
        },
    ),
    _adding(adaptation={"start_eligible": False}),  # 2 -> 3
    _adding(  # 3 -> 4
        ynet={"weight_reconstruction": 1e-3, "reconstruct": "both"},
        weak_labels={
            "weight_labels": 0.2,
            "smoothness": 1.0,
            "pool_px": 8,
            "dropout": 0.1,
            "weight_class_alignment": 1e-3,
            "weight_output_alignment": 1e-3,
            "feature": "decoder",
            "learning_rate": 1e-4,
            "clip_norm": 1.0,
        },
        fourier_beta=0.01,
    ),
    _adding(  # 4 -> 5
        style={"select_on": "last", "validate_every_steps": 250},
        weak_labels={"discriminator_filters": 64},
    ),
    _adding(pretrain=_MILD, adaptation=_MILD),  # 5 -> 6
    _adding(  # 6 -> 7
        pretrain={"learning_rate_decay": "none", "dice_weight": 0.0},
        adaptation={"learning_rate_decay": "none"},
    ),
    _adding(  # 7 -> 8
        rounds={
            "statistics": "source",
            "relabel_every_steps": 75,
            "ema_decay": 0.98,
            "add_share": 0.03,
            "presence_weight": 0.5,
            "presence_share": 0.03,
            "presence_tiles": 80,
            "area_power": 0.0,
            "area_at_end": True,
            "protect_uninformative": True,
            "strong": {**_STRONG, "probability": 0.5},
            "reinitialise_student": False,
        }
    ),
    _adding(  # 8 -> 9
        choice={
            "target_statistics": True,
            "max_trained": 3,
            "held_back": 0.25,
            "hold_back_from_tiles": 120,
        }
    ),
    _adding(  # 9 -> 10
        choice={"views": ["inverted", "stretched", "histogram"], "pixel_factors": []}
    ),
    _adding(method="stylefilter"),  # 10 -> 11
    _adding(  # 11 -> 12
        rounds={
            "masked_sections": 0,
            "mask_rows": 1.0,
            "mask_share": 0.8,
            "point_weight": 0.5,
            "point_radius_nm": 40.0,
        }
    ),
    _adding(  # 12 -> 13
        choice={"ensemble": 1, "style_from_loss": None, "student_steps": 450, "retrain": False}
    ),
)
"""The upgrades from version 1 to 2, from 2 to 3, and so on."""
assert len(_UPGRADES) == CONFIG_VERSION - 1
