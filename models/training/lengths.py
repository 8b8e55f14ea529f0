"""The number of steps of a stage, and the learning rate at each of them; free of torch."""

from dataclasses import dataclass
from typing import Self

from models.config.stages import AdaptationConfig, SegmenterTrainingConfig, StyleConfig


@dataclass(frozen=True)
class Schedule:
    """A learning rate: full for ``constant`` periods, then falling evenly over ``decay`` ones.

    A period is an epoch of ``period_steps`` steps, or one step where the config counts in steps.
    """

    constant: int
    decay: int
    period_steps: int

    @classmethod
    def of(cls, config: StyleConfig, num_sections: int, *, num_processes: int = 1) -> Self:
        """Return the schedule of a style training.

        An epoch is one pass over the larger domain; an incomplete last batch is dropped.
        """
        if config.steps is not None:
            # Half of them with decay, as the paper's epochs have it.
            return cls.halved(config.steps)
        per_epoch = max(1, num_sections // (config.batch_size * num_processes))
        return cls(config.epochs_constant, config.epochs_decay, per_epoch)

    @classmethod
    def halved(cls, steps: int) -> Self:
        """Return the schedule of so many steps whose second half has the decay."""
        return cls(steps - steps // 2, steps // 2, 1)

    @property
    def steps(self) -> int:
        return (self.constant + self.decay) * self.period_steps

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at ``step``, which counts from 1.

        In the last period it is still 1 / (decay + 1), as in the reference.
        """
        period = (step - 1) // self.period_steps + 1
        return 1 - max(0, period - self.constant) / (self.decay + 1)


@dataclass(frozen=True)
class Lengths:
    """The number of steps of a segmenter's training, and from one validation to the next."""

    steps: int
    interval: int
    schedule: Schedule

    @classmethod
    def of(
        cls, config: SegmenterTrainingConfig, num_sections: int, *, num_processes: int = 1
    ) -> Self:
        """Return the lengths of a segmenter's training.

        An epoch is one pass over ``num_sections``; its last batch is filled from the next epoch.
        """
        per_epoch = -(-num_sections // (config.batch_size * num_processes))
        steps = config.steps or max(1, round(config.epochs * per_epoch))
        return cls(
            steps,
            config.validate_every_steps or max(1, round(config.validate_every_epochs * per_epoch)),
            Schedule.halved(steps)
            if config.learning_rate_decay == "linear"
            else Schedule(steps, 0, 1),
        )


def sections_per_epoch(config: AdaptationConfig, num_source: int, num_target: int) -> int:
    """Return the number of training sections that one epoch of adaptation passes over."""
    choices = {"source": num_source, "target": num_target, "max": max(num_source, num_target)}
    return choices[config.epoch_by]
