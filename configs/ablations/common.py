"""The config that a file of `configs/ablations/` returns: a list of runs, each a set of overrides of one config."""

import ml_collections

from advdiff_jax.errors import UserError
from configs import variants


def list_of_runs(
    name: str,
    summary: str,
    base: ml_collections.ConfigDict,
    runs: dict,
    seeds: tuple,
    metrics: tuple,
    figures: tuple = ("bars",),
    frontier: tuple = (),
    evaluations: dict | None = None,
) -> ml_collections.ConfigDict:
    """Builds a list of runs for `launch.py`: label -> overrides of `base`, nested dicts; `variant` is as after the colon.

    A label "group/member" puts a run in a setting (a panel of "grid", a column of the tables) or in a series of "frontier";
    a run without a group runs once and is shown in every setting.

    `evaluations` adds rows that train nothing: label -> {"of": label of a run, "sampling": {...}, "evaluation": {...}}, which
    evaluates that run once more under other settings.

    Raises:
        UserError: overrides of another type than a dictionary, a label with a dot, an unknown variant, or an evaluation of a
            run that is not there.
    """
    config = ml_collections.ConfigDict()
    config.name = name  # runs/<name> without --workdir
    config.summary = summary  # first line of the joint report
    config.base = base  # the full config of every run: --config.base.a.b=value reaches all runs
    config.seeds = seeds  # every run is done once per seed
    config.metrics = metrics  # columns of the joint table
    # bars (a bar a run) | grid (a figure a metric, a panel a group) | frontier (one metric against another, a line a group) |
    # curves (those that diagnostics draw, a line a run) | side_by_side (images of all runs from the same starts)
    config.figures = figures  # any of these
    config.frontier = frontier  # frontier: the metrics of the x and of the y axis
    config.runs = ml_collections.ConfigDict()  # label -> what a run sets in the base, with its variant's settings
    config.variants = ml_collections.ConfigDict()  # label -> the variant's settings
    config.evaluations = ml_collections.ConfigDict()  # label -> label of the run that it evaluates under other settings
    config.order = (*runs, *(evaluations or {}))  # of the rows in tables, figures and frontiers; a ConfigDict sorts its keys
    for label, overrides in runs.items():
        if "." in label:
            raise UserError(f"the label {label!r} of a run has a dot, which separates keys: write it without")
        if not isinstance(overrides, dict):
            raise UserError(f"run {label!r}: need a dictionary of overrides, such as {{'variant': 'ddpm'}}, got {overrides!r}")
        try:
            config.variants[label] = variants.overrides(overrides.get("variant"))
        except UserError as error:
            raise UserError(f"run {label!r}: {error}") from error
        config.runs[label] = config.variants[label].copy_and_resolve_references()
        with config.runs[label].ignore_type():  # the base has the types; a variant may set a word where a run sets a number
            config.runs[label].update({**overrides, "variant": config.variants[label].variant})
    for label, overrides in (evaluations or {}).items():
        of, changes = overrides.get("of"), {key: value for key, value in overrides.items() if key != "of"}
        if of not in runs or label in runs or not {*changes} <= {"sampling", "evaluation"}:
            raise UserError(
                f"evaluation {label!r} of {of!r}: give it a label of its own, a run of the list, and keys of sampling and "
                "evaluation alone"
            )
        config.evaluations[label] = of
        config.variants[label] = config.variants[of].copy_and_resolve_references()
        config.runs[label] = config.runs[of].copy_and_resolve_references()
        with config.runs[label].ignore_type():
            config.runs[label].update(changes)
    return config


# What a method is given -> label -> overrides: the rows of a ladder, in its order.
GIVEN = {
    "nothing": {
        "ddpm": {"variant": "ddpm"},
        "ddpm, non-local means first": {"variant": "ddpm", "data": {"restored_by": "nl_means"}},
        "ddpm, wavelets first": {"variant": "ddpm", "data": {"restored_by": "wavelet"}},
        "robust_adv": {"variant": "robust_adv"},
        "robust_fast": {"variant": "robust_fast"},
        "pseudo_huber": {"variant": "pseudo_huber"},
        "discard_blind": {"variant": "discard_blind"},
        "discard_blind_adv": {"variant": "discard_blind_adv"},
        "ambient_blind": {"variant": "ambient_blind"},
        "ambient_blind_adv": {"variant": "ambient_blind_adv"},
    },
    "the noise of each example": {"ambient_oracle": {"variant": "ambient_oracle"}},
    "clean data": {"clean data": {"variant": "ddpm", "data": {"fraction": 0.0}}},
}
IMAGES_ONLY = ("ddpm, non-local means first", "ddpm, wavelets first")
NEEDS_CLEAN = ("discard_blind", "discard_blind_adv", "clean data")  # with no clean example nothing is left to train on
FINAL_STEPS = {  # rows that train nothing: label -> keys of the sampling
    "ddpm, final step": {"final_denoise": "measured"},
    "ddpm, own final step": {"final_denoise": "measured", "final_own": True},
    "ddpm, final step at the given std": {},  # takes data.noise_std
}


def ladder(settings: dict, base: ml_collections.ConfigDict, left_out: tuple = ()) -> dict[str, dict]:
    """Builds the rows of a ladder: every method in every setting, and the final step on ddpm.

    Args:
        settings: label -> keys of the data.
        base: the config under every run.
        left_out: labels of methods that do not fit these data.

    Returns:
        `runs` and `evaluations` of `list_of_runs`.
    """
    runs, evaluations = {}, {}
    for setting, data in settings.items():
        skipped = {*left_out, *(NEEDS_CLEAN if data.get("fraction", base.data.fraction) >= 1.0 else ())}
        for methods in GIVEN.values():
            for label, overrides in methods.items():
                if label not in skipped:
                    runs[f"{setting}/{label}"] = {**overrides, "data": data | overrides.get("data", {})}
        given = {"final_denoise": data.get("noise_std", base.data.noise_std)}
        for label, sampling in FINAL_STEPS.items():
            evaluations[f"{setting}/{label}"] = {"of": f"{setting}/ddpm", "sampling": sampling or given}
    return {"runs": runs, "evaluations": evaluations}
