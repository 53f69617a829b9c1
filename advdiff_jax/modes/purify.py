"""`--mode=purify`: accuracy of a classifier behind noise and the reverse process, under attack (DiffPure, arXiv 2205.07460)."""

import functools
import logging
import pathlib

import ml_collections

from advdiff_jax.builders import purify
from advdiff_jax.builders.classifier import build_classifier, build_judged
from advdiff_jax.builders.experiment import sampling_params
from advdiff_jax.evaluation import curves, report
from advdiff_jax.features import classifier as classifiers
from advdiff_jax.modes import judged as shared
from advdiff_jax.modes import sample
from advdiff_jax.training import parallel

log = logging.getLogger(__name__)

COLUMNS = ("clean", "blind", "fresh", "fixed")


def run(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Judges the run in `folder` as `config.purify` says; writes to its folder purify, with the classifier beside.

    Returns:
        the page.

    Raises:
        UserError: there is no run, its data have no classes, or see `builders.purify` and `builders.classifier`.
    """
    return _judge(sample.open_run(config, folder))  # all processes open it


@parallel.on_first_process
def _judge(opened):
    config = opened.config
    judged = build_judged(config, opened.data, config.purify.examples)
    classifier = build_classifier(config, opened.data)
    params = sampling_params(config, opened.restored.state)
    settings = purify.build_settings(config, functools.partial(opened.experiment.predict, params))
    numbers = purify.judge(config, settings, classifier, judged)
    out = shared.folder(opened.out, "purify")
    classifiers.write(out / "classifier.safetensors", classifier)
    warnings = _checks(settings, numbers, len(judged.x))
    for line in warnings:
        log.warning("purify: %s", line)
    summary = (
        f"Accuracy on {judged.words}: the classifier alone {numbers['purify_undefended_clean']:.0%}; PGD with "
        f"{config.purify.attack_steps} steps, a mean over {config.purify.draws} draws of the noise."
    )
    text = " ".join([_WORDS, *warnings])
    section = report.Section("Accuracy under attack", text, table(settings, numbers))
    shared.show(section.table)
    return shared.write(config, out, "purify", numbers, _panels(settings, numbers), [section], summary)


_WORDS = (
    "Radii in units of [0, 1]. alone: the classifier under PGD; then purified: clean images, the attack on the classifier "
    "alone, PGD through the purification judged on fresh draws of its noise, and on the draw that the attacker knows."
)


def table(settings: list[purify.Setting], numbers: dict[str, float]) -> list[tuple[str, ...]]:
    """Returns the rows of the page's table, heads first."""
    rows = [("sampler", "ball", "radius", "t*", "alone", *COLUMNS)]
    for one in settings:
        alone = numbers[f"purify_undefended_{one.ball}_{one.radius:.3g}"]
        found = (numbers[f"purify_{one.name}_{column}"] for column in COLUMNS)
        shown = (f"{value:.3f}" for value in (alone, *found))
        rows.append((one.sampler, one.ball, f"{one.radius:.3g}", f"{one.t:g}", *shown))
    return rows


def _checks(settings, numbers, count):
    """Returns a line for each attack that is weaker than one that knows less."""
    said, slack = [], 1.5 / count  # an image
    for one in settings:
        blind, fresh, fixed = (numbers[f"purify_{one.name}_{column}"] for column in COLUMNS[1:])
        if fresh > blind + slack or fixed > fresh + slack:
            said.append(
                f"{one.name}: accuracy {blind:.3f}, {fresh:.3f}, {fixed:.3f} should fall with what the attacker knows: raise "
                "config.purify.attack_steps or draws before the attack is believed."
            )
    return said


def _panels(settings, numbers):
    """Returns accuracy over the radius (0: clean images), or over t* where there are several, for each sampler and ball.

    The other of the two is at its first value.
    """
    groups = {}
    for one in settings:
        groups.setdefault((one.sampler, one.ball), []).append(one)
    return [_panel(f"{sampler}, {ball}", members, numbers) for (sampler, ball), members in groups.items()]


def _panel(title, members, numbers):
    first = members[0]
    alone = {one.radius: numbers[f"purify_undefended_{one.ball}_{one.radius:.3g}"] for one in members}
    if len({one.t for one in members}) > 1:
        kept = [one for one in members if one.radius == first.radius]
        series = {
            name: curves.Series([one.t for one in kept], [numbers[f"purify_{one.name}_{name}"] for one in kept])
            for name in COLUMNS
        }
        series["alone"] = curves.Series([one.t for one in kept], [alone[first.radius]] * len(kept))
        return curves.Panel(title, "t*", "accuracy", series)
    radii = [0.0, *alone]
    series = {
        name: curves.Series(
            radii, [numbers[f"purify_{first.name}_clean"], *(numbers[f"purify_{one.name}_{name}"] for one in members)]
        )
        for name in COLUMNS[1:]
    }
    series["alone"] = curves.Series(radii, [numbers["purify_undefended_clean"], *alone.values()])
    return curves.Panel(title, "radius, units of [0, 1]", "accuracy", series)
