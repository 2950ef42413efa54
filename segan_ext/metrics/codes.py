"""What an encoder reads of a generator's coordinates in an image, and how that fits known attributes: MIG, FactorVAE.

The encoder learns from images that the generator makes and is asked about real images whose attributes are known. It
tells own coordinates where the generator has them, else each layer's strongest, from a latent of that layer's own.
"""

from collections.abc import Callable, Iterable

import torch

from metrics import metric_utils
from segan_ext import own
from segan_ext.control.render import mixed_offsets
from segan_ext.latents import SIGMA_SAMPLES, coordinates_of, random_w, random_ws
from segan_ext.metrics.attributes import Attribute, AttributeNetwork, images_of, known_attributes
from segan_ext.metrics.selectivity import strongest_candidates
from training.dataset import ImageFolderDataset

PAIRS = 20000  # images that the encoder sees
_REAL = 10000  # images at most that it is asked about
_BINS = 20  # of a code, and of a number
_HELD = 64  # images with the same value of one attribute
_VOTES = 800  # to learn from, and as many to judge by
_CONSTANT = 1e-18  # variance of a code that says nothing


def known(opts: metric_utils.MetricOptions) -> tuple[ImageFolderDataset, list[Attribute], torch.Tensor]:
    """(data set, its attributes, rows [images, attributes]), 10 000 images at most. ValueError if nothing is known."""
    path = opts.dataset_kwargs.get("path")
    if path is None:
        raise ValueError("images with known attributes are needed; give --data=PATH, such as `avatars` makes")
    data = ImageFolderDataset(path, use_labels=True)
    attributes, rows = known_attributes(data)
    return data, attributes, rows[:_REAL]


class CodeEncoder(torch.nn.Module):
    """Reads a generator's codes off its images, in the codes' own units.

    widths: how many outputs each code has: 1 of a number; of values one each, about how likely it is. mean, deviation:
    [Σ width] of the codes over random latents; the network tells how far off the mean each is, in deviations.
    """

    def __init__(self, G: torch.nn.Module, widths: list[int], codes: torch.Tensor) -> None:
        """codes [N, Σ width]: those of random latents of G"""
        super().__init__()
        self.widths = list(widths)
        self.network = AttributeNetwork(G.img_resolution, G.img_channels, sum(widths))
        self.register_buffer("mean", codes.mean(dim=0).float())
        self.register_buffer("deviation", codes.std(dim=0).clamp(min=1e-3).float())  # a rare value
        self.to(codes.device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images [N, C, H, W] in [0, 255] → [N, Σ width]"""
        return self.network(images) * self.deviation + self.mean


def train_encoder(
    G: torch.nn.Module,
    dims: int,
    pairs: int = PAIRS,
    batch: int = 32,
    seed: int = 0,
    count: Callable[[range], Iterable[int]] = iter,
) -> CodeEncoder:
    """A `CodeEncoder` of G's own coordinates, or of the `dims` strongest dimensions of each layer.

    An own coordinate with values is one code. count: hands on the numbers of steps (tqdm does).
    """
    widths, sample, draw = _own_pairs(G) if getattr(G, "own_controls", list)() else _mixed_pairs(G, dims)
    device = next(G.buffers()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        encoder = CodeEncoder(G, widths, sample)
        steps = pairs // batch
        optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
        for step in count(range(steps)):
            images, goals = draw(batch, seed + 1 + step)
            found = encoder((images * 127.5 + 127.5).clamp(0, 255))
            loss = ((found - goals.float()) / encoder.deviation).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return encoder.eval().requires_grad_(False)


def _own_pairs(G):
    """(widths of the codes, those of random latents [N, Σ width], a function of batch and seed that draws pairs)

    Pairs: images in [−1, 1] and their codes [batch, Σ width].
    """
    groups, codes = G.mapping.own.groups, G.mapping.own.outputs
    widths = []
    for group, size in zip(groups, own.widths(groups)):
        widths += [size] if "shares" in group else [1] * size

    @torch.no_grad()
    def draw(batch, seed):
        ws = random_ws(G, batch, seed)
        return G.synthesis(ws, noise_mode="const"), ws[:, 0, -codes:]

    return widths, random_w(G, SIGMA_SAMPLES)[:, -codes:], draw


def _mixed_pairs(G, dims):
    """As `_own_pairs`, of the `dims` strongest dimensions of each layer, whose latents are each layer's own"""
    read = [max(c.offsets.items(), key=lambda item: item[1].abs().max()) for c in strongest_candidates(G, dims)]
    read = [(layer, int(offset.abs().argmax())) for layer, offset in read]
    coordinates = coordinates_of(G)
    layers = list(G.subspaces())

    @torch.no_grad()
    def draw(batch, seed):
        ws, *others = random_ws(G, batch * (len(layers) + 1), seed).split(batch)
        offsets = {layer: mixed_offsets(G, ws, other, [layer])[layer] for layer, other in zip(layers, others)}
        with G.edited(offsets=offsets):
            images = G.synthesis(ws, noise_mode="const")
        mixed = {layer: G.subspaces()[layer].coordinates(other[:, 0]) for layer, other in zip(layers, others)}
        return images, torch.stack([mixed[layer][:, d] for layer, d in read], dim=1)

    sample = torch.stack([coordinates[layer][:, d] for layer, d in read], dim=1)
    return [1] * len(read), sample, draw


@torch.no_grad()
def encoded(encoder: CodeEncoder, data: ImageFolderDataset, count: int, batch: int = 100) -> torch.Tensor:
    """[count, Σ width]: what the encoder says of the first images of a data set"""
    device = next(encoder.parameters()).device
    return torch.cat([encoder(images_of(data, part, device)) for part in torch.arange(count).split(batch)]).cpu()


def _binned(column, bins):
    """Numbers → which of `bins` equally full bins"""
    edges = column.double().quantile(torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1])
    return torch.bucketize(column.double().contiguous(), edges)


