"""What a config's radius and weight will do to its data, before any training: `--mode=transfer`; and what they did, in reports.

The gain T(s) of a direction of standard deviation s is closed in form for a linear model (`diffusion.transfer`); ideal is 0
for noise and 1 for signal. Beside it stands the gain of the same linear model under the config's own sampler and steps,
which is what the measured gain of a run can be held against; the two part where steps are long, or noise is drawn anew.
"""

import logging
import pathlib

import jax
import ml_collections
import numpy as np

from advdiff_jax import builders_data, workdir
from advdiff_jax.builders_transfer import Law, as_sampled, build_law, closed_form
from advdiff_jax.choices import refused
from advdiff_jax.data import wire
from advdiff_jax.errors import UserError
from advdiff_jax.evaluation import directions, report, transfer_figure

log = logging.getLogger(__name__)

LOOKED_AT = 10_000  # examples from which the level of an adaptive weight is told before training
NEAR = 0.35  # a level above this share of the data's largest standard deviation: data of one scale have 0.5

TABLE_STDS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.58, 1.0)  # from noise to signal, of pictures in [-1, 1]
TABLE_LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
TABLE_EFFECTIVE = (0.1, 0.2, 0.58)  # the stds whose effective value is shown at each level
LEVELS = np.unique([*np.geomspace(0.003, 80.0, 201), *TABLE_LEVELS])

MEANING = (
    "s: standard deviation of a direction of the data; gain T(s): share of it that samples keep, ideally 0 for noise and 1 for "
    "signal, in closed form, and as sampled by this config's own sampler and steps, which is what a run will show; u = sigma / "
    "alpha; radius: bound on delta, VP state units; share = kappa / (1 + kappa): the part of any direction's variance that the "
    "model does not see at u (equivariance), so that s acts as s / sqrt(1 + kappa)"
)


def _before_training(config):
    def measured():
        train = wire.spread(builders_data.build_data(config).train, min(LOOKED_AT, config.evaluation.max_reference))
        with refused("config.evaluation.max_reference, or the data"):
            return directions.noise_level(train, config.robust.explained)

    return measured


def _stds(also=()):
    """Standard deviations to draw the gain at: those of the table, and `also`, between others."""
    known = [*TABLE_STDS, *also]
    return np.unique([*np.geomspace(min(0.01, *known), max(2.0, *known), 31), *known])


def noise_std(config: ml_collections.ConfigDict) -> float | None:
    """The standard deviation of the noise in the training data, where the config says so; None elsewhere."""
    c = config.data
    known = "gaussian" in c.corruptions and c.fraction > 0 and c.chance.gaussian > 0 and c.noise_std > 0
    return float(c.noise_std) if known else None


def curve(config: ml_collections.ConfigDict, law: Law, name: str, stds: np.ndarray, own: bool = True) -> transfer_figure.Curve:
    """All that the picture shows of one config at standard deviations s [S]; `own`: with the gain under its own sampler."""
    sampled = as_sampled(config, law, stds) if own else None
    return transfer_figure.Curve(name, stds, closed_form(law, stds), sampled, jax.tree.map(np.asarray, law.at(LEVELS)))


def _interpolate(x, stds, values):
    return np.interp(np.log(x), np.log(stds), values)


def tables(found: transfer_figure.Curve, noise: float | None, blame: str) -> tuple[list, list]:
    """The numbers as two tables of text, heads first: gain by s, and the second term by u; arguments as for `curve`."""
    gain = [("s", "gain T(s)", *(["as sampled"] if found.sampled is not None else []))]
    for std in sorted({*TABLE_STDS, *([noise] if noise else [])}):
        shown = [values for values in (found.gain, found.sampled) if values is not None]
        gain.append((f"{std:g}", *(f"{_interpolate(std, found.stds, values):.3f}" for values in shown)))

    effective = TABLE_EFFECTIVE if blame == "noise" else ()  # invariance hides no variance: it is the noise that is not seen
    levels = [("u", "radius", "lambda", "kappa", "share", *(f"s = {s:g} acts as" for s in effective))]
    kept = {}  # levels that a process does not reach fall on its ends: each once
    for i in np.searchsorted(LEVELS, TABLE_LEVELS):
        u, radius, lam, kappa, share = (float(values[i]) for values in (*found.levels, found.levels.share))
        acting = (f"{s / np.sqrt(1.0 + kappa):.3g}" for s in effective)
        kept[f"{u:.3g}"] = (f"{u:.3g}", f"{radius:.3g}", f"{lam:.3g}", f"{kappa:.3g}", f"{share:.3f}", *acting)
    return gain, [*levels, *kept.values()]


def aligned(table: list) -> str:
    """Rows of text as columns flushed right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


def transfer_mode(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Prints the tables, and writes `folder`/transfer: transfer.png, transfer.json and report.html. Trains nothing.

    Returns:
        the report; no run is claimed.

    Raises:
        UserError: see `builders_transfer.build_law`.
    """
    law, title = build_law(config, _before_training(config)), f"{config.name}:{config.variant}"
    noise = noise_std(config)
    found = curve(config, law, title, _stds([noise] if noise else []))
    gain, levels = tables(found, noise, law.blame)
    told = f"{config.variant}: {law.told}"
    if law.level:
        told += " A linear model would measure that level on these data; the network's own is in the results of the run."
    print(told, aligned(gain), aligned(levels), sep="\n\n", end="\n\n")
    sections = [report.Section("Gain", table=gain), report.Section("The second term by noise level", table=levels)]
    return _write(folder / "transfer", title, [found], noise, told, sections)


