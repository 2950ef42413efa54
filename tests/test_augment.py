"""ADA's augmentations against golden data."""

import numpy as np
import pytest
import torch

from golden_data import DEVICE, GoldenFile, case_ids
from torch_utils import misc
from training.augment import AugmentPipe

FILE = GoldenFile("augment.npz")


def build(case):
    pipe = AugmentPipe(**case.info["init_kwargs"])
    pipe.p.fill_(case.info["p"])
    return pipe.to(DEVICE)


@pytest.mark.parametrize("case", FILE.cases, ids=case_ids(FILE.cases))
def test_golden(case, monkeypatch):
    if case.info.get("rng_sensitive"):
        pytest.skip("depends on the order in which random numbers are drawn")
    inputs = case.inputs()
    images = inputs["images"].requires_grad_(True)
    if "noise_field" in inputs:  # a percentile fixes the strength of the noise, not the noise
        field, randn = inputs["noise_field"], torch.randn
        shaped = lambda *size, **kwargs: tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        monkeypatch.setattr(
            torch, "randn", lambda *s, **k: field if shaped(*s) == tuple(images.shape) else randn(*s, **k)
        )
    out = build(case)(images, **case.info["kwargs"])
    case.check("images", out)
    if "sigma" in case.info["outputs"]:
        field = inputs["noise_field"]
        case.check("sigma", ((out - images) * field).sum() / field.square().sum())
    if "dimages" in case.info["outputs"]:
        case.check("dimages", torch.autograd.grad((out * inputs["dimages_out"]).sum(), images)[0])


def test_golden_filters():
    pipe = AugmentPipe()
    for name in ("Hz_geom", "Hz_fbank"):
        np.testing.assert_allclose(getattr(pipe, name).numpy(), FILE.arrays[name], rtol=0, atol=1e-6)


def test_probability_is_that_of_the_strength():
    pipe = AugmentPipe(cutout=0.5)
    pipe.p.fill_(0.4)
    images = torch.ones(4000, 1, 8, 8)
    changed = (pipe(images) != images).flatten(1).any(dim=1).float().mean().item()
    assert abs(changed - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 4000)


def test_margins_that_are_wide_in_any_case_change_nothing(monkeypatch):
    """Sizes that do not depend on what was drawn, as CUDA graphs need them"""
    pipe = AugmentPipe(**dict.fromkeys(("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac"), 1))
    images, found = torch.rand(6, 3, 24, 32, requires_grad=True), []
    for fixed in (False, True):
        monkeypatch.setattr(pipe, "fixed_margins", fixed)
        torch.manual_seed(3)
        augmented = pipe(images)
        found.append((augmented, torch.autograd.grad(augmented.square().sum(), images)[0]))
    for narrow, wide in zip(*found):
        torch.testing.assert_close(wide, narrow, rtol=1e-3, atol=1e-3)


def test_second_derivative_through_the_whole_pipe():
    """R1 differentiates the gradient with respect to the images once more."""
    pipe = AugmentPipe(**{name: 1 for name in ("xflip", "scale", "rotate", "hue", "contrast", "imgfilter", "cutout")})
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    (first,) = torch.autograd.grad(pipe(images).pow(3).sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), images)
    assert second.isfinite().all() and second.abs().max() > 0


def test_colour_needs_one_or_three_channels():
    with pytest.raises(ValueError, match="1 or 3 channels"):
        AugmentPipe(hue=1)(torch.zeros(1, 4, 8, 8))


def test_no_constants_are_left_behind():
    pipe = AugmentPipe(xflip=1, rotate90=1, xint=1, scale=1, rotate=1, aniso=1, xfrac=1, brightness=1, hue=1)
    images = torch.zeros(4, 3, 64, 64)
    pipe(images)
    before = set(misc._constants)
    for _ in range(60):
        pipe(images)
    assert set(misc._constants) == before
