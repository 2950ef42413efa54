"""LSE from a handful of annotated images, down to one."""

import torch
import tqdm

from segan_ext import host

host.activate()

from segan_ext.semantics.extractors import LSE  # noqa: E402 (the host has to be on the path)
from segan_ext.semantics.taps import Taps  # noqa: E402
from segan_ext.semantics.training import EPOCHS, loss_of  # noqa: E402
from torch_utils import inference  # noqa: E402

SAMPLES_AN_EPOCH = 128


def train_few_shot(G, annotations, layers=None, loss="normal", epochs=EPOCHS, on_epoch=None, seed=0, progress=True):
    """An `LSE` (a plain sum over layers, no bias) from `segmenters.Annotations`, as published.

    128 images an epoch, each in turn, a step after each has been seen once; Adam at 1e-3, a tenth of it from epoch 20
    on. Features are made anew each epoch with other noise. Pixels that are IGNORED do not count, so that scribbles
    do. on_epoch: called with (epoch, loss, extractor); training ends when it returns False.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        extractor = LSE.of(G, annotations.classes, layers, layer_weights="none").to(annotations.ws.device)
        taps, optimizer = Taps(G, extractor.layers), torch.optim.Adam(extractor.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [20])
        bar = tqdm.trange(epochs, desc="Learning annotations", disable=None if progress else True)
        for epoch in bar:
            with inference.folded():
                features = [taps(ws, noise_mode="random")[1] for ws in annotations.ws.split(16)]
                features = [torch.cat(parts) for parts in zip(*features)]
            for _ in range(max(SAMPLES_AN_EPOCH // len(annotations.ws), 1)):
                last = loss_of(extractor, features, annotations.labels, loss)
                optimizer.zero_grad(set_to_none=True)
                last.backward()
                optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{last.item():.3f}", refresh=False)
            if on_epoch is not None and on_epoch(epoch, last.item(), extractor) is False:
                break
    return extractor.eval().requires_grad_(False)
