"""Gradients, running means and statistics of every training phase against golden data."""

import copy

import numpy as np
import pytest
import torch

from golden_data import DEVICE, GoldenFile, case_ids
from torch_utils import training_stats
from training import networks
from training.loss import StyleGAN2Loss

CASES = [case for name in ("loss.npz", "loss_cond.npz") for case in GoldenFile(name).cases]


class HalfAndShift(torch.nn.Module):
    def forward(self, x):
        return 0.5 * x + 0.25


def build(file, name):
    net = getattr(networks, {"G": "Generator", "D": "Discriminator"}[name])(**file.meta[f"{name}_kwargs"])
    net.load_state_dict(file.tensors(f"{name}/state/"))
    return net.to(DEVICE).train()


def patch_first_noise(monkeypatch, noise):
    """The first torch.randn_like of a tensor shaped like `noise` returns it."""
    original, left = torch.randn_like, [noise]
    monkeypatch.setattr(
        torch,
        "randn_like",
        lambda x, *a, **k: left.pop() if left and x.shape == noise.shape else original(x, *a, **k),
    )


@pytest.mark.parametrize("case", CASES, ids=case_ids(CASES))
def test_golden(case, monkeypatch):
    file, info, inputs = case.file, case.info, case.inputs()
    G, D = build(file, "G"), build(file, "D")
    trained = dict(G=G, D=D)[info["kwargs"]["phase"][0]]
    for net in (G, D):
        net.requires_grad_(net is trained)
    pipe = HalfAndShift() if info["augment_pipe"] else None
    loss = StyleGAN2Loss(DEVICE, G.mapping, G.synthesis, D, augment_pipe=pipe, **file.meta["loss_kwargs"])
    loss.pl_mean.fill_(info["pl_mean_before"])
    collector = training_stats.Collector(regex="Loss/.*", keep_previous=False)
    collector.update()
    noise = inputs.pop("pl_noise")
    for _ in range(info["repeat"]):
        trained.zero_grad()
        with monkeypatch.context() as patch:
            patch_first_noise(patch, noise)
            loss.accumulate_gradients(**inputs, **info["kwargs"])
    collector.update()

    grads = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in trained.named_parameters()}
    got = {f"grad/{name}": g for name, g in grads.items()}
    got |= dict(pl_mean=loss.pl_mean, w_avg=G.mapping.w_avg)
    for label in info["outputs"]:
        case.check(label, got[label])
    assert {n for n in collector.names() if collector.num(n)} == set(info["statistics"])
    for name, want in info["statistics"].items():
        assert collector.num(name) == want["num"]
        np.testing.assert_allclose(collector.mean(name), want["mean"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(collector.std(name), want["std"], rtol=1e-3, atol=1e-6)


def test_style_mixing_changes_only_later_layers():
    file = CASES[0].file
    G, D = build(file, "G"), build(file, "D")
    loss = StyleGAN2Loss(DEVICE, G.mapping, G.synthesis, D, style_mixing_prob=1)
    z = torch.randn(3, G.z_dim, device=DEVICE)
    plain = copy.deepcopy(G.mapping)(z, None)
    crossovers = set()
    for _ in range(50):
        _img, ws = loss.run_G(z, torch.zeros(3, 0, device=DEVICE), sync=True)
        changed = (ws != plain).any(dim=2).all(dim=0)  # [num_ws]
        assert torch.equal(changed, changed.cummax(dim=0).values) and not changed[0] and changed[-1]
        crossovers.add(int((~changed).sum()))
    assert crossovers == set(range(1, G.num_ws))


def test_unknown_phase_is_named():
    with pytest.raises(ValueError, match="unknown phase 'Gmian'"):
        StyleGAN2Loss(DEVICE, None, None, None).accumulate_gradients("Gmian", None, None, None, None, True, 1)
