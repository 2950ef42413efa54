"""What an encoder reads of a generator's coordinates in an image, and how that fits known attributes: MIG, FactorVAE.

The encoder learns from images that the generator makes and is asked about real images whose attributes are known. It
tells own coordinates where the generator has them, else each layer's strongest, from a latent of that layer's own.
"""

from collections.abc import Callable, Iterable

import torch

from metrics import metric_utils
from segan_ext.control.render import mixed_offsets
from segan_ext.latents import coordinates_of, random_ws
from segan_ext.metrics.attributes import Attribute, AttributeNetwork, images_of, known_attributes
from segan_ext.metrics.selectivity import strongest_candidates
from training.dataset import ImageFolderDataset

PAIRS = 20000  # images that the encoder sees
_REAL = 10000  # images at most that it is asked about
_BINS = 20  # of a code, and of a number
_HELD = 64  # images with the same value of one attribute
_VOTES = 800  # to learn from, and as many to judge by


def known(opts: metric_utils.MetricOptions) -> tuple[ImageFolderDataset, list[Attribute], torch.Tensor]:
    """(data set, its attributes, rows [images, attributes]), 10 000 images at most. ValueError if nothing is known."""
    path = opts.dataset_kwargs.get("path")
    if path is None:
        raise ValueError("images with known attributes are needed; give --data=PATH, such as `avatars` makes")
    data = ImageFolderDataset(path, use_labels=True)
    attributes, rows = known_attributes(data)
    return data, attributes, rows[:_REAL]


def train_encoder(
    G: torch.nn.Module,
    dims: int,
    pairs: int = PAIRS,
    batch: int = 32,
    seed: int = 0,
    count: Callable[[range], Iterable[int]] = iter,
) -> torch.nn.Module:
    """A network that tells G's own coordinates, or the `dims` strongest dimensions of each layer, from an image.

    images [N, C, H, W] in [0, 255] → [N, codes], in deviations. count: hands on the numbers of steps (tqdm does).
    """
    draw = _own_pairs(G) if getattr(G, "own_controls", list)() else _mixed_pairs(G, dims)
    codes = draw(1, seed)[1].shape[1]
    device = next(G.buffers()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        encoder = AttributeNetwork(G.img_resolution, G.img_channels, codes).to(device)
        steps = pairs // batch
        optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
        for step in count(range(steps)):
            images, goals = draw(batch, seed + 1 + step)
            loss = (encoder((images * 127.5 + 127.5).clamp(0, 255)) - goals.float()).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return encoder.eval().requires_grad_(False)


def _own_pairs(G):
    """A function of batch and seed → (images in [−1, 1], own coordinates [batch, codes] in deviations)"""
    codes = G.mapping.own.outputs
    sample = random_ws(G, 1000, seed=0)[:, 0, -codes:]
    mean, deviation = sample.mean(dim=0), sample.std(dim=0)

    @torch.no_grad()
    def draw(batch, seed):
        ws = random_ws(G, batch, seed)
        return G.synthesis(ws, noise_mode="const"), (ws[:, 0, -codes:] - mean) / deviation

    return draw


def _mixed_pairs(G, dims):
    """As `_own_pairs`, of the `dims` strongest dimensions of each layer, whose latents are each layer's own"""
    read = [max(c.offsets.items(), key=lambda item: item[1].abs().max()) for c in strongest_candidates(G, dims)]
    read = [(layer, int(offset.abs().argmax())) for layer, offset in read]
    coordinates = {layer: (c.mean(dim=0), c.std(dim=0)) for layer, c in coordinates_of(G).items()}
    layers = list(G.subspaces())

    @torch.no_grad()
    def draw(batch, seed):
        ws, *others = random_ws(G, batch * (len(layers) + 1), seed).split(batch)
        offsets = {layer: mixed_offsets(G, ws, other, [layer])[layer] for layer, other in zip(layers, others)}
        with G.edited(offsets=offsets):
            images = G.synthesis(ws, noise_mode="const")
        mixed = {layer: G.subspaces()[layer].coordinates(other[:, 0]) for layer, other in zip(layers, others)}
        goals = [(mixed[layer][:, d] - coordinates[layer][0][d]) / coordinates[layer][1][d] for layer, d in read]
        return images, torch.stack(goals, dim=1)

    return draw


@torch.no_grad()
def encoded(encoder: torch.nn.Module, data: ImageFolderDataset, count: int, batch: int = 100) -> torch.Tensor:
    """[count, codes]: what the encoder says of the first images of a data set"""
    device = next(encoder.parameters()).device
    return torch.cat([encoder(images_of(data, part, device)) for part in torch.arange(count).split(batch)]).cpu()


def _binned(column, bins):
    """Numbers → which of `bins` equally full bins"""
    edges = column.double().quantile(torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1])
    return torch.bucketize(column.double().contiguous(), edges)


def _values(attribute, row):
    return row.long() if attribute.values else _binned(row, _BINS)


def information_gaps(found: torch.Tensor, attributes: list[Attribute], rows: torch.Tensor) -> list[float]:
    """For each attribute (I₁ − I₂) / H: how much more the best code tells of it than the next (Chen et al. 2018).

    found: codes [N, M], in 20 bins each, M at least 2. rows [N, attributes].
    """
    binned = [_binned(column, _BINS) for column in found.t()]
    gaps = []
    for attribute, row in zip(attributes, rows.t()):
        values = _values(attribute, row)
        first, second = sorted((_information(code, values) for code in binned), reverse=True)[:2]
        gaps.append((first - second) / _information(values, values))
    return gaps


def _information(a, b):
    """Mutual information of two columns of indices, in nats; of a column with itself its entropy"""
    counts = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.float64)
    counts.index_put_((a, b), torch.ones(len(a), dtype=torch.float64), accumulate=True)
    joint = counts / len(a)
    independent = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0)
    there = joint > 0
    return float((joint[there] * (joint[there] / independent[there]).log()).sum())


def held_factor_accuracy(
    found: torch.Tensor, attributes: list[Attribute], rows: torch.Tensor, generator: torch.Generator
) -> float:
    """How often the code that varies least tells which attribute was held still (FactorVAE, Kim and Mnih 2018).

    found: codes [N, M]; rows [N, attributes]. 64 images with one value of one attribute at a time; a vote is the code
    with the smallest variance, in units of its own; the majority of 800 votes says what each code stands for, and
    800 more are judged.
    """
    scaled = found / found.std(dim=0).clamp(min=1e-9)
    groups = [_groups_of_one_value(_values(a, row)) for a, row in zip(attributes, rows.t())]
    votes = torch.zeros(2, found.shape[1], len(attributes))
    for part in (0, 1):
        for _ in range(_VOTES):
            a = int(torch.randint(len(attributes), [1], generator=generator))
            group = groups[a][int(torch.randint(len(groups[a]), [1], generator=generator))]
            chosen = group[torch.randint(len(group), [_HELD], generator=generator)]
            votes[part, scaled[chosen].var(dim=0).argmin(), a] += 1
    stands_for = votes[0].argmax(dim=1)
    return float(votes[1][torch.arange(len(stands_for)), stands_for].sum() / _VOTES)


def _groups_of_one_value(values):
    """Which images have each value, of those values that more than one image has"""
    groups = [(values == value).nonzero()[:, 0] for value in values.unique()]
    return [group for group in groups if len(group) > 1]
