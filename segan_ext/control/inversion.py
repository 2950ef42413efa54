"""Where a projection begins and how far it may go: a regression that reads w off an image; the range of coordinates.

The encoder that is trained with a generator stays in its discriminator, and reads own coordinates only. This one is
fitted in seconds to images that the generator makes, reads all of w, and serves any generator.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from tqdm import tqdm

from segan_ext.images import averaged_down
from segan_ext.latents import labels_of
from torch_utils import cached_weights
from training.latents import seed_latents

_SIDE = 16  # images are averaged down to 16×16
_PENALTY = 1e-3  # of the ridge, where 1 is the kernel of an image with itself
_SPREAD = 2.0  # width of the kernel, in median distances of two images
SAMPLES = 2000  # up to 256×256; beyond, images of as many pixels in all, so that large networks do not take an hour
_LEAST = 100
_PIXELS = 2**17  # at a time: 32 images of 64², one of 512²


class Reader:
    """w of images, by kernel ridge regression on `samples` images of G; of the class class_idx of a conditional G.

    samples: None for SAMPLES, fewer of large images. count: hands on the batches of latents that it gets, and shows how
    far the work is; tqdm is one.
    """

    @cached_weights.enabled()
    def __init__(
        self,
        G: torch.nn.Module,
        samples: int | None = None,
        class_idx: int = 0,
        count: Callable[[Iterable], Iterable] = iter,
    ) -> None:
        samples = min(SAMPLES, max(SAMPLES * 256**2 // G.img_resolution**2, _LEAST)) if samples is None else samples
        batch = min(max(_PIXELS // G.img_resolution**2, 1), 32)
        z = seed_latents(G, range(10_000, 10_000 + samples), next(G.parameters()).device).float()
        w = torch.cat([G.mapping(part, labels_of(G, len(part), class_idx))[:, 0] for part in z.split(256)])
        made = lambda part: G.synthesis(part[:, None].repeat(1, G.num_ws, 1), noise_mode="const")
        self.known = torch.cat([_looks(made(part)) for part in count(w.split(batch))])  # [samples, F]
        self.width = _SPREAD * torch.cdist(self.known[:500], self.known[:500]).flatten().median().clamp(min=1e-6)
        self.mean = w.mean(dim=0)
        kernel = self._kernel(self.known).double()
        kernel.diagonal().add_(_PENALTY)
        self.weights = torch.linalg.solve(kernel, (w - self.mean).double()).float()  # [samples, w_dim]

    def _kernel(self, looks):
        return torch.exp(-(torch.cdist(looks, self.known) / self.width).square() / 2)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [−1, 1], of the size of G's → w [N, w_dim]; the mean of w for what looks like none"""
        return self.mean + self._kernel(_looks(images.to(self.known))) @ self.weights


def reading_bar(parts: Sequence[torch.Tensor]) -> Iterable[torch.Tensor]:
    """The batches of latents of a `Reader`, as its `count`: says how many they are, with a bar on a terminal."""
    print(f"Learning to read images, on {sum(map(len, parts))} that the network makes.", flush=True)
    return tqdm(parts, desc="Learning to read images", unit="batch", disable=None)


def _looks(images):
    return averaged_down(images.float().clamp(-1, 1), _SIDE).flatten(1)


def bounds_of(G: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """w [..., w_dim] → the nearest w whose own coordinates G was trained on; None for a G that has none.

    Edits clamp such coordinates: a projection that left their range would jump as soon as a slider is moved.
    """
    own = getattr(G.mapping, "own", None)
    if own is None:
        return None
    first = G.mapping.shared_w

    def within(w: torch.Tensor) -> torch.Tensor:
        rows = w.flatten(0, -2)
        return torch.cat([rows[:, :first], own.within(rows[:, first:])], dim=1).reshape(w.shape)

    return within
