"""Predictors of attributes: what can be seen in an image, such as its hair colour or how far it is tilted.

They are small networks with the discriminator's architecture, trained on a data set whose attributes are known (the
factors of the built-in avatars, or class labels), or any TorchScript or ONNX classifier.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
import tqdm

import dnnlib
from metrics import detectors, metric_utils
from snapshots.atomic import write_atomically
from training import dataset, networks
from training.files import parse_json

_KIMG = 40  # images shown, in thousands, over again where there are fewer
_HELD_OUT = 1000  # images at most that the skill is measured on, and a tenth of all at most
_RELIABLE = 0.5  # skill
_VERSION = 2  # of the training below and its file; part of the cached files' names
_FORMAT = "segan-attributes"
_FORMAT_VERSION = 1
_STEADY = 0.1  # share of an attribute's deviation over data, below which its deviation over images is no unit
_DOUBT = 0.02  # how sure of a value a score can be: 1 − _DOUBT


class Attribute(NamedTuple):
    """What a predictor says about an image: which of `values`, or for None a number in units of its deviation."""

    name: str
    values: tuple[str, ...] | None = None

    @property
    def width(self) -> int:
        """How many numbers a prediction has"""
        return len(self.values) if self.values else 1


class Predictor:
    """Images → predictions of each attribute.

    network: images [N, C, H, W] in [0, 255] → [N, Σ width]: logits of each attribute's values, or its number, in turn.
    skill: {name: share of the mistakes that it avoids on images not trained on}: 0 is as good as always naming the most
    frequent value (the mean of a number), 1 is without mistakes (the R² of a number); empty if unknown.
    deviations: {name: deviation over data} of what it says of numbers, where that is known.
    """

    def __init__(
        self,
        attributes: Iterable[Attribute],
        network: Callable[[torch.Tensor], torch.Tensor],
        skill: dict[str, float] = {},
        name: str = "",
        deviations: dict[str, float] = {},
    ) -> None:
        self.attributes, self.network, self.skill, self.name = list(attributes), network, dict(skill), name
        self.deviations = dict(deviations)

    def reliable(self) -> list[str]:
        """Names of the attributes that this predictor knows well enough to judge by: skill 0.5 or more, or unknown"""
        return [a.name for a in self.attributes if self.skill.get(a.name, 1) >= _RELIABLE]

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """images [N, C, H, W] in [−1, 1] → {name: probabilities [N, values], or numbers [N, 1]}"""
        return {a.name: y.softmax(dim=1) if a.values else y for a, y in self._outputs(images)}

    def scores(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """images [N, C, H, W] in [−1, 1] → {name: log-probabilities [N, values] less their mean, or numbers [N, 1]}

        Differences of these measure changes. A value of which the predictor is 98 % sure counts as certain: beyond, the
        score would tell how typical an image is, and probabilities would tell too little before. Differentiable.
        """
        return {a.name: _certainties(y) if a.values else y for a, y in self._outputs(images)}

    def _outputs(self, images):
        outputs = self.network((images * 127.5 + 127.5).clamp(0, 255))
        return zip(self.attributes, outputs.split([a.width for a in self.attributes], dim=1))


def deviations_of_numbers(attributes: Iterable[Attribute]) -> dict[str, float]:
    """{name: 1} of those that are numbers, which data and labels bring to deviation 1 (`known_attributes`)"""
    return {attribute.name: 1.0 for attribute in attributes if attribute.values is None}


@torch.no_grad()
def hardly_varies(outputs: torch.Tensor, usual: float | None = None) -> bool:
    """True if an attribute varies so little among images of a generator that its deviation there is no unit of effects.

    outputs [N, k]: what is said of it for each image. usual: the deviation of that over data; where it is unknown, the
    root mean square stands for it, as what says neither yes nor no is 0. Less than a tenth of it is hardly anything.
    """
    if usual is None:
        usual = float(outputs.square().sum(dim=1).mean().sqrt())
    return not float(outputs.var(dim=0).sum().sqrt()) > max(_STEADY * usual, 1e-12)


def _certainties(logits):
    shares = logits.softmax(dim=1) * (1 - _DOUBT) + _DOUBT / logits.shape[1]
    return shares.log() - shares.log().mean(dim=1, keepdim=True)


def open_predictor(path: str | os.PathLike, device: str | torch.device = "cpu", progress: bool = True) -> Predictor:
    """The predictor of a data set with known attributes (trained on first use, then cached), or of a classifier file.

    path: folder or zip whose dataset.json has "factors" or class labels; a .safetensors of `save_predictor`; or a
    TorchScript or ONNX file, images [N, 3, H, W] in [0, 255] → [N, A], a number above 0 where the image has the
    attribute; a list in the JSON of the same name beside it names them. OSError or ValueError, in one sentence, for
    anything else.
    """
    if Path(path).suffix.lower() == ".safetensors":
        return _load(path, device)
    if _is_classifier(path):
        return _open_classifier(path, device)
    data = dataset.ImageFolderDataset(path, use_labels=True)
    attributes, rows = known_attributes(data)
    cached = dnnlib.util.make_cache_dir_path("attributes", f"{data.name}-{data.digest()}-v{_VERSION}.safetensors")
    if os.path.isfile(cached):
        return _load(cached, device)
    network, skill = train(data, attributes, rows, device=device, progress=progress)
    predictor = Predictor(attributes, network, skill, data.name, deviations_of_numbers(attributes))
    os.makedirs(os.path.dirname(cached), exist_ok=True)
    save_predictor(predictor, cached)
    return predictor


def save_predictor(predictor: Predictor, path: str | os.PathLike, half: bool = False) -> None:
    """Writes a predictor that was trained here as a .safetensors. half: its weights in half precision."""
    state = {name: tensor.contiguous().cpu() for name, tensor in predictor.network.state_dict().items()}
    state = {name: tensor.half() if half else tensor for name, tensor in state.items()}
    said = dict(format=_FORMAT, version=_FORMAT_VERSION, name=predictor.name, shape=predictor.network.shape)
    said |= dict(attributes=predictor.attributes, skill=predictor.skill)
    content = safetensors.torch.save(state, metadata=dict(attributes=json.dumps(said)))
    write_atomically(path, lambda file: file.write(content))


def source_digest(path: str | os.PathLike) -> str:
    """16 hex digits that stand for the data set or the classifier file at `path`"""
    return detectors.file_digest(path) if _is_classifier(path) else dataset.ImageFolderDataset(path).digest()


def _is_classifier(path):
    return Path(path).suffix.lower() in (".pt", ".pth", ".onnx", ".torchscript", ".safetensors")


def known_attributes(data: dataset.ImageFolderDataset) -> tuple[list[Attribute], torch.Tensor]:
    """(attributes, rows) of an `ImageFolderDataset`: rows [images, attributes], indices of values or numbers.

    A row for each picture that the data set uses, mirrored copies left out. Values come in the order of their
    frequency, those that no image has are left out; numbers are brought to mean 0 and deviation 1. ValueError if
    nothing is known.
    """
    return attributes_and_units(data)[:2]


def attributes_and_units(
    data: dataset.ImageFolderDataset,
) -> tuple[list[Attribute], torch.Tensor, list[tuple[float, float] | None]]:
    """(attributes, rows) as `known_attributes` gives them, and (mean, deviation) of each number as it is stored, None
    for values."""
    factors, classes = data.json().get("factors"), data._load_raw_labels()
    if factors:
        names, values, rows = _factors(data, factors)
    elif classes is not None and classes.dtype == np.int64:
        rows = torch.from_numpy(classes).double()[:, None]
        names, values = ["label"], {"label": [str(i) for i in range(int(classes.max()) + 1)]}
    else:
        raise ValueError(
            f"{data.path} has no known attributes: its dataset.json has neither factors nor classes; "
            "`python -m segan_ext avatars` makes a set that has"
        )
    attributes, columns, units = [], [], []
    for name, column in zip(names, rows[np.unique(data._raw_idx)].t()):
        unit = None
        if name in values:
            counts = column.long().bincount(minlength=len(values[name]))
            seen = [i for i in counts.argsort(descending=True, stable=True).tolist() if counts[i]]
            attribute = Attribute(name, tuple(str(values[name][i]) for i in seen))
            column = torch.tensor([seen.index(int(i)) for i in column])
        else:
            unit = unit_of(column)
            attribute, column = Attribute(name), (column - unit[0]) / unit[1]
        if attribute.width > 1 or (not attribute.values and column.any()):
            attributes.append(attribute)
            columns.append(column.double())
            units.append(unit)
    if not attributes:
        raise ValueError(f"in {data.path} no attribute varies")
    return attributes, torch.stack(columns, dim=1), units


def unit_of(column: torch.Tensor) -> tuple[float, float]:
    """(mean, deviation) of the numbers of a column [images] that are known"""
    known = column[column.isfinite()]
    return float(known.mean()), max(float(known.std()) if len(known) > 1 else 0, 1e-12)


def _factors(data, factors):
    """(names, values, rows of all pictures) of the factors in dataset.json. ValueError for what are none."""
    try:
        names, values = list(map(str, factors["names"])), {str(k): list(v) for k, v in factors["values"].items()}
        rows = torch.tensor(factors["items"], dtype=torch.float64)
        sound = rows.ndim == 2 and rows.shape[1] == len(names) and rows.isfinite().all()
        for name, column in zip(names, rows.t() if sound else []):
            if name in values:
                sound = sound and bool(((column >= 0) & (column < len(values[name])) & (column % 1 == 0)).all())
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{data.path}: the factors in dataset.json cannot be read ({error!r})") from error
    count = len(data.file_names())
    if not sound or len(rows) != count:
        raise ValueError(
            f"{data.path}: the factors in dataset.json are no rows of numbers and of places in values, one for each of "
            f"{count} images"
        )
    return names, values, rows


class AttributeNetwork(torch.nn.Module):
    """The discriminator's trunk with an output for every attribute. shape: the arguments."""

    def __init__(self, resolution, channels, outputs, width=64):
        super().__init__()
        self.shape = [resolution, channels, outputs, width]
        narrow = dict(channel_base=16 * width, channel_max=width, epilogue_kwargs=dict(mbstd_num_channels=0))
        self.trunk = networks.Discriminator(0, resolution, channels, **narrow)
        self.trunk.b4.out = networks.FullyConnectedLayer(self.trunk.b4.in_channels, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images [N, C, H, W] in [0, 255] → [N, outputs]"""
        if images.shape[1] != self.trunk.img_channels:  # grey for colour, or the other way round
            images = images.float().mean(dim=1, keepdim=True).expand(-1, self.trunk.img_channels, -1, -1)
        size = [self.trunk.img_resolution] * 2
        if list(images.shape[2:]) != size:
            images = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return self.trunk(images.to(torch.float32) / 127.5 - 1, None)


def train(
    data: dataset.ImageFolderDataset,
    attributes: list[Attribute],
    rows: torch.Tensor,
    kimg: float | None = None,
    batch: int = 32,
    device: str | torch.device = "cpu",
    progress: bool = True,
    seed: int = 0,
    width: int = 64,
) -> tuple[torch.nn.Module, dict[str, float]]:
    """(network, skill): a network that tells the attributes of the images of `data`.

    rows: as `known_attributes` gives them. Adam on cross-entropies (squared errors for numbers), a tenth of the images
    held out for the skill. Random numbers come from a generator of its own, by `seed`. width: channels at most.
    """
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(seed)
        network = AttributeNetwork(data.resolution, data.num_channels, sum(a.width for a in attributes), width).to(
            device
        )
        order = torch.randperm(len(data))
        held_out, shown = order.tensor_split([max(min(_HELD_OUT, len(data) // 10), 1)])
        steps = max((kimg or _KIMG) * 1000 // batch, 1)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
        bar = tqdm.trange(steps, desc=f"Learning attributes of {data.name}", disable=None if progress else True)
        for _ in bar:
            chosen = shown[torch.randint(len(shown), [batch])]
            loss = sum(_losses(network(images_of(data, chosen, device)), attributes, rows[chosen].to(device)))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item() / len(attributes):.3f}", refresh=False)
    network = network.eval().requires_grad_(False)
    return network, _skill(network, data, attributes, rows, held_out, device)


def images_of(
    data: dataset.ImageFolderDataset, indices: Iterable[int], device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Images [N, C, H, W], uint8, of a data set"""
    return torch.stack([torch.from_numpy(data[int(i)][0]) for i in indices]).to(device)


def _losses(outputs, attributes, rows):
    for attribute, y, known in zip(attributes, outputs.split([a.width for a in attributes], dim=1), rows.t()):
        if attribute.values:
            yield torch.nn.functional.cross_entropy(y, known.long())
        else:
            yield (y[:, 0] - known.float()).square().mean()


def _skill(network, data, attributes, rows, indices, device):
    parts = [network(images_of(data, part, device)) for part in indices.split(100)]
    if not parts:
        return {}
    found, known = torch.cat(parts).cpu().split([a.width for a in attributes], dim=1), rows[indices].t()
    skill = {}
    for attribute, y, column in zip(attributes, found, known):
        if attribute.values:
            mistakes = (y.argmax(dim=1) != column).double().mean()
            at_first = 1 - column.long().bincount().max() / len(column)
        else:
            mistakes, at_first = (y[:, 0] - column).square().mean(), column.var(correction=0)
        skill[attribute.name] = 1 - (mistakes / at_first.clamp(min=1e-12)).item()
    return skill


def _load(path, device):
    try:
        with safetensors.safe_open(path, "pt") as file:
            said = parse_json(file.metadata()["attributes"].encode(), dict)
            if said["format"] != _FORMAT:
                raise KeyError("format")
            if said["version"] != _FORMAT_VERSION:
                raise ValueError(f"version {said['version']!r}, of which this version of SEGAN reads {_FORMAT_VERSION}")
            attributes = [
                Attribute(str(name), values and tuple(map(str, values))) for name, values in said["attributes"]
            ]
            network = AttributeNetwork(*map(int, said["shape"]))
            names = file.keys()  # no dict: safetensors knows no other way
            network.load_state_dict({name: file.get_tensor(name).float() for name in names})
            skill = {str(name): float(value) for name, value in said["skill"].items()}
    except (KeyError, TypeError, AttributeError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} holds no attributes: {str(error).splitlines()[0]}") from error
    if sum(attribute.width for attribute in attributes) != network.shape[2]:
        raise ValueError(f"{path} is damaged: its attributes do not fit its network")
    network = network.eval().requires_grad_(False).to(device)
    return Predictor(attributes, network, skill, str(said["name"]), deviations_of_numbers(attributes))


def _open_classifier(path, device):
    detector = metric_utils.get_feature_detector(str(path), torch.device(device))

    def network(images):
        return detector(images.expand(-1, 3, -1, -1)).flatten(1).to(device)

    width = network(torch.zeros([1, 3, 64, 64], device=device)).shape[1]
    names = Path(path).with_suffix(".json")
    names = parse_json(names.read_bytes(), list) if names.is_file() else [f"attribute {i}" for i in range(width)]
    if len(names) != width:
        raise ValueError(f"{path} has {width} outputs; the list in its JSON names {len(names)}")
    return Predictor([Attribute(str(name)) for name in names], network, name=Path(path).stem)
