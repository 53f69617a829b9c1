"""Config -> the diagnostic `foreign`: how many foreign images a run draws, and which of its examples its loss names."""

import ml_collections
import numpy as np

from advdiff_jax.builders.corruptions import build_foreign
from advdiff_jax.builders.diagnosis import Diagnosis, DiagnosticInputs, DiagnosticSpec
from advdiff_jax.builders.features import build_vectors, check_features
from advdiff_jax.builders.outputs import Output
from advdiff_jax.builders.process import build_process
from advdiff_jax.builders.registry import Choice, lookup
from advdiff_jax.data import pixels
from advdiff_jax.errors import InvalidArgument
from advdiff_jax.evaluation import figures, foreign, report
from advdiff_jax.features.classifier import small_cnn
from advdiff_jax.noise import measure
from advdiff_jax.objectives.denoising import denoising

# A name of `evaluation.foreign.by`: losses [L, N] -> the score by which examples are named, [N].
SCORES = {
    "loss": Choice(lambda c, loss: foreign.suspicion(loss)),
    "typicality": Choice(lambda c, loss: foreign.atypicality(loss)),
}
FILE = "foreign.npz"  # in plots/; for config.noise.file of discard_blind
SHOWN = 36  # images in a picture
FITTED = 2000  # own and foreign images each, half of which the classifier sees


def _foreign(config: ml_collections.ConfigDict, inputs: DiagnosticInputs) -> Diagnosis:
    """Counts foreign samples by a classifier and by nearest features, and ranks the training examples by the model's loss."""
    c, data = config.evaluation.foreign, inputs.data
    if tuple(config.data.corruptions) != ("foreign_outlier",) or config.data.chance.foreign_outlier < 1.0:
        raise InvalidArgument(
            "foreign counts the images of data.corruptions=('foreign_outlier',) alone, with data.chance.foreign_outlier=1: set "
            "them, or leave foreign out of evaluation.diagnostics"
        )
    sets = _sets(config, data)
    classify = _classifier(config, sets)
    numbers = _shares(config, inputs.samples, sets, data, classify)
    process = build_process(config)
    objective = denoising(process.schedule, process.parameterization)
    loss = foreign.losses(process.schedule, objective, inputs.predict, data.train, c.levels, c.draws, config.evaluation.seed)
    is_foreign = data.corrupted.is_corrupted(np.arange(len(data.corrupted)))
    lookup(SCORES, config, "evaluation.foreign.by")
    scores = {name: spec.build(c, loss) for name, spec in SCORES.items()}
    score = scores[c.by]
    chosen = foreign.named(score, c.share)
    if is_foreign.any() and not is_foreign.all():
        numbers |= {f"foreign_auc_{u:g}": foreign.area(one, is_foreign) for u, one in zip(c.levels, loss, strict=True)}
        numbers |= {f"foreign_{name}_auc": foreign.area(one, is_foreign) for name, one in scores.items()}
        numbers["foreign_found"] = float(np.mean(chosen[is_foreign]))
    _save(inputs.plots / FILE, data.train, score, chosen)
    return Diagnosis(numbers, [_section(inputs, score, classify)])


def _sets(config, data):
    """Returns own and foreign images as floats, as many of each."""
    others = build_foreign(config.data, data.source.train)
    count = min(FITTED, len(data.source.train), len(others))
    return {"own": pixels.evenly_spaced(data.source.train, count), "foreign": pixels.evenly_spaced(others, count)}


def _classifier(config, sets):
    """Returns images -> whether they are foreign, by a classifier that saw every second of each set."""
    images = np.concatenate([one[::2] for one in sets.values()])
    labels = np.repeat([0, 1], [len(one[::2]) for one in sets.values()])
    found = small_cnn(images, labels, cache_dir=config.evaluation.cache_dir)
    return lambda x: np.concatenate(
        [np.asarray(found.classify(x[i : i + foreign.BATCH])).argmax(axis=1) for i in range(0, len(x), foreign.BATCH)]
    )


def _shares(config, samples, sets, data, classify):
    """Returns the shares of samples, training set, clean and foreign images that are called foreign, in two ways."""
    most = config.evaluation.max_reference
    judged = {
        "": samples[:most],
        "_dirty": pixels.evenly_spaced(data.train, most),
        "_clean": sets["own"][1::2],
        "_foreign": sets["foreign"][1::2],
    }
    numbers = {f"foreign_share{name}": float(np.mean(classify(x))) for name, x in judged.items()}
    check_features(config, data.train.shape[1:])
    vectors = build_vectors(config)
    seen = [vectors(one[::2]) for one in sets.values()]
    return numbers | {f"foreign_nearest{name}": foreign.nearest_share(vectors(x), *seen) for name, x in judged.items()}


def _save(path, train, score, chosen):
    """Writes what `discard_blind` and `ambient_blind` take: the named examples teach nothing."""
    words = f"{np.sum(chosen):,} examples named as foreign by the loss of a model"
    std, whiteness = np.where(chosen, np.inf, 0.0), np.zeros_like(score)
    measure.save(path, measure.NoiseLevels(std, 0.0, ~chosen, score, whiteness, words, data=measure.identity(train)))


def _section(inputs, score, classify):
    plots, train = inputs.plots, inputs.data.train
    is_foreign = classify(inputs.samples[:1000]) == 1
    parts = {
        "foreign_samples": (inputs.samples[:1000][is_foreign], "Samples that the classifier calls foreign."),
        "foreign_named": (
            pixels.to_float(train[np.argsort(-score)[:SHOWN]]),
            "Training examples that are named as foreign first.",
        ),
    }
    images = []
    for name, (shown, caption) in parts.items():
        if len(shown):
            figures.show(shown, shown, None, SHOWN).savefig(plots / f"{name}.png")
            images.append(report.image(plots / f"{name}.png", caption))
    text = (
        "A small classifier and the nearest features separate own from foreign images; NAME_clean and NAME_foreign show their "
        "errors, on images that they have not seen. Train without the examples that are named: the variant discard_blind "
        f"with --config.noise.file={plots / FILE}."
    )
    return report.Section("Foreign images", text=text, images=images)


_SHARE = "share of the samples that a small classifier calls foreign"
_NEAREST = "share of the samples whose nearest neighbour in features is foreign"
_OTHERS = {"_dirty": "; the training set", "_clean": "; clean own images", "_foreign": "; foreign images"}

SPEC = DiagnosticSpec(
    _foreign,
    {
        "foreign_share": Output(_SHARE),
        **{f"foreign_share{name}": Output(_SHARE + words, None) for name, words in _OTHERS.items()},
        "foreign_nearest": Output(_NEAREST),
        **{f"foreign_nearest{name}": Output(_NEAREST + words, None) for name, words in _OTHERS.items()},
        "foreign_loss_auc": Output(
            "chance that a foreign training example has a larger loss than an own one, ranks over levels", "highest"
        ),
        "foreign_typicality_auc": Output("the same by how atypical its losses are, small or large", "highest"),
        "foreign_auc_*": Output("chance that it has a larger loss at one sigma / alpha", "highest"),
        "foreign_found": Output(
            "share of the foreign training examples among those named, evaluation.foreign.share", "highest"
        ),
    },
    reads=tuple(f"evaluation.foreign.{key}" for key in ("levels", "draws", "by", "share")),
)
