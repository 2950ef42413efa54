"""Opens network pickles without running code from them."""

import collections
import io
import pickle

import numpy as np
import torch

import dnnlib
from torch_utils import misc, persistence

# Everything that a snapshot may name: containers, numbers, tensors, and persistent objects, which
# `persistence` rebuilds from classes it knows.
_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("dnnlib.util", "EasyDict"): dnnlib.EasyDict,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): lambda data: torch.load(
        io.BytesIO(data), map_location="cpu", weights_only=True
    ),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): persistence._reconstruct_persistent_obj,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
    ("numpy._core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
}


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which network pickles have no use for")
        return _ALLOWED[module, name]


def load_network_pkl(f, force_fp16=False):
    """The dict of G, D, G_ema (modules), augment_pipe (module or None) and training_set_kwargs in a snapshot.

    f: binary file. force_fp16: rebuilds the networks with half precision in their four highest resolutions.
    ValueError with one sentence for anything that is not such a snapshot; no code of the pickle runs.
    """
    name = getattr(f, "name", "the file")
    try:
        data = _SafeUnpickler(f).load()
    except Exception as error:
        raise ValueError(f"{name} is not a network pickle that can be opened: {error}") from error
    missing = [key for key in ("G", "D", "G_ema") if not isinstance(data, dict) or key not in data]
    if missing or not all(isinstance(data[key], torch.nn.Module) for key in ("G", "D", "G_ema")):
        raise ValueError(f"{name} holds no networks under the names G, D and G_ema")
    data.setdefault("training_set_kwargs", None)
    data.setdefault("augment_pipe", None)
    if force_fp16:
        for key in ("G", "D", "G_ema"):
            data[key] = _with_fp16(data[key])
    return data


def _with_fp16(net):
    kwargs, precision = net.init_kwargs, dict(num_fp16_res=4, conv_clamp=256)
    if hasattr(net, "synthesis"):
        kwargs.synthesis_kwargs = kwargs.get("synthesis_kwargs", {}) | precision
    else:
        kwargs |= precision
    rebuilt = type(net)(*net.init_args, **kwargs).eval().requires_grad_(False)
    misc.copy_params_and_buffers(net, rebuilt, require_all=True)
    return rebuilt
