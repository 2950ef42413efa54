"""LSE from a handful of annotated images, down to one."""

from collections.abc import Callable, Sequence

import torch
import tqdm

from segan_ext.layers import FeatureHooks
from segan_ext.semantics.annotations import Annotations
from segan_ext.semantics.extractors import LSE
from segan_ext.semantics.training import EPOCHS, loss_of
from torch_utils import cached_weights

SAMPLES_AN_EPOCH = 128


class FewShot:
    """The published training of an `LSE` (a plain sum over layers, no bias) from `annotations.Annotations`.

    128 images an epoch, each in turn, a step after each has been seen once; Adam at 1e-3, a tenth of it from epoch 20
    on. Features are made anew each epoch with other noise. Pixels that are IGNORED do not count, so that scribbles do.
    """

    def __init__(
        self,
        G: torch.nn.Module,
        annotations: Annotations,
        layers: Sequence[str] | None = None,
        loss: str = "normal",
        seed: int = 0,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            extractor = LSE.of(G, annotations.classes, layers, layer_weights="none")
        self.annotations, self.loss = annotations, loss
        self.extractor = extractor.to(annotations.ws.device)
        self.taps = FeatureHooks(G, extractor.layers)
        self.optimizer = torch.optim.Adam(extractor.parameters(), lr=1e-3)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [20])

    def epoch(self, on_step: Callable[[], object] | None = None) -> float:
        """Trains for an epoch; the last loss. on_step: called after each step, without arguments."""
        with cached_weights.enabled():
            features = [self.taps(ws, noise_mode="random")[1] for ws in self.annotations.ws.split(self.taps.batch)]
            features = [torch.cat(parts) for parts in zip(*features)]
        for _ in range(max(SAMPLES_AN_EPOCH // len(self.annotations.ws), 1)):
            last = loss_of(self.extractor, features, self.annotations.labels, self.loss)
            self.optimizer.zero_grad(set_to_none=True)
            last.backward()
            self.optimizer.step()
            if on_step is not None:
                on_step()
        self.schedule.step()
        return last.item()


def train_few_shot(
    G: torch.nn.Module,
    annotations: Annotations,
    layers: Sequence[str] | None = None,
    loss: str = "normal",
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: bool = True,
) -> LSE:
    """The `LSE` that `FewShot` gives after `epochs` epochs. Its random numbers come from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        training = FewShot(G, annotations, layers, loss, seed)
        bar = tqdm.trange(epochs, desc="Learning annotations", disable=None if progress else True)
        for _ in bar:
            bar.set_postfix(loss=f"{training.epoch():.3f}", refresh=False)
    return training.extractor.eval().requires_grad_(False)
