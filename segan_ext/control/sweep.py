"""All dimensions moved one by one, for the atlas and purity. Blocks before an edited one run once for all edits."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch

from segan_ext.latents import coordinate_sigmas
from segan_ext.layers import resume, run_until

Progress = Callable[[list[tuple[int, int]]], Iterable[tuple[int, int]]]  # the layers, through something that counts


class Moved(NamedTuple):
    """Some dimensions of one layer, each moved to −reach and to +reach σ on every latent.

    low, high: images [dims, S, C, H, W]
    """

    layer: tuple[int, int]
    dims: range
    low: torch.Tensor
    high: torch.Tensor


@torch.no_grad()
def sweep(
    G: torch.nn.Module,
    ws: torch.Tensor,
    sigmas: dict[tuple[int, int], torch.Tensor] | None = None,
    reach: float = 2.0,
    batch: int = 64,
    progress: Progress | None = None,
    steps: dict[tuple[int, int], torch.Tensor] | None = None,
) -> Iterator[Moved]:
    """Yields `Moved` for all dimensions of all subspaces, a few at a time.

    ws: [S, num_ws, w_dim]. sigmas: of `coordinate_sigmas`. batch: images at a time. progress: called with the list of
    layers, to show how far the work is (tqdm does). steps: {(L, N): [M, K]} of other directions, which are moved along
    instead, `reach` times as far.
    """
    sigmas = sigmas or coordinate_sigmas(G)
    layers = list(G.subspaces())
    at_a_time = max(batch // len(ws), 1)
    for layer in progress(layers) if progress else layers:
        started = run_until(G, ws, layer[0], noise_mode="const")
        moves = reach * (torch.diag(sigmas[layer]) if steps is None else steps[layer])  # row d moves dimension d
        for first in range(0, len(moves), at_a_time):
            dims = range(first, min(first + at_a_time, len(moves)))
            rows = torch.arange(len(ws)).repeat(len(dims))
            offsets = moves[first : dims.stop].repeat_interleave(len(ws), dim=0)  # [dims·S, K]
            images, batches = [], torch.arange(len(rows)).split(batch)
            for sign in (-1, 1):
                parts = [_moved(G, started, layer, sign * offsets, rows, part) for part in batches]
                images.append(torch.cat(parts).unflatten(0, (len(dims), len(ws))))
            yield Moved(layer, dims, *images)


def _moved(G, started, layer, offsets, rows, part):
    with G.edited(offsets={layer: offsets[part]}):
        return resume(G, started, rows[part], noise_mode="const")
