"""From networks of the TensorFlow era (StyleGAN2, StyleGAN2-ADA) to ours.

Their variables are renamed and reordered: matrices are transposed, kernels go from [H, W, in, out] to [out, in, H, W],
and those that raise the resolution are mirrored, because TensorFlow's transposed convolution does not flip them. A
style's bias is stored one less than ours. What a network was built with is read off its `static_kwargs`; its
architecture off the variables it has.
"""

import re

import numpy as np
import torch

from snapshots.safe_pickle import TFNetwork
from torch_utils import misc
from training import networks

# (their name, where ours goes: part of the constructor and name, default). Parts "" are the network's own arguments.
_GENERATOR = [
    ("latent_size", "", "z_dim", 512),
    ("label_size", "", "c_dim", 0),
    ("dlatent_size", "", "w_dim", 512),
    ("resolution", "", "img_resolution", 1024),
    ("num_channels", "", "img_channels", 3),
    ("mapping_layers", "mapping_kwargs", "num_layers", 8),
    ("label_fmaps", "mapping_kwargs", "embed_features", None),
    ("mapping_fmaps", "mapping_kwargs", "layer_features", None),
    ("mapping_nonlinearity", "mapping_kwargs", "activation", "lrelu"),
    ("mapping_lrmul", "mapping_kwargs", "lr_multiplier", 0.01),
    ("w_avg_beta", "mapping_kwargs", "w_avg_beta", 0.995),
    ("fmap_max", "synthesis_kwargs", "channel_max", 512),
    ("num_fp16_res", "synthesis_kwargs", "num_fp16_res", 0),
    ("conv_clamp", "synthesis_kwargs", "conv_clamp", None),
    ("resample_kernel", "synthesis_kwargs", "resample_filter", [1, 3, 3, 1]),
    ("use_noise", "synthesis_kwargs", "use_noise", True),
    ("nonlinearity", "synthesis_kwargs", "activation", "lrelu"),
]
_DISCRIMINATOR = [
    ("label_size", "", "c_dim", 0),
    ("resolution", "", "img_resolution", 1024),
    ("num_channels", "", "img_channels", 3),
    ("fmap_max", "", "channel_max", 512),
    ("num_fp16_res", "", "num_fp16_res", 0),
    ("conv_clamp", "", "conv_clamp", None),
    ("mapping_fmaps", "", "cmap_dim", None),
    ("nonlinearity", "block_kwargs", "activation", "lrelu"),
    ("resample_kernel", "block_kwargs", "resample_filter", [1, 3, 3, 1]),
    ("freeze_layers", "block_kwargs", "freeze_layers", 0),
    ("mapping_layers", "mapping_kwargs", "num_layers", 0),
    ("mapping_fmaps", "mapping_kwargs", "embed_features", None),
    ("mapping_fmaps", "mapping_kwargs", "layer_features", None),
    ("nonlinearity", "mapping_kwargs", "activation", "lrelu"),
    ("mapping_lrmul", "mapping_kwargs", "lr_multiplier", 0.1),
    ("mbstd_group_size", "epilogue_kwargs", "mbstd_group_size", None),
    ("mbstd_num_features", "epilogue_kwargs", "mbstd_num_channels", 1),
    ("nonlinearity", "epilogue_kwargs", "activation", "lrelu"),
]

# Arguments that say how a network is called or trained, not what it is.
_OF_NO_CONCERN = {
    *("truncation_psi", "truncation_cutoff", "truncation_psi_val", "truncation_cutoff_val", "style_mixing_prob"),
    *("is_training", "is_validation", "is_template_graph", "return_dlatents", "return_ws", "randomize_noise"),
    *("mapping_func", "synthesis_func", "components", "func_name", "dtype", "fused_modconv", "structure"),
    *("normalize_latents", "normalize_z", "dlatent_avg_beta", "dlatent_broadcast", "epilogue_lrmul"),
    *("architecture", "fmap_base", "fmap_decay", "fmap_min"),  # looked at elsewhere
}


