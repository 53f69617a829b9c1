"""Which step is done when: the second term may start late, and be computed in every k-th step only.

A lazy term is k times as heavy, so that the mean gradient of a cycle of k steps is that of the full objective. Adam divides by
a running root mean square, which sees the k-fold gradients too; its memory (1 / (1 - beta2), a thousand steps) is much
longer than a cycle, so it scales all steps of a cycle alike and the parameters at which the mean update vanishes are those of
the full objective (tests/test_plan.py). That is why the term is added to the plain gradient of the same step: were it given
a step of its own, as in StyleGAN2, learning rate and betas would have to be rescaled by k / (k + 1). What is not linear is
the clipping of the gradient's norm: a lazy step has k times the bound, or the clipping would undo the weight.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from advdiff_jax.training.state import TrainState

TrainStep = Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps of a run.

    Attributes:
        total: how many.
        plain: the step without a second term; done wherever `full` is not.
        full: the step with it.
        start: first step with the term.
        every: from there on, the term is in each `every`-th step.

    Raises:
        ValueError: a negative `start`, or `every` < 1.
    """

    total: int
    plain: TrainStep
    full: TrainStep
    start: int = 0
    every: int = 1

    def __post_init__(self):
        if self.every < 1 or self.start < 0:
            raise ValueError(f"need every >= 1 and start_step >= 0, got {self.every} and {self.start}")

    def is_full(self, step: int) -> bool:
        """Whether step `step` (counted from 0) has the second term."""
        return step >= self.start and (step - self.start) % self.every == 0

    def full_steps(self, done: int) -> int:
        """How many of the first `done` steps have the term."""
        return max(0, -(-(done - self.start) // self.every))

    def parts(self) -> dict[bool, tuple[float, TrainStep]]:
        """Has the term -> (share of all steps, the step), of those that are done at all."""
        full = self.full_steps(self.total) / self.total
        return {key: part for key, part in {False: (1.0 - full, self.plain), True: (full, self.full)}.items() if part[0]}
