"""Which image to ask a person about next: the one whose answer tells most about all the others.

Answers are modelled as a Gaussian process over the generator's own features (`probe`); the next image is the one that
leaves the least variance over a pool of seeds (A-optimal design), where the answer is in doubt above all.
"""

import time
from collections.abc import Mapping

import torch

from segan_ext.directions.probe import all_features
from segan_ext.latents import ws_of_seeds
from segan_ext.layers import FeatureHooks

POOL, _LEAST = 256, 32  # seeds, from 0 on; as many as the time allows, and this many at least
_SECONDS = 20.0
_NOISE = 0.1  # variance of an answer, of 1 at first


class Questions:
    """G: with synthesis blocks. class_idx: of the images of a conditional G.

    pool: images that may be asked about; once `seconds` are over no more are made.
    """

    @torch.no_grad()
    def __init__(self, G: torch.nn.Module, class_idx: int = 0, pool: int = POOL, seconds: float = _SECONDS) -> None:
        self.class_idx, hooks, parts, end = class_idx, FeatureHooks(G), [], time.monotonic() + seconds
        for i, ws in enumerate(ws_of_seeds(G, range(pool), class_idx=class_idx).split(hooks.batch)):
            if i * hooks.batch >= _LEAST and time.monotonic() > end:
                break
            parts.append(all_features(hooks, ws))
        x = torch.cat([torch.cat([part[hooks.names[-1]], part["image"]], dim=1) for part in parts]).double().cpu()
        x = (x - x.mean(dim=0)) / x.std(dim=0).clamp(min=1e-3)
        self.gram = x @ x.t() / x.shape[1]

    def next(self, answers: Mapping[int, float | None]) -> int:
        """The seed to ask about. answers: {seed: a number, about 0 to 1 for two values; None where it was skipped}."""
        known = [seed for seed, answer in answers.items() if answer is not None and seed < len(self.gram)]
        left = [seed for seed in range(len(self.gram)) if seed not in answers]
        if not left:
            return len(self.gram) + sum(seed >= len(self.gram) for seed in answers)
        covariance, doubt = self.gram, torch.ones(len(self.gram), dtype=torch.float64)
        if known:
            inverse = torch.linalg.inv(self.gram[known][:, known] + _NOISE * torch.eye(len(known)))
            y = torch.tensor([answers[seed] for seed in known], dtype=torch.float64)
            found = y.mean() + self.gram[:, known] @ inverse @ (y - y.mean())
            covariance = self.gram - self.gram[:, known] @ inverse @ self.gram[known]
            if set(y.tolist()) <= {0.0, 1.0}:
                found = found.clamp(0, 1)
                doubt = 0.1 + found * (1 - found)
        gain = (covariance.square() * doubt).sum(dim=1) / (covariance.diagonal().clamp(min=0) + _NOISE)
        return max(left, key=lambda seed: float(gain[seed]))