def convert_generator(tf_G: TFNetwork) -> networks.Generator:
    """Our Generator with the weights of a `safe_pickle.TFNetwork`. ValueError if it is none that ours can be."""
    variables, kwargs = _opened(tf_G, _GENERATOR)
    if kwargs["mapping_kwargs"]["w_avg_beta"] is None:  # no average is kept; ours then stays as it is
        kwargs["mapping_kwargs"]["w_avg_beta"] = 1
    at_all = [name for name in variables if re.search(r"\d+x\d+/ToRGB/weight", name)]
    architecture = "skip" if len(at_all) > 1 or kwargs["img_resolution"] == 4 else "orig"
    if any("/Skip/" in name for name in variables):
        architecture = "resnet"
    kwargs["synthesis_kwargs"] |= dict(channel_base=_channel_base(tf_G), architecture=architecture)

    G = _make(networks.Generator, kwargs)
    names = {"mapping.w_avg": ("dlatent_avg", _as_is), "synthesis.b4.const": ("synthesis/4x4/Const/const", _first)}
    names |= _mapping("mapping/LabelEmbed", "mapping/Dense")
    for L, resolution in enumerate(G.synthesis.block_resolutions):
        ours, theirs = f"synthesis.b{resolution}", f"synthesis/{resolution}x{resolution}"
        if L > 0:
            names |= _styled(f"{ours}.conv0", f"{theirs}/Conv0_up", _mirrored, noise=2 * L - 1)
        names |= _styled(f"{ours}.conv1", f"{theirs}/{'Conv1' if L else 'Conv'}", _kernel, noise=2 * L)
        lod = G.synthesis.img_resolution_log2 - 2 - L
        rgb = f"{theirs}/ToRGB" if f"{theirs}/ToRGB/weight" in variables else f"synthesis/ToRGB_lod{lod}"
        names |= _styled(f"{ours}.torgb", rgb, _kernel)
        names[f"{ours}.skip.weight"] = (f"{theirs}/Skip/weight", _mirrored)
    unused = r"lod|synthesis/ToRGB_lod\d+/.*" if architecture == "orig" else "lod"
    return _filled(G, kwargs, names, variables, unused)


def convert_discriminator(tf_D: TFNetwork) -> networks.Discriminator:
    """Our Discriminator with the weights of a `safe_pickle.TFNetwork`. ValueError if it is none that ours can be."""
    variables, kwargs = _opened(tf_D, _DISCRIMINATOR)
    from_rgb = [name for name in variables if re.search(r"FromRGB(_lod\d+)?/weight", name)]
    by_default = "orig" if "FromRGB_lod0/weight" in variables else tf_D.static_kwargs.get("architecture", "resnet")
    architecture = "skip" if len(from_rgb) > 1 else by_default
    if any("/Skip/" in name for name in variables):
        architecture = "resnet"
    kwargs |= dict(architecture=architecture, channel_base=_channel_base(tf_D))

    D = _make(networks.Discriminator, kwargs)
    names = _mapping("LabelEmbed", "Mapping")
    for lod, resolution in enumerate([*D.block_resolutions, 4]):
        ours, theirs = f"b{resolution}", f"{resolution}x{resolution}"
        rgb = f"{theirs}/FromRGB" if f"{theirs}/FromRGB/weight" in variables else f"FromRGB_lod{lod}"
        names |= _layer(f"{ours}.fromrgb", rgb, _kernel)
        names |= _layer(f"{ours}.conv0", f"{theirs}/Conv0", _kernel)
        names |= _layer(f"{ours}.conv1", f"{theirs}/Conv1_down", _kernel)
        names[f"{ours}.skip.weight"] = (f"{theirs}/Skip/weight", _kernel)
    names |= _layer("b4.conv", "4x4/Conv", _kernel)
    names |= _layer("b4.fc", "4x4/Dense0", np.transpose)
    names |= _layer("b4.out", "Output", np.transpose)
    unused = r"lod|FromRGB_lod\d+/.*" if architecture == "orig" else "lod"
    return _filled(D, kwargs, names, variables, unused)


