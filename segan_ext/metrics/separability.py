"""Linear separability (Karras et al. 2019): does a hyperplane in z or w part images with an attribute from others?

For every binary attribute, the half of the images that a classifier is most certain of is kept, and a linear support
vector machine tells their latents apart. The score is exp Σ H(Y|X), Y being what the classifier and X what the machine
says: 1 means that every attribute has a hyperplane of its own.
"""

import importlib.util
import warnings
from collections.abc import Iterable

import numpy as np
import torch

from metrics import metric_utils
from metrics.metric_main import register_metric
from segan_ext.metrics.attributes import Attribute
from segan_ext.metrics.shared import latents_and_predictions, open_predictor_of

_FEWEST = 10  # images of either kind that a machine can learn from


def check_installed() -> None:
    """ValueError, with the cure, without scikit-learn"""
    if importlib.util.find_spec("sklearn") is None:
        raise ValueError("linear separability needs `pip install scikit-learn`")


def binary_attributes(predictions: dict[str, torch.Tensor], attributes: Iterable[Attribute]) -> dict[str, np.ndarray]:
    """{question: probability [N] of yes}, one question an attribute, the same for every generator.

    predictions: {attribute: probabilities [N, values] or numbers [N, 1]}. Of an attribute with values it is asked
    whether it has the first (in a data set's: the most frequent) one, of a number whether it is above 0.
    """
    found = {}
    for attribute in attributes:
        p = predictions[attribute.name][:, 0].double()
        question = f"{attribute.name}={attribute.values[0]}" if attribute.values else f"{attribute.name}>0"
        found[question] = (p if attribute.values else torch.sigmoid(p)).numpy()
    return found


def conditional_entropy(latents: np.ndarray, probability: np.ndarray) -> float:
    """H(Y|X) in nats of one attribute.

    latents: [N, D]. probability: [N] of the attribute being there. The machine judges each half of the images after
    learning from the other half, so that few images do not look separable only because there are few.
    """
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    certain = np.argsort(-np.abs(probability - 0.5), kind="stable")[: max(len(probability) // 2, 1)]
    x, y = latents[certain], probability[certain] > 0.5
    if min(y.sum(), (~y).sum()) < _FEWEST:
        return _entropy(np.full(len(y), False), y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a machine that has not converged is judged as it is
        machine = make_pipeline(StandardScaler(), LinearSVC(dual=False, C=1.0))
        return _entropy(cross_val_predict(machine, x, y, cv=2), y)


def score(latents: np.ndarray, probabilities: dict[str, np.ndarray]) -> tuple[float, dict[str, float]]:
    """exp Σ H(Y|X) over the attributes of `binary_attributes`, and {name: H(Y|X)}."""
    entropies = {name: conditional_entropy(latents, p) for name, p in probabilities.items()}
    return float(np.exp(sum(entropies.values()))), entropies


def _entropy(x, y):
    """H(y|x) in nats of two arrays of booleans"""
    total = 0.0
    for value in (False, True):
        part = y[x == value]
        for p in (part.mean(), 1 - part.mean()) if len(part) else ():
            total -= len(part) / len(y) * (p * np.log(p) if p > 0 else 0.0)
    return total


@register_metric(lower="ls_z ls_w")
def ls(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Linear separability in z and in w over 200 000 images (needs attributes)

    The score is exp Σ H(Y|X) over attributes, so scores compare only for the same attributes. The details have the
    entropy of each, in nats.
    """
    check_installed()
    predictor = open_predictor_of(opts)
    z, w, predictions = latents_and_predictions(opts, predictor)
    questions = binary_attributes(predictions, [a for a in predictor.attributes if a.name in predictor.reliable()])
    results = {}
    for name, latents in (("z", z), ("w", w)):
        results[f"ls_{name}"], entropies = score(latents.numpy(), questions)
        opts.details |= {f"H({question} | {name})": entropy for question, entropy in entropies.items()}
    return results
