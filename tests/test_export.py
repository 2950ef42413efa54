"""Exports: safetensors that open again as the same generator, ONNX that makes the same images."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

import legacy
from helpers import run
from segan_ext.networks import SEGANGenerator
from segan_ext.onnx_export import export_onnx
from snapshots.safetensors import save_safetensors
from test_segan_networks import FORMS, HOST, SHAPE, build, images, randomise
from training import networks


@pytest.mark.parametrize("kwargs", [*FORMS.values(), dict(mode=2, subspace_init="identity")])
def test_safetensors_open_as_the_same_generator(kwargs, tmp_path):
    G = randomise(build(**kwargs))
    path, config = save_safetensors(G, str(tmp_path / "G.safetensors"))
    again = legacy.load_generator(path)
    assert type(again) is SEGANGenerator and again.init_kwargs == G.init_kwargs and not again.training
    assert torch.equal(images(again), images(G))
    assert json.loads((tmp_path / "G.json").read_text())["img_resolution"] == 32


def test_generators_of_the_host_export_too(tmp_path):
    G = networks.Generator(16, 3, 12, 16, 1, **HOST).eval().requires_grad_(False)
    again = legacy.load_generator(save_safetensors(G, str(tmp_path / "G.safetensors"))[0])
    z, c = torch.randn(2, 16), torch.eye(3)[:2]
    assert type(again) is networks.Generator
    assert torch.equal(again(z, c, noise_mode="const"), G(z, c, noise_mode="const"))


def test_half_precision_halves_the_file_and_shows_in_no_pixel(tmp_path):
    G = build(mode=2)
    paths = [save_safetensors(G, str(tmp_path / f"{half}.safetensors"), half)[0] for half in (False, True)]
    sizes = [(tmp_path / f"{half}.safetensors").stat().st_size for half in (False, True)]
    assert 1.8 * sizes[1] < sizes[0]
    again = legacy.load_generator(paths[1])
    assert {tensor.dtype for tensor in again.parameters()} == {torch.float32}
    assert 0 < (images(again) - images(G)).abs().max() < 1 / 127.5
    G.mapping.w_avg.fill_(1e6)
    with pytest.raises(ValueError, match="beyond half precision"):
        save_safetensors(G, paths[1], half=True)
    failed = run("-m segan_ext", "export", f"--network={paths[0]}", "--half", "--dest=G.onnx", check=False)
    assert failed.returncode == 2 and "goes with --dest=NAME.safetensors" in failed.stderr


@pytest.mark.parametrize("kwargs", [dict(mode=2), dict(mode=1, subspace_dim=4)])
def test_onnx_makes_our_images(kwargs, tmp_path):
    G = randomise(
        SEGANGenerator(**dict(SHAPE, c_dim=3, img_resolution=16), **HOST, **kwargs).eval().requires_grad_(False)
    )
    G.mapping.w_avg.normal_()
    dest = tmp_path / "G.onnx"
    assert export_onnx(G, dest) < 1e-4
    session = onnxruntime.InferenceSession(str(dest))
    assert {i.name for i in session.get_inputs()} == {"z", "truncation_psi", "label"}
    z, c = torch.randn(5, 16), torch.eye(3)[[0, 1, 2, 2, 1]]
    for psi in (1.0, 0.5):
        feed = dict(z=z.numpy(), label=c.numpy(), truncation_psi=np.array(psi, np.float32))
        expected = G(z, c, truncation_psi=psi, noise_mode="const").numpy()
        np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=1e-4)


def test_commands_write_and_read_exports(tmp_path):
    G = build(mode=2)
    source, _ = save_safetensors(G, str(tmp_path / "source.safetensors"))
    run("-m segan_ext", "export", f"--network={source}", f"--dest={tmp_path / 'sub' / 'G.safetensors'}")
    run(
        "stylegan2_ada/generate.py",
        f"--network={tmp_path / 'sub' / 'G.safetensors'}",
        "--seeds=3",
        f"--outdir={tmp_path}",
    )
    assert (tmp_path / "seed0003.png").exists()
    failed = run("-m segan_ext", "export", f"--network={source}", "--dest=G.pth", check=False)
    assert failed.returncode == 2 and "must end in .safetensors or .onnx" in failed.stderr


def test_broken_exports_are_explained(tmp_path):
    path, config = save_safetensors(build(mode=2), str(tmp_path / "G.safetensors"))
    good, weights = (tmp_path / "G.json").read_text(), (tmp_path / "G.safetensors").read_bytes()
    changed = lambda **changes: json.dumps(json.loads(good) | changes)
    for text, data, message in [
        ("{", weights, "is no JSON"),
        ("[]", weights, "does not describe a generator"),
        (changed(version=2), weights, "is of version 2; this version of SEGAN reads 1"),
        (changed(class_name="os.system"), weights, "'os.system', which is not in"),
        (changed(init_kwargs={}), weights, "was made by a fork with other arguments"),
        (changed(init_kwargs=json.loads(good)["init_kwargs"] | dict(w_dim=13)), weights, "in another shape"),
        (good, weights[:-100], "do not give a generator"),
        (good, b"", "do not give a generator"),
    ]:
        (tmp_path / "G.json").write_text(text)
        (tmp_path / "G.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match=message):
            legacy.load_generator(path)
    (tmp_path / "G.json").unlink()
    with pytest.raises(OSError, match=r"G\.json"):
        legacy.load_generator(path)
