"""A generator as ONNX, checked with onnxruntime."""

import logging
import os
import warnings

import numpy as np
import torch

from segan_ext.latents import labels_of
from snapshots.atomic import write_atomically
from training.latents import seed_latents


class _WithFixedNoise(torch.nn.Module):
    """What is exported to ONNX; tensors in, tensors out."""

    def __init__(self, G):
        super().__init__()
        self.G = G

    def forward(self, z, truncation_psi, label=None):
        G = self.G
        ws = G.mapping(z, label)
        ws = G.mapping.w_avg + truncation_psi * (ws - G.mapping.w_avg)
        return G.synthesis(ws, noise_mode="const", force_fp32=True, fused_modconv=False)


def export_onnx(G: torch.nn.Module, dest: str | os.PathLike) -> float:
    """Writes `dest` and checks it: returns the largest difference between its images and ours, for five seeds.

    ValueError where the packages of the extra [onnx] are missing, or PyTorch is older than 2.6.
    """
    try:
        import onnx  # noqa: F401 (asked for here, so that its absence is said at once)
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"ONNX needs {error.name}; pip install 'segan[onnx]'") from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise ValueError(f"ONNX needs PyTorch 2.6 or newer; this is {torch.__version__}")
    module = _WithFixedNoise(G.float()).eval()
    inputs = _onnx_inputs(G, seeds=[0, 1])
    batch = torch.export.Dim("batch", min=1, max=4096)
    free = {name: {0: batch} if tensor.ndim else {} for name, tensor in inputs.items()}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it says four times that torchvision is not here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, kwargs=inputs, dynamic_shapes=free, dynamo=True, opset_version=18, verbose=False
        )

    def write(file):
        file.write(program.model_proto.SerializeToString())

    write_atomically(dest, write)
    session = onnxruntime.InferenceSession(os.fspath(dest), providers=["CPUExecutionProvider"])
    worst = 0
    for seeds in ([0], [1, 2, 3, 4]):
        inputs = _onnx_inputs(G, seeds)
        (images,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.no_grad():
            worst = max(worst, float(np.abs(images - module(**inputs).numpy()).max()))
    return worst


def _onnx_inputs(G, seeds):
    inputs = dict(z=seed_latents(G, seeds, "cpu").float(), truncation_psi=torch.tensor(0.7))
    if G.c_dim:
        inputs["label"] = torch.cat([labels_of(G, 1, seed) for seed in seeds])
    return inputs
