"""Checks of an attack against itself (Athalye et al. 2018, Carlini et al. 2019): an attack that fails them proves nothing."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from advdiff_jax.evaluation.report import number

SLACK = 0.99  # a check holds within a hundredth: two attacks that both find the worst case differ by rounding


class Curve(NamedTuple):
    """The displacement under one threat, over budget and method.

    Attributes:
        name: SAMPLER_BALL_THREAT.
        kappas: budgets, ascending.
        huge: a budget under which nothing can stand.
        methods: the strongest first, "random" last.
        displacement: (method, kappa) -> root mean square over coordinates of each example, [N].
        spread: RMS distance over coordinates between two samples of different starts.
    """

    name: str
    kappas: Sequence[float]
    huge: float
    methods: Sequence[str]
    displacement: dict[tuple[str, float], np.ndarray]
    spread: float

    def rms(self, method: str, kappa: float) -> float:
        """Returns the displacement's root mean square over examples."""
        return float(np.sqrt(np.mean(self.displacement[method, kappa] ** 2)))

    def largest(self, kappa: float) -> float:
        """Returns the strongest method's largest displacement of an example."""
        return float(np.max(self.displacement[self.methods[0], kappa]))

    def numbers(self) -> dict[str, float]:
        """Returns the numbers of the strongest method for results.json."""
        found = {f"attack_{self.name}_{kappa:g}": self.rms(self.methods[0], kappa) for kappa in self.kappas}
        return found | {f"attack_{self.name}_{kappa:g}_max": self.largest(kappa) for kappa in self.kappas}

    def rows(self, distances: dict[float, float]) -> list[tuple[str, ...]]:
        """Returns a row of a table for each budget; `distances` by kappa, that without attack at 0."""
        blank = ("",) * (len(self.methods) + 1)
        start = [(self.name, "0", *blank, number(distances[0.0]))] if np.isfinite(distances.get(0.0, np.nan)) else []
        return start + [
            (
                self.name,
                f"{kappa:g}",
                *(number(self.rms(method, kappa)) for method in self.methods),
                number(self.largest(kappa)),
                number(distances[kappa]) if np.isfinite(distances.get(kappa, np.nan)) else "",
            )
            for kappa in self.kappas
        ]

    def summary(self) -> str:
        """Returns a line for the log."""
        at = ", ".join(f"{number(self.rms(self.methods[0], kappa))} at kappa={kappa:g}" for kappa in self.kappas)
        return f"displacement under {self.methods[0]} {at}"


class Check(NamedTuple):
    """What was checked, with its numbers, and whether it holds."""

    text: str
    holds: bool


def spread(samples: np.ndarray) -> float:
    """Computes the RMS distance over coordinates between samples [N, ...] of different starts."""
    flat = samples.reshape(len(samples), -1).astype(np.float64)
    return float(np.sqrt(2.0 * np.mean(np.var(flat, axis=0, ddof=1))))


def check(curve: Curve) -> list[Check]:
    """Checks the order of the methods at each budget, that damage grows with the budget, and that a huge one breaks all."""
    budgets = (*curve.kappas, curve.huge)
    found = {method: [curve.rms(method, kappa) for kappa in budgets] for method in curve.methods}
    ordered, failing = " >= ".join(curve.methods), []
    for i, kappa in enumerate(curve.kappas):
        values = [found[method][i] for method in curve.methods]
        if not all(a >= SLACK * b for a, b in itertools.pairwise(values)):
            failing.append(f"kappa={kappa:g}: {', '.join(map(number, values))}")
    said = f"at {len(curve.kappas)} budgets" if not failing else f"not at {'; '.join(failing)}"
    strongest = found[curve.methods[0]]
    grows = all(a <= b / SLACK for a, b in itertools.pairwise(strongest))
    shown = ", ".join(map(number, strongest))
    return [
        Check(f"{curve.name}: {ordered}, {said}", not failing),
        Check(f"{curve.name}: damage grows with kappa={', '.join(f'{kappa:g}' for kappa in budgets)}: {shown}", grows),
        Check(
            f"{curve.name}: kappa={curve.huge:g} moves samples by {number(strongest[-1])}, two of them are "
            f"{number(curve.spread)} apart, and the first must not be less",
            strongest[-1] >= SLACK * curve.spread,
        ),
    ]


def warning(checks: Sequence[Check]) -> str:
    """Returns a line if a check fails, with how many and the first; "" if all hold."""
    failed = [one for one in checks if not one.holds]
    if not failed:
        return ""
    return (
        f"attack: {len(failed)} of {len(checks)} checks fail, the first: {failed[0].text}; raise "
        "config.evaluation.attack.pgd_steps or restarts before the attack is believed"
    )