def _values(attribute, row):
    return row.long() if attribute.values else _binned(row, _BINS)


def information_gaps(
    found: torch.Tensor, widths: list[int], attributes: list[Attribute], rows: torch.Tensor
) -> list[float]:
    """For each attribute (I₁ − I₂) / H: how much more the best code tells of it than the next (Chen et al. 2018).

    found: [N, Σ width]. widths: of each code; one with values is what is likeliest of them, a number is put into 20
    bins. A single code has no next: I₂ is 0. rows [N, attributes].
    """
    codes = [part.argmax(dim=1) if part.shape[1] > 1 else _binned(part[:, 0], _BINS) for part in found.split(widths, 1)]
    gaps = []
    for attribute, row in zip(attributes, rows.t()):
        values = _values(attribute, row)
        first, second = sorted([0.0, *(_information(code, values) for code in codes)], reverse=True)[:2]
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
    found: torch.Tensor,
    widths: list[int],
    attributes: list[Attribute],
    rows: torch.Tensor,
    generator: torch.Generator,
) -> float:
    """How often the code that varies least tells which attribute was held still (FactorVAE, Kim and Mnih 2018).

    found: [N, Σ width]; widths: of each code; rows [N, attributes]. 64 images with one value of one attribute at a
    time; a vote is the code with the smallest variance, in units of its own, of those that vary at all; the majority of
    800 votes says what each code stands for, and 800 more are judged. ValueError where an attribute cannot be held.
    """
    variances = lambda x: torch.stack([part.var(dim=0).sum() for part in x.double().split(widths, dim=1)])
    usual = variances(found)
    groups = [_groups_of_one_value(a, row) for a, row in zip(attributes, rows.t())]
    votes = torch.zeros(2, len(widths), len(attributes))
    for part in (0, 1):
        for _ in range(_VOTES):
            a = int(torch.randint(len(attributes), [1], generator=generator))
            group = groups[a][int(torch.randint(len(groups[a]), [1], generator=generator))]
            chosen = found[group[torch.randint(len(group), [_HELD], generator=generator)]]
            shares = torch.where(usual > _CONSTANT, variances(chosen) / usual, torch.inf)
            votes[part, shares.argmin(), a] += 1
    stands_for = votes[0].argmax(dim=1)
    return float(votes[1][torch.arange(len(stands_for)), stands_for].sum() / _VOTES)


def _groups_of_one_value(attribute, row):
    """Which images have each value of an attribute, of those values that more than one image has"""
    values = _values(attribute, row)
    groups = [(values == value).nonzero()[:, 0] for value in values.unique()]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        raise ValueError(
            f"{attribute.name} cannot be held still: no two of {len(row)} images have the same value; give more images"
        )
    return groups
