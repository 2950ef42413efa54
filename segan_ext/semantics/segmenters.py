"""Networks that label images: opened from files, or trained on a data set with masks."""

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import tqdm

import dnnlib
from metrics import detectors
from segan_ext.data.avatars import mask_path
from segan_ext.semantics.extractors import resize
from segan_ext.semantics.iou import Scores
from snapshots.atomic import write_atomically
from training.dataset import ImageFolderDataset
from training.files import parse_json

_KIMG = 30  # images shown, in thousands
_HELD_OUT = 500  # images at most, and a tenth of all at most, that the skill is measured on
_VERSION = 1  # of the training below; part of the cached files' names


class Segmenter:
    """Labels images. network: images [N, 3, H, W] in [0, 255] → logits [N, classes, h, w].

    classes: names, the first is the background. skill: mean IoU over held-out images, None if unknown.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        classes: Iterable[str],
        name: str,
        skill: float | None = None,
    ) -> None:
        self.network, self.classes, self.name, self.skill = network, tuple(classes), name, skill

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """images [N, C, H, W] in [−1, 1] → [N, classes, H, W]; differentiable where the network is"""
        y = self.network((images.expand(-1, 3, -1, -1) * 127.5 + 127.5).clamp(0, 255))
        if y.ndim != 4 or y.shape[1] != len(self.classes):
            raise ValueError(
                f"{self.name} puts out {list(y.shape)}; logits [N, {len(self.classes)}, h, w] were expected, one for "
                "each class in the JSON beside it"
            )
        return resize(y.to(images.device), images.shape[-1])

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """images [N, C, H, W] in [−1, 1] → indices of classes [N, H, W]"""
        return self.logits(images).argmax(dim=1)


def open_segmenter(path: str | Path, device: str | torch.device = "cpu", progress: bool = True) -> Segmenter:
    """The segmenter of a data set with masks (trained on first use, then cached), or of a file.

    path: an archive that has its masks beside it (avatars.zip and avatars-masks.zip); or a TorchScript or ONNX file,
    images [N, 3, H, W] in [0, 255] → logits [N, classes, h, w], with the list of classes in the JSON of the same name.
    OSError or ValueError, in one sentence, for anything else.
    """
    if Path(path).suffix.lower() in (".pt", ".pth", ".onnx", ".torchscript"):
        return _open_file(path, device)
    if not Path(path).exists():
        raise ValueError(f"{path} does not exist; give a data set with masks, or a segmenter")
    if not mask_path(path).is_file():
        raise ValueError(
            f"{path} has no masks beside it ({mask_path(path).name}); `avatars --masks` makes a set that has, "
            "and a TorchScript or ONNX segmenter works as well"
        )
    data, masks = ImageFolderDataset(str(path)), ImageFolderDataset(str(mask_path(path)))
    classes = masks.json().get("classes")
    if not classes or len(data) != len(masks):
        raise ValueError(f"{mask_path(path)} does not belong to {path}: other images, or no list of classes")
    cached = dnnlib.util.make_cache_dir_path("segmenters", f"{data.name}-{masks.digest()}-v{_VERSION}.safetensors")
    if os.path.isfile(cached):
        with safetensors.safe_open(cached, "pt") as file:
            skill = json.loads(file.metadata()["skill"])
        network = UNet(len(classes))
        network.load_state_dict(safetensors.torch.load_file(cached))
        return Segmenter(network.eval().requires_grad_(False).to(device), classes, data.name, skill)
    network, skill = train(data, masks, len(classes), device=device, progress=progress)
    os.makedirs(os.path.dirname(cached), exist_ok=True)
    state = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    content = safetensors.torch.save(state, metadata=dict(skill=json.dumps(skill)))
    write_atomically(cached, lambda file: file.write(content))
    return Segmenter(network, classes, data.name, skill)


def _open_file(path, device):
    listed = Path(path).with_suffix(".json")
    try:
        classes = parse_json(listed.read_bytes(), list)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} needs the list of its classes, background first, in {listed.name}") from error
    if len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{listed} is no list of two or more names of classes")
    detector = detectors.open_detector(str(path), str(path), device)

    def network(images):
        y = detector(images)
        side = math.isqrt(y.shape[1] // len(classes))
        if y.ndim == 2 and y.shape[1] == len(classes) * side**2:  # ONNX detectors flatten what they put out
            y = y.reshape(len(y), len(classes), side, side)
        return y

    return Segmenter(network, classes, Path(path).stem)


# ---------------------------------------------------------------------------------------------------------------------
# A small segmenter, trained on images whose masks are known


class UNet(torch.nn.Module):
    """Images [N, 3, H, W] in [0, 255] → logits [N, classes, H, W] (Ronneberger et al. 2015, narrow)."""

    def __init__(self, classes: int, widths: Sequence[int] = (24, 48, 64, 64)) -> None:
        super().__init__()
        self.down = torch.nn.ModuleList(_pair(a, b) for a, b in zip((3, *widths), widths))
        self.up = torch.nn.ModuleList(_pair(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1]))
        self.last = torch.nn.Conv2d(widths[0], classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images [N, 3, H, W] in [0, 255], squares → logits [N, classes, H, W]"""
        size = images.shape[-1]
        levels = len(self.down) - 1
        x = images.to(torch.float32) / 127.5 - 1
        x = resize(x, -(-size // 2**levels) * 2**levels)
        skips = []
        for i, block in enumerate(self.down):
            x = block(torch.nn.functional.max_pool2d(x, 2) if i else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1]):
            x = block(torch.cat([torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1))
        return resize(self.last(x), size)


def _pair(width, next_width):
    steps = []
    for a in (width, next_width):
        steps += [torch.nn.Conv2d(a, next_width, 3, padding=1, bias=False), torch.nn.BatchNorm2d(next_width)]
        steps += [torch.nn.ReLU()]
    return torch.nn.Sequential(*steps)


def train(
    data: ImageFolderDataset,
    masks: ImageFolderDataset,
    classes: int,
    kimg: float | None = None,
    batch: int = 32,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[UNet, float]:
    """(network, skill): a `UNet` that has learned `masks` of `data`, and its mean IoU on a held-out tenth.

    Generated images are less crisp than drawn ones, so it also sees blurred and noisy copies.
    """
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(0)
        network = UNet(classes).to(device)
        held_out, shown = torch.randperm(len(data)).tensor_split([max(min(_HELD_OUT, len(data) // 10), 1)])
        steps = max((_KIMG if kimg is None else kimg) * 1000 // batch, 1)
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
        bar = tqdm.trange(int(steps), desc=f"Learning the masks of {data.name}", disable=None if progress else True)
        for _ in bar:
            images, labels = _batch(data, masks, shown[torch.randint(len(shown), [batch])], device)
            loss = torch.nn.functional.cross_entropy(network(_worse(images)), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        network = network.eval().requires_grad_(False)
        scores = Scores(classes)
        for part in held_out.split(batch):
            images, labels = _batch(data, masks, part, device)
            scores.add(network(images).argmax(dim=1), labels)
    return network, scores.mean_iou()


def _batch(data, masks, indices, device):
    """images [N, 3, H, W] in [0, 255] and their labels [N, H, W]"""
    images = torch.stack([torch.from_numpy(data[int(i)][0]) for i in indices]).to(device, torch.float32)
    labels = torch.stack([torch.from_numpy(masks[int(i)][0][0]) for i in indices]).to(device, torch.int64)
    return images.expand(-1, 3, -1, -1), labels


def _worse(images):
    """Half of the images blurred, all with noise of up to 12 of 255"""
    half = len(images) // 2
    padded = torch.nn.functional.pad(images[:half], [1, 1, 1, 1], mode="replicate")
    images = torch.cat([torch.nn.functional.avg_pool2d(padded, 3, stride=1), images[half:]])
    return images + torch.randn_like(images) * torch.rand(len(images), 1, 1, 1, device=images.device) * 12
