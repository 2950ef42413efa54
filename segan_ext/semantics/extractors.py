"""Extractors: a generator's features → class logits of every pixel. LSE is linear; NSE-1 and NSE-2 are what it is held
against (Xu and Zheng 2021, sections 3 and 4)."""

import json
import os
from collections.abc import Sequence
from typing import Any

import safetensors
import safetensors.torch
import torch

from segan_ext.layers import FeatureHooks
from snapshots import hub
from snapshots.atomic import write_atomically
from torch_utils.ops import conv2d_gradfix

_FORMAT = "segan-semantics"
_VERSION = 1
IGNORED = 255  # the label of pixels that nobody labelled
_LAYER_WEIGHTS = ("softplus", "sigmoid", "none")


def resize(y: torch.Tensor, size: int) -> torch.Tensor:
    """[N, C, h, w] → [N, C, size, size], bilinear with aligned corners as published"""
    if y.shape[-1] == size:
        return y
    return torch.nn.functional.interpolate(y, [size, size], mode="bilinear", align_corners=True)


class Extractor(torch.nn.Module):
    """What all share. layers: names of `FeatureHooks`; channels: of each; classes: names, the background first."""

    def __init__(self, layers: Sequence[str], channels: Sequence[int], classes: Sequence[str], **options: Any) -> None:
        super().__init__()
        self.layers, self.channels, self.classes = tuple(layers), tuple(channels), tuple(classes)
        self.options = options
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"at least two different classes are needed, not {', '.join(self.classes) or 'none'}")
        if len(self.classes) > IGNORED:
            raise ValueError(f"{IGNORED} classes are the most, not {len(self.classes)}")

    @classmethod
    def of(
        cls, G: torch.nn.Module, classes: Sequence[str], layers: Sequence[str] | None = None, **options: Any
    ) -> "Extractor":
        """A new one for the features of G (layers: None for all)."""
        hooks = FeatureHooks(G, layers)
        return cls(hooks.names, hooks.channels, classes, **options)

    def forward(self, features: Sequence[torch.Tensor], size: int | None = None) -> torch.Tensor:
        """features [N, channels, h, w] of every layer → logits [N, classes, size, size]; None: the largest layer's"""
        raise NotImplementedError

    def labels(self, features: Sequence[torch.Tensor], size: int | None = None) -> torch.Tensor:
        """Indices of the likeliest classes [N, size, size]"""
        return self(features, size).argmax(dim=1)


class _Layerwise(Extractor):
    """The weighted sum of what a network for each layer makes of its features, each enlarged to the same size.

    layer_weights: learned ones, brought to the sum 1 through 'softplus' or 'sigmoid', or 'none', a plain sum.
    """

    def __init__(self, layers, channels, classes, layer_weights="softplus", **options):
        if layer_weights not in _LAYER_WEIGHTS:
            raise ValueError(f"layer_weights must be one of {', '.join(_LAYER_WEIGHTS)}, not {layer_weights!r}")
        super().__init__(layers, channels, classes, layer_weights=layer_weights, **options)
        self.maps = torch.nn.ModuleList(self._map(width, len(self.classes)) for width in channels)
        if layer_weights != "none":
            self.raw_weights = torch.nn.Parameter(torch.ones(len(self.maps)))

    def weights(self) -> torch.Tensor:
        """Of the layers [layers]"""
        kind = self.options["layer_weights"]
        if kind == "none":
            return torch.ones(len(self.maps), device=next(self.parameters()).device)
        raw = torch.nn.functional.softplus(self.raw_weights) if kind == "softplus" else self.raw_weights.sigmoid()
        return raw / raw.sum()

    def layer_logits(self, features: Sequence[torch.Tensor], size: int | None = None) -> list[torch.Tensor]:
        """Logits [N, classes, size, size] of each layer alone"""
        size = size or max(x.shape[-1] for x in features)
        return [resize(layer(x), size) for layer, x in zip(self.maps, features)]

    def forward(self, features, size=None):
        size = size or max(x.shape[-1] for x in features)
        sums = {}  # enlarging commutes with sums, so each resolution is enlarged once
        for layer, x, weight in zip(self.maps, features, self.weights()):
            y = layer(x) * weight
            sums[x.shape[-1]] = sums[x.shape[-1]] + y if x.shape[-1] in sums else y
        return sum(resize(y, size) for y in sums.values())


class LSE(_Layerwise):
    """Linear: a 1×1 convolution for each layer. bias: published without."""

    def __init__(
        self,
        layers: Sequence[str],
        channels: Sequence[int],
        classes: Sequence[str],
        layer_weights: str = "softplus",
        bias: bool = False,
    ) -> None:
        self._bias = bias
        super().__init__(layers, channels, classes, layer_weights, bias=bias)

    def _map(self, width, classes):
        return torch.nn.Conv2d(width, classes, 1, bias=self._bias)


