"""Features whose squared distance says how different two images look."""

import torch

from metrics import detectors, metric_utils

VGG16 = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/vgg16.pt"


class PerceptualFeatures:
    """A detector (`metrics.detectors`) as a function of images; `name` says which.

    OSError or ValueError, in one sentence, for one that cannot be had or does not compare images.
    """

    def __init__(self, detector: str, device: torch.device | str, num_attempts: int = 10) -> None:
        self.name = metric_utils.get_feature_detector_name(detector)
        self.module = metric_utils.get_feature_detector(detector, device, verbose=True, num_attempts=num_attempts)
        if detectors.PERCEPTUAL not in self.module.kinds:
            raise ValueError(f"{detector} does not compare images; vgg-hed and pixel-pyramid do, or a vgg16.pt")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """images [N, C, H, W] in [0, 255], C 1 or 3 → [N, features], differentiable"""
        return self.module(images.expand(-1, 3, -1, -1), resize_images=False, return_lpips=True)


def perceptual_features(detector: str | None, device: torch.device | str) -> PerceptualFeatures:
    """The features to compare images with.

    detector: path or URL of a TorchScript file, 'vgg-hed', 'pixel-pyramid', or None: the reference's VGG16; where that
    cannot be downloaded one of the other two, which is then said. OSError or ValueError if a detector that was
    asked for does not open.
    """
    if detector is not None:
        return PerceptualFeatures(detector, device)
    try:
        return PerceptualFeatures(VGG16, device, num_attempts=2)
    except OSError as error:
        reason = str(error).split(": ")[0]
    said = f"The VGG16 detector cannot be had ({reason}). --detector=PATH takes a vgg16.pt of yours. "
    try:
        features = PerceptualFeatures("vgg-hed", device)
        print(said + "Distances are of another VGG16 instead, vgg-hed.")
    except OSError:
        features = PerceptualFeatures("pixel-pyramid", device)
        print(
            said + "Distances are of pixels and their averages instead: they follow colours and layout, not what an "
            "eye would call alike."
        )
    return features
