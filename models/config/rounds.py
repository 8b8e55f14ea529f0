"""Configuration of self-training in rounds (``labels_used/rounds.py``); free of torch.

The number of steps, the batch, the crops and the learning rate are those of ``adaptation``. The
defaults were measured by scratch experiments on two pairs of microscopes, one seed each.
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from models.config.augmentation import StrongAugmentationConfig
from models.config.base import FrozenConfig, Option

MaskedSections = Annotated[
    Annotated[int, Field(ge=0, le=1000), Tag("number")]
    | Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=300)], ...],
        Field(max_length=1000),
        Tag("names"),
    ],
    # So that a refusal names what is wrong with the one form that was sent, and not with both.
    Discriminator(lambda given: "names" if isinstance(given, list | tuple) else "number"),
]
"""A number of sections, or their names."""


POINT_RADIUS_NM = 40.0
"""The distance within which a point and a prediction of its class are of the same organelle."""


class RoundsConfig(FrozenConfig):
    """Self-training in rounds, in which labels remove classes, add them, and are learnt."""

    statistics: Literal["source", "target"] = Field(
        "source",
        description="The images from which batch norm takes its statistics. `source`: those that "
        "the source-only segmenter stored, also while it trains further. `target`: those of the "
        "batch while it trains; before images are labelled, scored or kept, they are estimated "
        "from crops without noise. The target's may bring more, and on some pairs destroy a class.",
    )
    relabel_every_steps: int = Field(
        75,
        ge=1,
        description="The number of steps of a round. Before each round the averaged weights label "
        "the training images anew, as the mean over four rotations. More rounds take more time.",
    )
    ema_decay: float = Field(
        0.98,
        ge=0,
        lt=1,
        description="The share of the averaged weights that each step keeps. In the nth step it is "
        "at most n / (n + 9), so that the first steps count. The averaged weights make the labels "
        "and are the result: the weights of single steps swing by some points of DICE.",
    )
    add_share: float = Field(
        0.03,
        ge=0,
        le=0.5,
        description="If a class covers less than this share of a tile that is labelled with it, "
        "the same share of the tile's pixels, the most likely ones, become the class; as many "
        "after them are ignored. 0 adds none. An organelle covers a few per cent of a tile.",
    )
    presence_weight: float = Field(
        0.5,
        ge=0,
        le=100,
        description="The weight of the loss by which labels are learnt: a tile's most likely "
        "pixels of a class belong to it if the tile is labelled present, and not if absent. 0 "
        "leaves it out.",
    )
    presence_share: float = Field(
        0.03, gt=0, le=1, description="The share of a tile's pixels that this loss looks at."
    )
    presence_tiles: int = Field(
        80,
        ge=1,
        description="The number of labelled tiles from which the loss has its full weight. With "
        "fewer its weight falls in proportion: 16 tiles with the whole weight made the result "
        "worse than none, and with a weight of 0.1 they did not.",
    )
    area_power: float = Field(
        0.0,
        ge=0,
        le=1,
        description="The share of a correction of area. The whole correction shifts a class until "
        "it covers as much of the tiles labelled with it as of the source's tiles that hold it. 0 "
        "corrects nothing. It helps where a class is drawn too small, and costs where the source's "
        "area is not the target's.",
    )
    area_at_end: bool = Field(
        True,
        description="`true` corrects the area of the result too, and not of the labels alone.",
    )
    protect_uninformative: bool = Field(
        True,
        description="`true` protects classes that nine of ten labels call present: between two "
        "such classes the source-only segmenter decides, since labels say nothing about them.",
    )
    strong: StrongAugmentationConfig = Field(
        StrongAugmentationConfig(probability=0.5),
        description="Strong changes of the grey values of target crops, in the place of those of "
        "`adaptation.augmentation`. The network has to give them the labels of the unchanged "
        "images.",
    )
    reinitialise_student: bool = Field(
        False,
        description="`true` sets the trained weights back to those of the source alone before each "
        "round, so that a round forgets the mistakes of earlier labels. It needs long rounds.",
    )
    masked_sections: Annotated[MaskedSections, Option()] = Field(
        0,
        description="The training sections of the target whose masks training may use: a number of "
        "them, evenly spread, or their names. Their masks take the place of pseudo-labels, and "
        "where labels choose, a part of them chooses. 0 uses no mask, because masks of a target "
        "are often there for the final scores alone.",
    )
    mask_rows: Annotated[float, Option()] = Field(
        1.0,
        gt=0,
        le=1,
        description="The share of the rows of these masks, from the top, that training uses.",
    )
    mask_share: Annotated[float, Option()] = Field(
        0.8,
        ge=0,
        le=1,
        description="The share of the target crops that are drawn from these sections; the others "
        "are drawn from all sections. Where pseudo-labels have lost a class, few crops of a mask "
        "cannot bring it back: on a small artificial pair one mask did with 0.8, and did not with "
        "0.5. With 1 the network sees no other section.",
    )
    point_weight: Annotated[float, Option()] = Field(
        0.5,
        ge=0,
        le=100,
        description="The weight of a loss of the pixels around the target's points, in a mean of "
        "their own: they are few among the pixels of a crop. With a weight above 0 the "
        "pseudo-labels meet the points, too. 0 leaves the points out. Without points it changes "
        "nothing.",
    )
    point_radius_nm: Annotated[float, Option()] = Field(
        POINT_RADIUS_NM,
        ge=0,
        le=1e6,
        description="The radius of the disc around a point that counts as its class, in "
        "nanometres; with 0 it is the pixel alone. An organelle is some hundred nanometres wide, "
        "so a disc of this size lies inside it even if the point is not in the middle. For thin "
        "classes, such as membranes, take less.",
    )
