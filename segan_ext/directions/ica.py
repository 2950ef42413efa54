"""ICA of w: directions along which w is a mix of independent sources (FastICA, Hyvärinen and Oja 2000)."""

import importlib.util
import warnings

import numpy as np
import torch

from segan_ext.directions.subspaces import check_finite
from segan_ext.latents import random_w


@torch.no_grad()
def ica_of_w(G: torch.nn.Module, dims: int, samples: int = 10000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(directions [w_dim, dims], deviations [dims]): columns of unit length, the widest source first.

    Of the `dims` widest principal components of w over random latents. OSError without scikit-learn.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise OSError("ica needs scikit-learn: pip install scikit-learn")
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    w = random_w(G, samples, seed).double().cpu()
    check_finite(w)
    with warnings.catch_warnings():
        # Where w is nearly Gaussian no rotation is better than another, and the iteration has nowhere to end.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = FastICA(dims, whiten="unit-variance", random_state=np.random.RandomState(seed), max_iter=400).fit(w)
    mixing = torch.from_numpy(found.mixing_)  # [w_dim, dims]: sources have unit variance
    deviations = mixing.norm(dim=0)
    order = deviations.argsort(descending=True)
    return (mixing / deviations)[:, order], deviations[order]
