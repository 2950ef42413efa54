"""LSE without steps: the linear map from sums over pixels, by ridge regression or linear discriminant analysis.

Both need no more than how often each class occurs, its mean feature, and one matrix of second moments, which are added
up image by image (Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", sections 4.2 and 4.3).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import tqdm

from segan_ext.latents import draw_ws
from segan_ext.layers import FeatureHooks
from segan_ext.semantics.annotations import Annotations
from segan_ext.semantics.extractors import IGNORED, LSE
from torch_utils import cached_weights

if TYPE_CHECKING:  # it imports what draws avatars
    from segan_ext.semantics.segmenters import Segmenter

METHODS = ("lda", "ridge")
_MOST_PIXELS = 4096  # of an annotated image, of which many may be labelled


class Moments:
    """Sums over labelled features x [C]: counts [K], means' sums [K, C], products [C, C], all about a fixed point.

    float64; the point, the mean of the first features, keeps the products small.
    """

    def __init__(self, classes: int) -> None:
        self.classes, self.origin = classes, None

    def add(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        """x [P, C], labels [P]; pixels that are IGNORED do not count."""
        known = labels != IGNORED
        x, labels = x[known].double(), labels[known]
        if self.origin is None:
            width = x.shape[1]
            self.origin = x.mean(dim=0) if len(x) else x.new_zeros(width)
            self.counts, self.sums = x.new_zeros(self.classes), x.new_zeros(self.classes, width)
            self.products = x.new_zeros(width, width)
        x = x - self.origin
        self.counts += labels.bincount(minlength=self.classes)
        self.sums.index_add_(0, labels, x)
        self.products.addmm_(x.t(), x)

    def solve(self, method: str = "lda", strength: float = 1e-3) -> tuple[torch.Tensor, torch.Tensor]:
        """(weights [K, C], biases [K]) of the linear classifier; a class that never occurred never wins.

        strength: of the ridge, as a share of the features' mean variance. lda: classes are Gaussians with one
        covariance. ridge: least squares to 1 for the own class and 0 for the others. ValueError for another method, or
        fewer than two classes seen.
        """
        if method not in METHODS:
            raise ValueError(f"the method must be one of {', '.join(METHODS)}, not {method!r}")
        seen = self.counts > 0
        if seen.sum() < 2:
            raise ValueError("labelled pixels of at least two classes are needed")
        total = self.counts.sum()
        means = self.sums / self.counts.clamp(min=1)[:, None]  # [K, C]
        mean = self.sums.sum(dim=0) / total
        if method == "lda":
            scatter = self.products - (self.sums.t() @ means)
        else:
            scatter = self.products - total * mean.outer(mean)
        covariance = scatter / total
        scale = covariance.diagonal().clamp(min=1e-12).sqrt()  # each feature in units of its deviation
        covariance = covariance / scale.outer(scale) + strength * torch.eye(
            len(scale), dtype=scale.dtype, device=scale.device
        )
        priors = self.counts / total
        if method == "lda":
            weights = torch.linalg.solve(covariance, ((means - mean) / scale).t()).t() / scale
            biases = priors.clamp(min=1e-12).log() - ((means + mean) * weights).sum(dim=1) / 2
        else:
            targets = (self.sums - self.counts[:, None] * mean) / total  # covariance of features and classes
            weights = torch.linalg.solve(covariance, (targets / scale).t()).t() / scale
            biases = priors - weights @ mean
        biases = torch.where(seen, biases - weights @ self.origin, torch.full_like(biases, -1e4))
        return torch.where(seen[:, None], weights, 0).float(), biases.float()


def fit(
    G: torch.nn.Module,
    segmenter: "Segmenter",
    layers: Sequence[str] | None = None,
    samples: int = 2000,
    pixels: int = 256,
    method: str = "lda",
    strength: float = 1e-3,
    truncation_psi: float = 0.5,
    seed: int = 0,
    progress: bool = True,
) -> LSE:
    """An `LSE` (with biases, a plain sum over layers) from `samples` fresh images, `pixels` random places of each.

    latents as in `training.train` with trunc-wp; method, strength: of `Moments.solve`.
    """
    extractor = LSE.of(G, segmenter.classes, layers, layer_weights="none", bias=True)
    hooks, moments = FeatureHooks(G, extractor.layers), Moments(len(segmenter.classes))
    rng = torch.Generator().manual_seed(seed)
    with cached_weights.enabled():
        parts = torch.arange(samples).split(hooks.batch)
        for part in tqdm.tqdm(parts, desc="Adding up", disable=None if progress else True):
            ws = draw_ws(G, len(part), seed + int(part[0]), truncation_psi=truncation_psi)
            images, features = hooks(ws, noise_mode="const")
            moments.add(*at_random_places(features, segmenter(images), pixels, rng))
    return with_solution(extractor, *moments.solve(method, strength)).to(images.device)


def fit_annotations(
    G: torch.nn.Module,
    annotations: Annotations,
    layers: Sequence[str] | None = None,
    renders: int = 8,
    method: str = "lda",
    strength: float = 1e-2,
    seed: int = 0,
) -> LSE:
    """An `LSE` as `fit` makes, from a few labelled images; each is made `renders` times with fresh noise.

    Of an image's labelled pixels 4096 at most count in each render, random ones.
    """
    extractor = LSE.of(G, annotations.classes, layers, layer_weights="none", bias=True)
    hooks, moments = FeatureHooks(G, extractor.layers), Moments(len(annotations.classes))
    rng = torch.Generator().manual_seed(seed)
    with cached_weights.enabled(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(renders):
            for ws, labels in zip(annotations.ws.split(1), annotations.labels.split(1)):
                features = hooks(ws, noise_mode="random")[1]
                moments.add(*at_random_places(features, labels, _MOST_PIXELS, rng))
    return with_solution(extractor, *moments.solve(method, strength)).to(annotations.ws.device)


def at_random_places(
    features: Sequence[torch.Tensor], labels: torch.Tensor, pixels: int, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x [N · pixels, Σ channels], labels [N · pixels]): features as an `LSE` sees them, at random pixels of the labels

    features: of `FeatureHooks`. labels [N, H, W]; IGNORED pixels are taken only where there are too few others.
    """
    N, H, W = labels.shape
    order = torch.rand(N, H * W, generator=rng) + (labels.flatten(1).cpu() == IGNORED)
    chosen = order.argsort(dim=1)[:, :pixels].to(labels.device)
    place = torch.stack([chosen % W, chosen // W], dim=2) / (labels.new_tensor([W, H]) - 1) * 2 - 1
    columns = [  # [N, channels, 1, pixels], between the pixels as `resize` has it
        torch.nn.functional.grid_sample(x, place[:, None].float(), mode="bilinear", align_corners=True)
        for x in features
    ]
    x = torch.cat([column[:, :, 0] for column in columns], dim=1).transpose(1, 2)
    return x.flatten(0, 1), labels.flatten(1).gather(1, chosen).flatten()


def with_solution(extractor: LSE, weights: torch.Tensor, biases: torch.Tensor) -> LSE:
    """The extractor with weights [K, Σ channels] and biases [K] put into the convolutions of its layers."""
    with torch.no_grad():
        for i, (layer, part) in enumerate(zip(extractor.maps, weights.split(list(extractor.channels), dim=1))):
            layer.weight.copy_(part[:, :, None, None])
            layer.bias.copy_(biases if i == len(extractor.maps) - 1 else torch.zeros_like(biases))
    return extractor.eval().requires_grad_(False)
