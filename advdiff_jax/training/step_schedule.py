"""Schedule of the penalty: it may start late, and be applied in every k-th step only (lazy regularisation).

A lazy penalty is scaled by the interval k, so that the mean gradient of a cycle of k steps is that of the full objective. Adam
divides by a running root mean square, which sees the scaled gradients too. Its memory (1 / (1 - beta2), a thousand steps) is
much longer than a cycle, so it scales all steps of a cycle alike, and the mean update vanishes at the same parameters as for
the full objective (tests/training/test_step_schedule.py). That is why the penalty is added to the plain gradient of the same
step: in a step of its own, as in StyleGAN2, learning rate and betas would have to be rescaled by k / (k + 1). Clipping of the
gradient's norm is not linear: a step with a lazy penalty has k times the bound, or clipping would undo the scale.
"""

import dataclasses

from advdiff_jax.errors import InvalidArgument


@dataclasses.dataclass(frozen=True)
class StepSchedule:
    """When a run applies the penalty.

    Attributes:
        total: steps of the run.
        start: first step with the penalty; `total` or more: none has it.
        interval: from `start` on, every `interval`-th step has the penalty.

    Raises:
        InvalidArgument: a negative `start`, or `interval` < 1.
    """

    total: int
    start: int = 0
    interval: int = 1

    def __post_init__(self):
        if self.interval < 1 or self.start < 0:
            raise InvalidArgument(f"need lazy_interval >= 1 and start_step >= 0, got {self.interval} and {self.start}")

    def has_penalty(self, step: int) -> bool:
        """Says whether step `step` (counted from 0) has the penalty."""
        return step >= self.start and (step - self.start) % self.interval == 0

    def penalty_steps(self, done: int) -> int:
        """Counts the steps with the penalty among the first `done`."""
        return max(0, -(-(done - self.start) // self.interval))

    def shares(self) -> dict[bool, float]:
        """Returns whether a step has the penalty -> share of all steps, for the kinds of step that the run takes."""
        penalised = self.penalty_steps(self.total) / self.total
        return {kind: share for kind, share in {False: 1.0 - penalised, True: penalised}.items() if share}