class NSE1(_Layerwise):
    """Nonlinear, pixel by pixel: three layers for each layer of the generator. kernel_size: 1 as published, or 3."""

    def __init__(
        self,
        layers: Sequence[str],
        channels: Sequence[int],
        classes: Sequence[str],
        layer_weights: str = "softplus",
        kernel_size: int = 1,
    ) -> None:
        if kernel_size not in (1, 3):
            raise ValueError(f"kernel_size must be 1 or 3, not {kernel_size}")
        self._kernel_size = kernel_size
        super().__init__(layers, channels, classes, layer_weights, kernel_size=kernel_size)

    def _map(self, width, classes):
        middle = (width + classes) // 2
        convs = [_Conv(a, b, self._kernel_size) for a, b in ((width, middle), (middle, middle), (middle, classes))]
        return torch.nn.Sequential(convs[0], torch.nn.ReLU(), convs[1], torch.nn.ReLU(), convs[2])


class NSE2(Extractor):
    """Nonlinear, over neighbourhoods: a decoder that takes in the features from the coarsest to the finest."""

    def __init__(self, layers: Sequence[str], channels: Sequence[int], classes: Sequence[str]) -> None:
        super().__init__(layers, channels, classes)
        self.converters = torch.nn.ModuleList(_Conv(width, width, 3) for width in channels)
        self.steps = torch.nn.ModuleList(_Conv(a, b, 3) for a, b in zip(channels, channels[1:]))
        self.last = _Conv(channels[-1], len(self.classes), 3)

    def forward(self, features: Sequence[torch.Tensor], size: int | None = None) -> torch.Tensor:
        """features [N, channels, h, w] of every layer → logits [N, classes, size, size]; None: the largest layer's"""
        x = [converter(y).relu() for converter, y in zip(self.converters, features)]
        hidden = x[0]
        for step, y in zip(self.steps, x[1:]):
            if y.shape[-1] > hidden.shape[-1]:
                hidden = torch.nn.functional.interpolate(hidden, list(y.shape[2:]), mode="nearest")
            hidden = step(hidden).relu() + y
        return resize(self.last(hidden), size or hidden.shape[-1])


class _Conv(torch.nn.Conv2d):
    """A convolution that keeps the size, by the host's kernels"""

    def __init__(self, in_channels, out_channels, kernel_size):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x):
        return conv2d_gradfix.conv2d(x, self.weight, self.bias, padding=self.padding)


KINDS = {"LSE": LSE, "NSE-1": NSE1, "NSE-2": NSE2}


def kind_of(extractor: Extractor) -> str:
    """Its name in KINDS"""
    return next(name for name, kind in KINDS.items() if type(extractor) is kind)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def save_extractor(path: str | os.PathLike, extractor: Extractor, **about: Any) -> None:
    """Writes a .safetensors with the weights and, as JSON, what rebuilds it; about: what else should be known of it."""
    content = dict(
        format=_FORMAT, version=_VERSION, kind=kind_of(extractor), layers=extractor.layers, channels=extractor.channels
    )
    content |= dict(classes=extractor.classes, options=extractor.options, about=about)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in extractor.state_dict().items()}
    data = safetensors.torch.save(state, metadata=dict(semantics=json.dumps(content)))
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    write_atomically(path, lambda file: file.write(data))


def open_extractor(path: str | os.PathLike, G: torch.nn.Module | None = None) -> Extractor:
    """The extractor in a file of `save_extractor`, in eval mode, on the device of G; path: or hub:OWNER/NAME.

    OSError or ValueError, in one sentence, for another file, or one that does not fit G.
    """
    path = hub.local_path(path, hub.EXTRACTOR)
    try:
        with safetensors.safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {})["semantics"])
        if content["format"] != _FORMAT:
            raise KeyError("format")
        if content.get("version", 1) != _VERSION:  # the first had none
            raise ValueError(f"version {content['version']}, of which this version of SEGAN reads {_VERSION}")
        parts = (content["layers"], content["channels"], content["classes"])
        if not all(isinstance(name, str) for name in (*parts[0], *parts[2])) or len(parts[0]) != len(parts[1]):
            raise TypeError("names")
        with torch.device("meta"):  # shapes alone: the file could claim any
            extractor = KINDS[content["kind"]](*parts, **content["options"])
        extractor.load_state_dict(safetensors.torch.load_file(path), assign=True)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{path} is no extractor of `semantics train` that opens here ({_said(error)})") from error
    extractor = extractor.eval().requires_grad_(False).float()
    if not all(p.isfinite().all() for p in extractor.parameters()):
        raise ValueError(f"{path} holds weights that are not finite")
    if G is None:
        return extractor
    hooks = FeatureHooks(G, extractor.layers)
    if hooks.channels != extractor.channels:
        raise ValueError(f"{path} was made for a generator of other widths: {extractor.channels}, not {hooks.channels}")
    return extractor.to(next(G.parameters()).device)


def _said(error):
    return (str(error).splitlines() or [""])[0][:200] if isinstance(error, ValueError) else type(error).__name__


def class_index(extractor: Extractor, name: str) -> int:
    """The index of a class. ValueError, with the known ones, for another."""
    if name not in extractor.classes:
        raise ValueError(f"there is no class {name!r}; there are {', '.join(extractor.classes)}")
    return extractor.classes.index(name)
