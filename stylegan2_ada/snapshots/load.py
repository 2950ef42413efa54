"""Opens networks: snapshots of ours and of the reference, of TensorFlow's time, safetensors; runs no code of theirs."""

import inspect
import os
from typing import Any, BinaryIO

import torch

import dnnlib
from snapshots import hub, safe_pickle, tensorflow
from snapshots.safetensors import load_safetensors
from torch_utils import misc, persistence

_NETWORKS = ("G", "D", "G_ema")


def load_network_pkl(f: BinaryIO, force_fp16: bool = False, trust: bool = False) -> dict[str, Any]:
    """The dict of G, D, G_ema (modules), augment_pipe (module or None) and training_set_kwargs in a snapshot.

    Only G_ema has to be there; G and D are None where they are not, as in files that were made small. A network that
    was trained on label vectors brings label_examples [N, c_dim], which its generators get as an attribute.

    f: binary file: a snapshot of ours or of the reference, or a (G, D, Gs) of the TensorFlow era. force_fp16: rebuilds
    the networks with half precision in their four highest resolutions. trust: runs the code that the pickle carries,
    for networks that are none of ours. ValueError with one sentence for anything else; without `trust` no code of the
    pickle runs.
    """
    name = getattr(f, "name", "the file")
    try:
        if trust:
            data = persistence.TrustingUnpickler(f).load()
        else:
            data = _rebuilt(safe_pickle.load(f))
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:400]
        said = "".join(letter if letter.isprintable() else "?" for letter in said)
        raise ValueError(f"{name} is not a network pickle that can be opened: {said}") from error
    data = dict(G_ema=data) if isinstance(data, torch.nn.Module) else data
    if not isinstance(data, dict) or not isinstance(data.get("G_ema"), torch.nn.Module):
        raise ValueError(f"{name} holds no generator under the name G_ema")
    for key in ("G", "D", "augment_pipe", "training_set_kwargs"):
        data.setdefault(key, None)
    networks = {key: data[key] for key in _NETWORKS if isinstance(data[key], torch.nn.Module)}
    if data.get("label_examples") is not None:
        generators = [networks[key] for key in ("G", "G_ema") if key in networks]
        misc.keep_label_examples(generators, data["label_examples"], name)
    if force_fp16:
        data |= {key: _with_fp16(net) for key, net in networks.items()}
    return data


def is_generator(net: Any) -> bool:
    """True for a module with what every tool here needs of a generator."""
    needed = ("z_dim", "c_dim", "w_dim", "num_ws", "img_resolution", "img_channels", "mapping", "synthesis")
    return all(hasattr(net, name) for name in needed)


def load_snapshot(network: str, trust: bool = False) -> dict[str, Any]:
    """What a snapshot or an export holds, as `load_network_pkl` gives it; G_ema is sure to be a generator.

    network: path or URL of a pickle, path of a `.safetensors` with its `.json` beside it, `hub:OWNER/NAME`, an export
    on the Hugging Face hub (`snapshots.hub`), or the name of one in the box (`snapshots.box`). G_ema is on the CPU, in
    eval mode and without gradients. trust: as above. OSError or ValueError with one sentence.
    """
    network = hub.local_path(network)
    if os.path.isdir(network):
        inside = sorted(name for name in os.listdir(network) if name.endswith((".pkl", ".safetensors")))
        raise ValueError(f"{network} is a folder; give a file{f', as {inside[-1]} in it' if inside else ''}")
    if network.endswith(".safetensors"):
        data = dict(G_ema=load_safetensors(network), training_set_kwargs=None)
    else:
        with dnnlib.util.open_url(network) as file:
            data = load_network_pkl(file, trust=trust)
    if not is_generator(data["G_ema"]):
        raise ValueError(f"{network} holds a {type(data['G_ema']).__name__}, which is no generator")
    data["G_ema"].eval().requires_grad_(False)
    return data


def load_generator(network: str, trust: bool = False) -> torch.nn.Module:
    """The averaged generator of `load_snapshot`."""
    return load_snapshot(network, trust)["G_ema"]


def _rebuilt(data):
    """Networks in place of the records that the safe reader found."""
    if isinstance(data, tuple) and len(data) == 3 and all(isinstance(net, safe_pickle.TFNetwork) for net in data):
        G, D, Gs = data
        return dict(G=convert_tf_generator(G), D=convert_tf_discriminator(D), G_ema=convert_tf_generator(Gs))
    if isinstance(data, safe_pickle.PickledModule):
        return safe_pickle.rebuild(data)
    if not isinstance(data, dict):
        return data
    found = {}
    for key in (*_NETWORKS, "augment_pipe"):
        value = data.get(key)
        found[key] = safe_pickle.rebuild(value) if isinstance(value, safe_pickle.PickledModule) else None
    found["training_set_kwargs"] = safe_pickle.plain(data.get("training_set_kwargs"))
    return found | {key: data[key] for key in ("label_examples",) if key in data}


def _with_fp16(net):
    bound = inspect.signature(type(net)).bind(*net.init_args, **net.init_kwargs)
    precision = dict(num_fp16_res=4, conv_clamp=256)
    if is_generator(net):
        bound.arguments["synthesis_kwargs"] = dict(bound.arguments.get("synthesis_kwargs", {}), **precision)
    elif "num_fp16_res" in bound.signature.parameters:
        bound.arguments |= precision
    else:
        raise ValueError(f"a {type(net).__name__} has no half precision to turn on")
    rebuilt = type(net)(*bound.args, **bound.kwargs).eval().requires_grad_(False)
    misc.copy_params_and_buffers(net, rebuilt, require_all=True)
    return rebuilt


def convert_tf_generator(tf_G: safe_pickle.TFNetwork) -> torch.nn.Module:
    """Our Generator with the weights of a TensorFlow one from `safe_pickle.load`. ValueError with the reason."""
    return tensorflow.convert_generator(tf_G)


def convert_tf_discriminator(tf_D: safe_pickle.TFNetwork) -> torch.nn.Module:
    """Our Discriminator with the weights of a TensorFlow one. ValueError with the reason."""
    return tensorflow.convert_discriminator(tf_D)
