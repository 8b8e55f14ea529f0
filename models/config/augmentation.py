"""Configurations of the random changes of training images; free of torch."""

from typing import Annotated

from pydantic import Field

from models.config.base import FrozenConfig, Option


class StrongAugmentationConfig(FrozenConfig):
    """Strong random changes of grey values, each of which is off at 0. No paper has them: [A]."""

    probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="The probability that a crop is changed strongly instead of the ordinary way.",
    )
    gamma: float = Field(
        0.5,
        ge=0,
        le=2,
        description="The largest logarithm of the power to which grey values are raised, and minus "
        "the smallest one.",
    )
    blur: float = Field(
        0.35,
        ge=0,
        le=1,
        description="The probability of a Gaussian blur, whose standard deviation is 0.5 to 1.8 "
        "pixels.",
    )
    sharpen: float = Field(
        0.2,
        ge=0,
        le=1,
        description="The probability that what such a blur takes away is added instead. No crop is "
        "blurred and sharpened: the blur comes first if both probabilities exceed 1 together.",
    )
    contrast: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The largest gain of contrast, as a share of the contrast. The largest loss is "
        "0.8 times as much.",
    )
    brightness: float = Field(
        0.2, ge=0, le=1, description="The largest shift of grey values, which lie in [0, 1]."
    )
    noise_sigma: float = Field(
        0.12,
        ge=0,
        le=1,
        description="The largest standard deviation of Gaussian noise on grey values.",
    )
    cutouts: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The probability that one to three squares of 8 to 28 pixels become mid grey. "
        "Their pixels keep their classes.",
    )


class AugmentationConfig(FrozenConfig):
    """Random changes of training images. The paper names them; their strengths are assumptions."""

    rotate: bool = Field(
        True, description="`true` rotates each crop by a random multiple of 90 degrees."
    )
    brightness: float = Field(
        0.2, ge=0, le=1, description="The largest shift of grey values, which lie in [0, 1]."
    )
    contrast: float = Field(
        0.2, ge=0, le=1, description="The largest change of contrast, as a share of the contrast."
    )
    noise_sigma: float = Field(
        0.05, ge=0, le=1, description="The standard deviation of Gaussian noise on grey values."
    )
    zoom: Annotated[float, Option()] = Field(
        0.0,
        ge=0,
        le=1,
        description="The largest logarithm of the factor by which a source crop is enlarged at "
        "random, and minus the smallest one. Target crops keep their scale, as their labels need.",
    )
    strong: Annotated[StrongAugmentationConfig, Option()] = Field(
        StrongAugmentationConfig(), description="Strong changes of grey values, off by default."
    )
