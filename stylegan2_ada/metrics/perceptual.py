"""Features whose squared distance says how different two images look."""

import math

import torch

from metrics import metric_utils

VGG16 = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/vgg16.pt"


class VGGFeatures:
    """Features of a TorchScript network with the interface of the reference's vgg16.pt (LPIPS, Zhang et al. 2018)."""

    def __init__(self, path_or_url, device, num_attempts=10):
        self.name = metric_utils.get_feature_detector_name(path_or_url)
        self.module = metric_utils.get_feature_detector(path_or_url, device, verbose=True, num_attempts=num_attempts)

    def __call__(self, images):
        """images [N, C, H, W] in [0, 255], C 1 or 3 → [N, features], differentiable"""
        return self.module(images.expand(-1, 3, -1, -1), resize_images=False, return_lpips=True)


class PyramidFeatures:
    """Pixels and their averages over 2×2, 4×4, … squares: follows colours and layout, knows nothing of perception."""

    name = "pixel-pyramid"

    def __call__(self, images):
        """images [N, C, H, W] in [0, 255] → [N, features], scaled so that a squared distance is a mean over levels"""
        levels = []
        images = images / 127.5
        while True:
            levels.append(images.flatten(1) / math.sqrt(images[0].numel()))
            if min(images.shape[2:]) <= 4:
                return torch.cat(levels, dim=1) / math.sqrt(len(levels))
            images = torch.nn.functional.avg_pool2d(images, 2)


def perceptual_features(detector, device):
    """The features to compare images with.

    detector: path or URL of a TorchScript file, 'pixel-pyramid', or None: the reference's VGG16, and the pyramid where
    that cannot be downloaded, which is then said. OSError or ValueError if a detector that was asked for does not open.
    """
    if detector == PyramidFeatures.name:
        return PyramidFeatures()
    if detector is not None:
        return VGGFeatures(detector, device)
    try:
        return VGGFeatures(VGG16, device, num_attempts=2)
    except OSError as error:
        reason = str(error).split(": ")[0]
        print(
            f"The VGG16 detector cannot be had ({reason}). Distances are of pixels and their averages instead: they "
            "follow colours and layout, not what an eye would call alike. --detector=PATH takes a vgg16.pt of yours."
        )
        return PyramidFeatures()