def transfer_of_many(runs: list, folder: pathlib.Path, title: str) -> pathlib.Path:
    """One picture for a list of runs, a curve a label; runs with the same curve share it, those without one are left out.

    Args:
        runs: (label, seed, config), as `ablation.expand` gives them.
        folder: of the ablation; writes `folder`/transfer.
        title: of the report.

    Raises:
        UserError: no run has a closed form.
    """
    curves, labels, noise = {}, {}, set()
    for label, _, config in runs:
        # All that a curve reads; the data only where a weight follows them, or the ball asks for their dimension.
        read = ["objective", "robust", "neighbours", "diffusion"]
        read += ["data"] if config.robust.weight == "adaptive" or config.robust.ball == "l2" else []
        key = "".join(str(config[section]) for section in read)
        noise.add(noise_std(config))
        labels.setdefault(key, {})[label] = None
        if key not in curves:
            try:
                curves[key] = curve(config, build_law(config, _before_training(config)), label, _stds(), own=False)
            except UserError as error:
                curves[key] = None
                log.warning("%s: %s", label, error)
    missing = [_joined(labels[key]) for key, one in curves.items() if one is None]
    curves = {key: one for key, one in curves.items() if one is not None}
    if not curves:
        raise UserError("no run of this list has a closed form of the gain")
    found = [one._replace(label=_joined(labels[key])) for key, one in curves.items()]
    table = [("run", *(f"T({s:g})" for s in TABLE_STDS))]
    table += [(one.label, *(f"{_interpolate(s, one.stds, one.gain):.3f}" for s in TABLE_STDS)) for one in found]
    print(aligned(table), end="\n\n")
    summary = "Runs that share a curve are named once." + (f" Without a closed form: {', '.join(missing)}." if missing else "")
    known = noise.pop() if len(noise) == 1 else None
    return _write(folder / "transfer", title, found, known, summary, [report.Section("Gain", table=table)])


def _joined(labels):
    first, *more = labels
    return f"{first} (and {len(more)} more)" if more else first


def _write(out, title, found, noise, summary, sections):
    out.mkdir(parents=True, exist_ok=True)
    transfer_figure.draw(found, noise).savefig(out / "transfer.png")
    workdir.write_json(out / "transfer.json", {one.label: one.numbers() for one in found} | {"noise_std": noise})
    picture = report.picture(out / "transfer.png", "What the second term does, in closed form.", wide=True)
    parts = [report.Section("Transfer curve", text=MEANING + ".", pictures=[picture]), *sections]
    report.write_report(out / "report.html", f"{title}: transfer", summary, parts)
    return out / "report.html"


def measured(
    config: ml_collections.ConfigDict,
    data: builders_data.Data,
    samples: np.ndarray,
    plots: pathlib.Path,
    noise_level: float | None = None,
) -> tuple[dict[str, float], report.Section]:
    """The gain that a run's samples have on the principal directions of its training data, beside the closed form.

    Args:
        config: the run's.
        data: what it was trained on.
        samples: [N, ...].
        plots: folder; transfer.png is written there.
        noise_level: what the run has measured, for a weight that follows it; None: what a linear model would have.

    Returns:
        `gain_largest`, `gain_smallest`: on the directions of largest and smallest standard deviation of the training data;
        `gain_error`: root mean square over directions of measured minus expected gain, the linear model's under the run's
        sampler (only where there is a closed form); and the report's section.
    """
    train = wire.spread(data.train, config.evaluation.max_reference)
    stds, gains = directions.gains(train, samples)
    results = {"gain_largest": float(gains[0]), "gain_smallest": float(gains[-1])}
    try:
        law = build_law(config, lambda: noise_level or directions.noise_level(train, config.robust.explained))
    except UserError as error:
        found, text = [], f"{error}."
    else:
        found = [curve(config, law, config.variant, _stds([stds[0], stds[-1]]))]
        text = f"{config.variant}: {law.told}"
        expected = found[0].gain if found[0].sampled is None else found[0].sampled
        results["gain_error"] = float(np.sqrt(np.mean((gains - _interpolate(stds, found[0].stds, expected)) ** 2)))
        if law.level and law.level > NEAR * stds[0]:
            near = (
                f"the noise level found, {law.level:.3g}, is not well below the data's own scale (largest standard deviation "
                f"{stds[0]:.3g}), so the second term shrinks signal as well: train for longer before it comes in if that was "
                "short, lower config.robust.kappa0, or name the level with config.robust.weight=cutoff and config.robust.cut"
            )
            log.warning("%s: %s", config.variant, near)
            text += f" Warning: {near}."
    transfer_figure.draw_measured(stds, gains, found, noise_std(config)).savefig(plots / "transfer.png")
    workdir.write_json(plots / "transfer.json", {"std": stds.tolist(), "gain": gains.tolist()})
    caption = "Gain of the samples on each principal direction of the training data, and what a linear model would have."
    return results, report.Section("Transfer", text=text, pictures=[report.picture(plots / "transfer.png", caption, wide=True)])
