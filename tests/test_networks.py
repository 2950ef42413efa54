"""Generator and discriminator against golden data: state names, shapes, outputs, gradients."""

import copy

import pytest
import torch

from golden_data import DEVICE, FOLDER, GoldenFile, case_ids
from training import networks

FILES = {
    kind: [GoldenFile(f"networks/{p.name}") for p in sorted((FOLDER / "networks").glob(f"{kind}*"))] for kind in "GD"
}
G_CASES = [case for file in FILES["G"] for case in file.cases]
D_CASES = [case for file in FILES["D"] for case in file.cases]


def build(file):
    """The file's network in eval mode; its state must fit by name, shape and order."""
    cls = networks.Generator if file.meta["target"].endswith("Generator") else networks.Discriminator
    net = cls(**file.meta["init_kwargs"])
    state = file.tensors("state/")
    assert [(k, tuple(v.shape)) for k, v in net.state_dict().items()] == [(k, tuple(v.shape)) for k, v in state.items()]
    net.load_state_dict(state)
    return net.to(DEVICE).eval().requires_grad_(False)


@pytest.fixture(params=["cuda", "cpu"])
def half_on(request, monkeypatch):
    """Half precision runs on CUDA only, or, for the sake of the test, on the CPU too."""
    monkeypatch.setattr(networks, "_HALF_PRECISION_DEVICES", (request.param,))


@pytest.mark.parametrize("case", G_CASES, ids=case_ids(G_CASES))
def test_generator_golden(case, half_on):
    G = build(case.file)
    assert G.num_ws == G.synthesis.num_ws == case.file.meta["num_ws"]
    inputs, kwargs, outputs = case.inputs(), case.info["kwargs"], case.info["outputs"]
    if case.info.get("rng_sensitive"):
        pytest.skip("depends on the order in which random numbers are drawn")
    if "train" in case.name:
        G = copy.deepcopy(G).train()
    if case.name.startswith("mapping"):
        case.check("ws", G.mapping(**inputs, **kwargs))
        if "w_avg" in outputs:
            case.check("w_avg", G.mapping.w_avg)
    elif case.name == "synthesis":
        ws = inputs["ws"].requires_grad_(True)
        img = G.synthesis(ws, **kwargs)
        case.check("img", img)
        if "dws" in outputs:
            case.check("dws", torch.autograd.grad((img * inputs["dimg"]).sum(), ws)[0])
    else:
        case.check("img", G(**inputs, **kwargs))


def test_bfloat16_is_a_half_precision_too(monkeypatch):
    """Images and gradients near those of float32, as eight bits of mantissa allow; float32 where it is asked."""
    torch.manual_seed(0)
    size = dict(z_dim=16, c_dim=0, w_dim=16, img_resolution=32, img_channels=3)
    G = networks.Generator(**size, synthesis_kwargs=dict(channel_base=512, num_fp16_res=2, conv_clamp=256)).to(DEVICE)
    ws = G.mapping(torch.randn(4, 16, device=DEVICE), None).detach().requires_grad_(True)
    seen = []
    G.synthesis.b32.conv1.register_forward_hook(lambda layer, given, out: seen.append(out.dtype))

    def image_and_slope(**kwargs):
        image = G.synthesis(ws, noise_mode="none", **kwargs)
        return image.detach(), torch.autograd.grad(image.square().sum(), ws)[0]

    monkeypatch.setattr(networks, "_HALF_PRECISION_DEVICES", ("cuda", "cpu"))
    monkeypatch.setattr(networks, "_half_precision", torch.float16)
    networks.set_half_precision(torch.bfloat16)
    coarse, exact = image_and_slope(), image_and_slope(force_fp32=True)
    assert seen == [torch.bfloat16, torch.float32]
    for one, other in zip(coarse, exact):
        assert 0 < (one - other).norm() < 0.03 * other.norm()


@pytest.mark.parametrize("case", D_CASES, ids=case_ids(D_CASES))
def test_discriminator_golden(case, half_on):
    D = build(case.file)
    assert [name for name, _ in D.named_parameters()] == case.file.meta["parameters"]
    assert [name for name, _ in D.named_buffers()] == case.file.meta["buffers"]
    inputs = case.inputs()
    img = inputs["img"].requires_grad_(True)
    logits = D(img, inputs["c"], **case.info["kwargs"])
    case.check("logits", logits)
    if "dimg" in case.info["outputs"]:
        case.check("dimg", torch.autograd.grad(logits.sum(), img)[0])


@pytest.mark.parametrize("case", [c for c in G_CASES if c.name == "forward-const"], ids=lambda c: c.file.name)
def test_fused_and_split_modulation_agree(case):
    G = build(case.file)
    fused, split = (G(**case.inputs(), noise_mode="const", fused_modconv=f) for f in (True, False))
    torch.testing.assert_close(fused, split, rtol=1e-4, atol=1e-4)


def test_wrong_arguments_are_explained():
    with pytest.raises(ValueError, match="power of two"):
        networks.SynthesisNetwork(w_dim=8, img_resolution=48, img_channels=3)
    with pytest.raises(ValueError, match="architecture must be"):
        networks.Discriminator(c_dim=0, img_resolution=16, img_channels=3, architecture="unet")
    G = networks.Generator(8, 0, 8, 16, 3, synthesis_kwargs=dict(channel_base=64))
    with pytest.raises(ValueError, match="noise_mode"):
        G(torch.zeros(1, 8), None, noise_mode="lots")
    with pytest.raises(AssertionError, match="shape is"):
        G(torch.zeros(1, 9), None)
