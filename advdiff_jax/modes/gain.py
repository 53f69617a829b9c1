"""`--mode=gain`: plots how much of a data direction of standard deviation s a config's radius and weight preserve.

The gain T(s) is known in closed form for a linear model (`diffusion.gain`); ideal is 0 for noise and 1 for signal. Beside it
stands the gain of the same linear model under the config's own sampler and steps, with which the measured gain of a run can
be compared; the two differ where steps are long, or the sampler draws noise.
"""

import logging
import pathlib
from collections.abc import Callable

import ml_collections
import numpy as np

from advdiff_jax import workdir
from advdiff_jax.builders import levels, noise_file
from advdiff_jax.builders.data import build_data, known_noise_std
from advdiff_jax.builders.gain import LEVELS, TABLE_LEVELS, TABLE_STDS, build_closed_form, build_curve, curve_stds
from advdiff_jax.builders.registry import as_user_error
from advdiff_jax.data import pixels
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import gain_figure, principal_directions, report
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)

MEASURED_ON = 10_000  # examples from which the noise floor of an adaptive weight is estimated before training
TABLE_EFFECTIVE = (0.1, 0.2, 0.58)  # the stds whose effective value is shown at each level

MEANING = (
    "s: standard deviation of a direction of the data; gain T(s): share of it that samples keep, ideally 0 for noise and 1 for "
    "signal, in closed form, and as sampled by this config's own sampler and steps, which is what a run will show; u = sigma / "
    "alpha; radius: bound on delta, VP state units; share = kappa / (1 + kappa): the part of any direction's variance that the "
    "model does not see at u (equivariance), so that s acts as s / sqrt(1 + kappa)"
)


def _noise_floor_of_data(config: ml_collections.ConfigDict) -> Callable[[], float]:
    def noise_floor():
        data = build_data(config)
        is_measured = levels.is_floor_measured(config, data)
        least = noise_file.CUT * noise_file.common_level(levels.build_levels(config, data)) if is_measured else 0.0
        if not noise_file.follows_training(config):
            return least
        train = pixels.evenly_spaced(data.train, min(MEASURED_ON, config.evaluation.max_reference))
        with as_user_error("config.evaluation.max_reference, or the data"):
            return max(least, principal_directions.noise_level(train, config.robust.explained))

    return noise_floor


def tables(curve: gain_figure.Curve, noise: float | None, invariant: str) -> tuple[list, list]:
    """Returns the numbers of a curve as two tables of text, heads first: gain by s, and the penalty by u.

    Args:
        curve: of one config.
        noise: standard deviation of the noise in the data, which gets a row; None: not known.
        invariant: what the penalty keeps, see `ClosedForm`.
    """
    gain = [("s", "gain T(s)", *(["as sampled"] if curve.sampled is not None else []))]
    for std in sorted({*TABLE_STDS, *([noise] if noise else [])}):
        shown = [values for values in (curve.gain, curve.sampled) if values is not None]
        gain.append((f"{std:g}", *(f"{gain_figure.interpolate(std, curve.stds, values):.3f}" for values in shown)))

    effective = TABLE_EFFECTIVE if invariant == "x0" else ()  # the control hides no variance: it hides the noise
    levels = [("u", "radius", "lambda", "kappa", "share", *(f"s = {s:g} acts as" for s in effective))]
    kept = {}  # levels that a process does not reach fall on its ends: each once
    for i in np.searchsorted(LEVELS, TABLE_LEVELS):
        u, radius, lam, kappa, share = (float(values[i]) for values in (*curve.strength, curve.strength.share))
        acting = (f"{s / np.sqrt(1.0 + kappa):.3g}" for s in effective)
        kept[f"{u:.3g}"] = (f"{u:.3g}", f"{radius:.3g}", f"{lam:.3g}", f"{kappa:.3g}", f"{share:.3f}", *acting)
    return gain, [*levels, *kept.values()]


