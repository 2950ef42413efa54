"""Generators as safetensors plus a JSON file: weights that any program reads, and what they are weights of.

`NAME.safetensors` holds parameters and buffers by their dotted names, `NAME.json` the class and its arguments.
"""

import json
import os
import pickle

import safetensors
import safetensors.torch
import torch

from snapshots import safe_pickle
from snapshots.atomic import write_atomically
from torch_utils import misc

_FORMAT = "segan-generator"
_VERSION = 1
_MOST_HALF = torch.finfo(torch.float16).max


def check_destination(dest: str) -> None:
    """ValueError if the JSON beside `dest` (a .safetensors path) would replace one that describes no generator."""
    path = _config_path(dest)
    if os.path.exists(path):
        try:
            with open(path, encoding="utf-8") as file:
                ours = json.load(file).get("format") == _FORMAT
        except (OSError, ValueError, RecursionError, AttributeError):
            ours = False
        if not ours:
            raise ValueError(f"{path}, which belongs to it, is there and describes no generator; name another file")


def save_safetensors(G: torch.nn.Module, dest: str, half: bool = False) -> tuple[str, str]:
    """Writes `dest` (a .safetensors path) and the JSON beside it; returns both paths.

    half: numbers in half precision, half the size; what opens it computes in single precision as ever. ValueError for
    another ending, and for numbers beyond that precision.
    """
    config_path = _config_path(dest)
    check_destination(dest)
    config = dict(format=_FORMAT, version=_VERSION, class_name=type(G).__name__)
    config |= dict(init_args=G.init_args, init_kwargs=G.init_kwargs)
    config |= {
        name: getattr(G, name) for name in ("z_dim", "c_dim", "w_dim", "num_ws", "img_resolution", "img_channels")
    }
    if getattr(G, "label_examples", None) is not None:
        config["label_examples"] = G.label_examples.tolist()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in misc.named_params_and_buffers(G)}
    if half:
        if any(tensor.is_floating_point() and tensor.abs().max() > _MOST_HALF for tensor in tensors.values()):
            raise ValueError("some of its weights are beyond half precision; leave --half out")
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    write_atomically(dest, lambda file: file.write(safetensors.torch.save(tensors)))
    write_atomically(config_path, lambda file: file.write(json.dumps(config, indent=2).encode()))
    return dest, config_path


def load_safetensors(path: str) -> torch.nn.Module:
    """The generator in `path` (.safetensors) and the JSON beside it. OSError or ValueError with one sentence."""
    config_path = _config_path(path)
    try:
        with open(config_path, encoding="utf-8") as file:
            config = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config_path} is no JSON ({error})") from error
    if isinstance(config, dict) and config.get("format") == _FORMAT and config.get("version") != _VERSION:
        version = str(config.get("version"))[:20]
        raise ValueError(f"{config_path} is of version {version}; this version of SEGAN reads {_VERSION}")
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        raise ValueError(f"{config_path} does not describe a generator; `python -m segan_ext export` writes such files")
    try:
        tensors = safetensors.torch.load_file(path)
        args = [config[key] for key in ("class_name", "init_args", "init_kwargs")]
        G = safe_pickle.build_module(*args, tensors)
        if config.get("label_examples") is not None:
            misc.keep_label_examples([G], torch.tensor(config["label_examples"], dtype=torch.float32), config_path)
        return G
    except (safetensors.SafetensorError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise ValueError(f"{path} and its JSON do not give a generator: {error}") from error


def _config_path(path):
    stem, ending = os.path.splitext(path)
    if ending != ".safetensors":
        raise ValueError(f"{path} does not end in .safetensors")
    return stem + ".json"