def _opened(network, table):
    """(all variables by name, constructor arguments)"""
    if network.version < 4:
        raise ValueError(f"{network.name} has the format {network.version}; networks before StyleGAN2 do not convert")
    variables = dict(network.variables)
    for part, component in network.components.items():
        variables |= {f"{part}/{name}": value for name, value in component.variables.items()}
    given = dict(network.static_kwargs)
    sides = [given.pop(f"resolution_{side}", given.get("resolution", 1024)) for side in "wh"]
    if sides != [given.get("resolution", 1024)] * 2:
        raise ValueError(f"{network.name} makes images of {sides[0]}×{sides[1]}; only square ones can be made here")
    unknown = given.keys() - {theirs for theirs, *_ in table} - _OF_NO_CONCERN
    if unknown:
        raise ValueError(f"{network.name} was built with {sorted(unknown)[0]}, which has no counterpart here")
    kwargs = {}
    for theirs, part, ours, default in table:
        (kwargs.setdefault(part, {}) if part else kwargs)[ours] = given.get(theirs, default)
    return variables, kwargs


def _channel_base(network):
    """Their widths halve from stage to stage, counted from one above 2×2; ours are channel_base / resolution."""
    if network.static_kwargs.get("fmap_decay", 1) != 1:
        raise ValueError(f"{network.name} was built with fmap_decay other than 1, which has no counterpart here")
    return network.static_kwargs.get("fmap_base", 16384) * 2


# ---------------------------------------------------------------------------------------------------------------------
# {our name: (their name, what to do with the array)}


def _as_is(array):
    return array


def _first(array):
    return array[0]


def _kernel(array):
    return array.transpose(3, 2, 0, 1)


def _mirrored(array):
    return _kernel(array)[:, :, ::-1, ::-1]


def _style_bias(array):
    return array + 1


def _noise(array):
    return array[0, 0]


def _layer(ours, theirs, change_weight):
    return {f"{ours}.weight": (f"{theirs}/weight", change_weight), f"{ours}.bias": (f"{theirs}/bias", _as_is)}


def _styled(ours, theirs, change_weight, noise=None):
    names = _layer(ours, theirs, change_weight)
    names[f"{ours}.affine.weight"] = (f"{theirs}/mod_weight", np.transpose)
    names[f"{ours}.affine.bias"] = (f"{theirs}/mod_bias", _style_bias)
    if noise is not None:
        names[f"{ours}.noise_strength"] = (f"{theirs}/noise_strength", _as_is)
        base = theirs.split("/")[0]
        names[f"{ours}.noise_const"] = (f"{base}/noise{noise}", _noise)
    return names


def _mapping(embed, dense):
    names = _layer("mapping.embed", embed, np.transpose)
    for i in range(64):
        names |= _layer(f"mapping.fc{i}", f"{dense}{i}", np.transpose)
    return names


def _make(cls, kwargs):
    """Shapes alone ("meta"), so that nothing is taken memory for before the file is seen to have it."""
    try:
        with torch.device("meta"):
            return cls(**kwargs).eval().requires_grad_(False)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"its {cls.__name__} was built with arguments that none can have ({reason[:200]})") from error


def _filled(net, kwargs, names, variables, unused):
    """The network with their variables in every parameter and buffer; nothing of theirs may be left over."""
    left, tensors = dict(variables), {}
    for name, tensor in misc.named_params_and_buffers(net):
        if name.endswith("resample_filter"):
            continue  # follows from the constructor's arguments
        theirs, change = names[name]
        if theirs not in left:
            raise ValueError(f"the TensorFlow network has no variable {theirs}, which {name} is made of")
        array = change(left.pop(theirs))
        if array.shape != tensor.shape:
            raise ValueError(
                f"the TensorFlow variable {theirs} gives {array.shape} for {name}, not {tuple(tensor.shape)}"
            )
        tensors[name] = torch.from_numpy(np.array(array, np.float32))
    left = [name for name in left if not re.fullmatch(unused, name)]
    if left:
        raise ValueError(f"the TensorFlow variable {left[0]} has no counterpart here ({len(left)} in all)")
    made = type(net)(**kwargs).eval().requires_grad_(False)
    for name, tensor in misc.named_params_and_buffers(made):
        if name in tensors:
            tensor.copy_(tensors[name])
    return made