def aligned(table: list) -> str:
    """Returns rows of text as columns flushed right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


@parallel.on_first_process
def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Prints the tables, and writes `folder`/gain: gain.png, gain.json and report.html. Trains nothing, and claims no run.

    Returns:
        the report.

    Raises:
        UserError: see `builders.gain.build_closed_form`.
    """
    closed_form, title = build_closed_form(config, _noise_floor_of_data(config)), f"{config.name}:{config.variant}"
    noise = known_noise_std(config)
    curve = build_curve(config, closed_form, title, curve_stds((noise,) if noise else ()))
    gain, levels = tables(curve, noise, closed_form.invariant)
    description = f"{config.variant}: {closed_form.description}"
    if closed_form.noise_floor:
        description += " A linear model would measure that level on these data; results.json of a run has the network's own."
    print(description, aligned(gain), aligned(levels), sep="\n\n", end="\n\n")
    sections = [report.Section("Gain", table=gain), report.Section("The penalty by noise level", table=levels)]
    return _write(folder / "gain", title, [curve], noise, description, sections)


@parallel.on_first_process
def run_many(runs: list, folder: pathlib.Path, title: str) -> pathlib.Path:
    """Draws a list of runs as one figure, a curve per label; equal curves are drawn once, runs without one are left out.

    Args:
        runs: `sweep.run.Run`s.
        folder: of the list; writes `folder`/gain.
        title: of the report.

    Raises:
        UserError: no run has a closed form.
    """
    curves, labels, noise, firsts = {}, {}, set(), {}
    for one in runs:
        firsts.setdefault(one.label, one)  # seeds share a curve
    for one in firsts.values():
        config = one.config
        # All that a curve reads; the data only where a weight follows them, or the ball asks for their dimension.
        read = ["objective", "robust", "baselines", "diffusion"]
        read += ["data"] if config.robust.weight == "adaptive" or config.robust.ball == "l2" else []
        key = "".join(str(config[section]) for section in read)
        noise.add(known_noise_std(config))
        labels.setdefault(key, {})[one.label] = None
        if key not in curves:
            try:
                closed_form = build_closed_form(config, _noise_floor_of_data(config))
                curves[key] = build_curve(config, closed_form, one.label, curve_stds(), as_sampled=False)
            except UserError as error:
                curves[key] = None
                log.warning("%s: %s", one.label, error)
    missing = [_joined(labels[key]) for key, curve in curves.items() if curve is None]
    drawn = [curve._replace(label=_joined(labels[key])) for key, curve in curves.items() if curve is not None]
    if not drawn:
        raise UserError(f"no run of the list {title} has a closed form of the gain: set another variant, or train")
    table = [("run", *(f"T({s:g})" for s in TABLE_STDS))]
    table += [
        (curve.label, *(f"{gain_figure.interpolate(s, curve.stds, curve.gain):.3f}" for s in TABLE_STDS)) for curve in drawn
    ]
    print(aligned(table), end="\n\n")
    summary = "Runs with the same curve share a line." + (f" Without a closed form: {', '.join(missing)}." if missing else "")
    known = noise.pop() if len(noise) == 1 else None
    return _write(folder / "gain", title, drawn, known, summary, [report.Section("Gain", table=table)])


def _joined(labels):
    first, *more = labels
    return f"{first} (and {len(more)} more)" if more else first


def _write(out, title, curves, noise, summary, sections):
    out.mkdir(parents=True, exist_ok=True)
    gain_figure.draw(curves, noise).savefig(out / "gain.png")
    workdir.write_json(out / "gain.json", {curve.label: curve.numbers() for curve in curves} | {"noise_std": noise})
    image = report.image(out / "gain.png", "What the penalty does, in closed form.", wide=True)
    parts = [report.Section("Gain curve", text=MEANING + ".", images=[image]), *sections]
    report.write_report(out / "report.html", f"{title}: gain", summary, parts)
    return out / "report.html"
