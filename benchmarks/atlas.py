"""Time and memory of the atlas of a 64×64 generator (mode 2, 14 subspaces × 64 dimensions, four seeds, two steps).

`python benchmarks/atlas.py`; beside it the time of as many images from whole runs of the generator, in turn.
"""

import resource
import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from segan_ext import latents  # noqa: E402
from segan_ext.atlas import atlas  # noqa: E402
from segan_ext.networks import SEGANGenerator  # noqa: E402


def main():
    torch.manual_seed(0)
    widths = dict(channel_base=32768, channel_max=128)  # of the presets
    G = SEGANGenerator(64, 0, 64, 64, 3, dict(num_layers=8), widths, mode=2).eval().requires_grad_(False)
    dims = sum(subspace.dims for subspace in G.subspaces().values())
    ws = latents.ws_of_seeds(G, range(4)).repeat(16, 1, 1)
    with torch.no_grad():
        G.synthesis(ws, noise_mode="const")  # kernels are built
        begin = time.perf_counter()
        for _ in range(8):
            G.synthesis(ws, noise_mode="const")
        whole = (time.perf_counter() - begin) / 8 / len(ws)
    begin = time.perf_counter()
    entries = atlas.make_atlas(G)
    seconds = time.perf_counter() - begin
    images = 2 * 4 * dims
    print(f"{len(G.subspaces())} subspaces, {len(entries)} dimensions, {images} images: {seconds:.0f} s, all in")
    print(f"{seconds / images / whole:.2f} of the time that as many whole images take, everything else included")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
