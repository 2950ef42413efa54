"""Extractors trained by the published recipe: cross-entropy on labels that a segmenter gives to fresh images."""

import os
from collections.abc import Callable, Sequence

import torch
import tqdm

from segan_ext.latents import draw_ws
from segan_ext.layers import FeatureHooks
from segan_ext.semantics.extractors import IGNORED, Extractor, resize
from snapshots.atomic import write_atomically
from torch_utils import cached_weights

EPOCHS = 50
SAMPLES = 51200  # images in all
LOSSES = ("normal", "focal", "normallayer")


def images_a_step(epoch: int) -> int:
    """Images whose gradients are averaged for a step, as published"""
    return 1 if epoch < 2 else 4 if epoch < 18 else 64


def train(
    G: torch.nn.Module,
    extractors: Sequence[Extractor],
    segmenter: Callable[[torch.Tensor], torch.Tensor],
    samples: int = SAMPLES,
    loss: str = "normal",
    latents: str = "trunc-wp",
    truncation_psi: float = 0.5,
    seed: int = 0,
    state_path: str | os.PathLike | None = None,
    progress: bool = True,
) -> list[float]:
    """Trains extractors of the same layers side by side on the same images, in place. Returns their last losses.

    The recipe (Xu and Zheng 2021): 50 epochs of samples / 50 fresh images; a step for 1, 4, then 64 images; Adam at
    1e-3, a tenth of it from epoch 20 on, ten times as much for layer weights. loss: of `loss_of`. latents,
    truncation_psi: of `draw_ws`; image i is that of seed + i. state_path: a file that lets an interrupted training go
    on; it is removed at the end. ValueError if the extractors read different layers.
    """
    _check(extractors, loss)
    hooks, known = FeatureHooks(G, extractors[0].layers), {}
    optimizers = [torch.optim.Adam(_groups(extractor)) for extractor in extractors]
    schedules = [torch.optim.lr_scheduler.MultiStepLR(optimizer, [20]) for optimizer in optimizers]
    trained = [*extractors, *optimizers, *schedules]
    config = [samples, loss, latents, truncation_psi, seed, *_identities(G, extractors)]
    per_epoch, first = max(samples // EPOCHS, 1), _restore(state_path, config, trained)
    shown = dict(desc="Training extractors", unit="img", disable=None if progress else True)
    bar = tqdm.tqdm(total=EPOCHS * per_epoch, initial=first * per_epoch, **shown)
    losses = []
    for epoch in range(first, EPOCHS):
        order = torch.arange(epoch * per_epoch, (epoch + 1) * per_epoch)
        for step in order.split(images_a_step(epoch)):
            losses = [0.0] * len(extractors)
            for part in step.split(hooks.batch):
                with cached_weights.enabled(known):
                    ws = draw_ws(G, len(part), seed + int(part[0]), latents, truncation_psi)
                    images, features = hooks(ws, noise_mode="const")
                    labels = segmenter(images)
                for i, extractor in enumerate(extractors):
                    share = loss_of(extractor, features, labels, loss) * len(part) / len(step)
                    share.backward()
                    losses[i] += share.item()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            bar.update(len(step))
            bar.set_postfix(epoch=epoch, loss=" ".join(f"{x:.3f}" for x in losses), refresh=False)
        for schedule in schedules:
            schedule.step()
        _save(state_path, config, epoch + 1, trained)
    bar.close()
    if state_path and os.path.exists(state_path):
        os.remove(state_path)
    return losses


def _check(extractors, loss):
    if len({extractor.layers for extractor in extractors}) != 1:
        raise ValueError("extractors that train side by side have to read the same layers")
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {loss!r}")
    if loss == "normallayer" and not all(hasattr(extractor, "layer_logits") for extractor in extractors):
        raise ValueError("the loss normallayer is for extractors with logits of each layer, LSE and NSE-1")


def _identities(G, extractors):
    """What tells this generator and these extractors from others"""
    weights = sum(p.double().abs().sum().item() for p in G.parameters())
    return [weights, *([type(e).__name__, list(e.layers), list(e.classes)] for e in extractors)]


def loss_of(
    extractor: Extractor, features: Sequence[torch.Tensor], labels: torch.Tensor, kind: str = "normal"
) -> torch.Tensor:
    """The mean loss of a pixel; labels [N, H, W], pixels that are IGNORED do not count.

    kind: 'normal' cross-entropy, 'focal' with γ = 2 (Lin et al. 2017), or 'normallayer', which adds a tenth of the
    cross-entropy of every layer's logits alone.
    """
    size = labels.shape[-1]
    logits = extractor(features, size)
    if kind == "focal":
        losses = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        focused = (1 - (-losses).exp()).square() * losses
        return focused.sum() / (labels != IGNORED).sum().clamp(min=1)
    total = _cross_entropy(logits, labels)
    if kind == "normallayer":
        total = total + 0.1 * sum(_cross_entropy(y, labels) for y in extractor.layer_logits(features, size))
    return total


def _cross_entropy(logits, labels):
    return torch.nn.functional.cross_entropy(resize(logits, labels.shape[-1]), labels, ignore_index=IGNORED)


def _groups(extractor):
    """Parameters with their learning rates"""
    weights = [p for name, p in extractor.named_parameters() if name == "raw_weights"]
    rest = [p for name, p in extractor.named_parameters() if name != "raw_weights"]
    return [dict(params=rest, lr=1e-3), *([dict(params=weights, lr=1e-2)] if weights else [])]


def _save(path, config, epoch, trained):
    if path is not None:
        state = dict(config=config, epoch=epoch, trained=[each.state_dict() for each in trained])
        write_atomically(path, lambda file: torch.save(state, file))


def _restore(path, config, trained):
    """The epoch to go on with: 0, or that of a state that was left by a training with the same options"""
    if path is None or not os.path.exists(path):
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["config"] != config:
            raise ValueError("it is of a training with other options")
        for each, content in zip(trained, state["trained"]):
            each.load_state_dict(content)
        return state["epoch"]
    except Exception as error:  # whatever a damaged file leads to
        raise ValueError(f"--dest: {path} cannot be continued ({error}); remove it to start anew") from error
