"""`segan project`: W and W+, several pictures at once, results that keep their sliders."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

from helpers import ROOT, run
from metrics.detectors import PixelPyramid
from segan_ext.cli import main
from segan_ext.cli.project import _pictures
from segan_ext.control.edit_file import read_edit
from segan_ext.control.inversion import Reader, bounds_of
from segan_ext.control.render import mixed_offsets
from segan_ext.latents import ws_of_seeds
from segan_ext.layers import row_of
from snapshots.load import load_generator
from snapshots.safetensors import save_safetensors
from test_segan_networks import build, randomise
from training import networks
from training.images import to_pictures
from training.projection import project_many

NAMED = ROOT / "segan_ext" / "box" / "avatars64" / "generator.safetensors"


@pytest.fixture(scope="module")
def G():
    return load_generator(str(NAMED))


@pytest.fixture(scope="module")
def made(G):
    """(ws of two seeds, their images)"""
    ws = ws_of_seeds(G, [900, 901])
    return ws, G.synthesis(ws, noise_mode="const").clamp(-1, 1)


@pytest.fixture(scope="module")
def reader(G):
    return Reader(G, samples=300)


def psnr(a, b):
    return -10 * torch.log10((a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean(dim=[1, 2, 3]) / 4)


def test_what_is_read_off_an_image_is_nearer_than_the_mean(G, made, reader):
    ws, images = made
    of = lambda w: G.synthesis(w[:, None].repeat(1, G.num_ws, 1), noise_mode="const")
    read = bounds_of(G)(reader(images))
    assert (psnr(of(read), images) > psnr(of(reader.mean.expand(2, -1)), images) + 6).all()
    assert torch.allclose(reader(torch.full_like(images, 50.0)), reader(torch.ones_like(images)))  # clamped


def test_targets_do_not_see_each_other_and_distances_fall(G, made, reader):
    _, images = made
    pixels = images * 127.5 + 127.5
    options = dict(features=PixelPyramid(), bounds=bounds_of(G), num_steps=30, start=reader(images))
    both = project_many(G, pixels, **options)
    assert both.ws.shape == (2, G.num_ws, G.w_dim) and both.distances.shape == (30, 2)
    assert torch.equal(both.ws[:, 0], both.ws[:, -1])
    swapped = project_many(G, pixels.flip(0), **options | dict(start=reader(images).flip(0)))
    for found in (both.distances, swapped.distances.flip(1)):
        assert (found[-1] < found[:10].mean(dim=0)).all()
    quality = psnr(G.synthesis(both.ws, noise_mode="const"), images)
    assert (quality > 25).all() and (quality[0] - quality[1]).abs() < 15


def test_layers_have_ws_of_their_own_in_w_plus_and_coordinates_stay_in_range(G, made):
    target = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255  # nothing that G draws
    found = project_many(G, target, features=PixelPyramid(), space="w+", bounds=bounds_of(G), num_steps=20)
    assert not torch.allclose(found.ws[:, 0], found.ws[:, -1])
    assert torch.allclose(bounds_of(G)(found.ws), found.ws, atol=1e-5)
    free = project_many(G, target, features=PixelPyramid(), space="w+", num_steps=20)
    assert not torch.allclose(bounds_of(G)(free.ws), free.ws, atol=1e-2)
    with pytest.raises(ValueError, match=r"there are the spaces w and w\+"):
        project_many(G, target, features=PixelPyramid(), space="z")


def test_noise_images_are_of_each_target_and_the_generator_stays_as_it_was():
    G = randomise(build(mode=2))
    for module in G.synthesis.modules():
        if hasattr(module, "noise_strength"):
            module.noise_strength.fill_(0.2)
    before = {name: buffer.clone() for name, buffer in G.named_buffers()}
    targets = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    steps = []
    seen = lambda step, ws, distances: steps.append((ws.shape, distances.shape)) or step < 4
    found = project_many(G, targets, features=PixelPyramid(), num_steps=20, on_step=seen)
    assert len(steps) == 5 == len(found.distances) and steps[0] == ((2, G.num_ws, 12), (2,))
    assert all(torch.equal(buffer, before[name]) for name, buffer in G.named_buffers())


def test_mixing_replaces_what_a_layer_reads_in_w_plus_too(G):
    ws, other = torch.cat([ws_of_seeds(G, [i]) for i in range(G.num_ws)])[:, 0][None], ws_of_seeds(G, [50])
    assert [row_of(G, layer) for layer in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (4, 2)]] == [0, 1, 1, 2, 3, 9]
    layers = list(G.subspaces())
    expected = torch.cat([ws[..., : G.mapping.shared_w], other[..., G.mapping.shared_w :]], dim=2)
    with G.edited(offsets=mixed_offsets(G, ws, other, layers)):
        mixed = G.synthesis(ws)
    assert torch.allclose(mixed, G.synthesis(expected), atol=1e-4)


def test_results_go_on_to_edit_and_explore(tmp_path):
    G = randomise(build(mode="named", own=[dict(name="tilt", size=1, quantiles=[-1.0, 0.0, 1.0])]))
    network = f"--network={save_safetensors(G, str(tmp_path / 'G.safetensors'))[0]}"
    images = G.synthesis(ws_of_seeds(G, [900, 901]), noise_mode="const")
    (tmp_path / "in").mkdir()
    for name, picture in zip(("anna", "ben"), to_pictures(images)):
        picture.save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out"
    args = ["--space=w+", "--num-steps=6", "--detector=pixel-pyramid", "--batch=1", f"--outdir={out}"]
    done = run("-m segan_ext", "project", network, f"--target={tmp_path / 'in'}", *args)
    assert "anna: distance" in done.stdout and "PSNR" in done.stdout and "Projecting 2 into w+" in done.stdout
    saved = np.load(out / "projected_w.npz")
    assert saved["w"].shape == (2, G.num_ws, G.w_dim) and saved["distances"].shape == (6, 2)
    assert list(saved["names"]) == ["anna", "ben"]
    assert PIL.Image.open(out / "projection.png").width > 3 * 96
    replayed, edited = tmp_path / "replayed", tmp_path / "edited"
    run("-m segan_ext", "edit", network, f"--replay={out / 'ben.json'}", f"--outdir={replayed}")
    assert (replayed / "ben.png").read_bytes() == (out / "ben.png").read_bytes()
    content = read_edit(out / "ben.json", G)
    assert content["edits"] == {} and torch.equal(content["ws"][0], torch.from_numpy(saved["w"][1]))
    projected = f"--projected-w={out / 'projected_w.npz'}"
    run("-m segan_ext", "edit", network, projected, "--set=tilt=-1", f"--outdir={edited}")
    assert json.loads((edited / "edit.json").read_text())["edits"] == {"tilt": -1.0}
    assert (edited / "w01.png").read_bytes() != (out / "ben.png").read_bytes()
    dest = tmp_path / "row.png"
    run("-m segan_ext", "explore", network, projected, "--dims=tilt", "--steps=3", f"--dest={dest}")
    middle = np.asarray(PIL.Image.open(dest).convert("RGB"))[16::3, 96 + 96 : 96 + 192 : 3]  # the range is about 0
    assert np.abs(middle.astype(int) - np.asarray(PIL.Image.open(out / "anna.png"))).max() <= 1


def test_hidden_pictures_are_left_out_and_others_counted(tmp_path, capsys):
    (tmp_path / "in" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("a.png", "._b.png", "c.raw", ".ipynb_checkpoints/a-checkpoint.png", "../elsewhere/d.PNG"):
        (tmp_path / "in" / name).write_bytes(b"x")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    found = _pictures([str(tmp_path / "in")])
    assert found == [tmp_path / "in" / "a.png", tmp_path / "in" / "linked" / "d.PNG"]
    assert "1 file is no picture that can be read: .raw (1)." in capsys.readouterr().out


def test_what_cannot_be_projected_is_said(made, tmp_path):
    for folder in ("a", "b", "empty"):
        (tmp_path / folder).mkdir()
    for folder in ("a", "b"):
        to_pictures(made[1][:1])[0].save(tmp_path / folder / "same.png")
    for targets, sentence in [
        ([tmp_path / "empty"], "holds no pictures"),
        ([tmp_path / "a", tmp_path / "b"], "two pictures are called same"),
        ([tmp_path / "nowhere.png"], "nowhere.png"),
    ]:
        args = [f"--network={NAMED}", *(f"--target={target}" for target in targets), f"--outdir={tmp_path / 'out'}"]
        done = CliRunner().invoke(main, ["project", *args])
        assert done.exit_code == 2 and "--target: " in done.output and sentence in done.output
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("resolution, samples", [(64, 2000), (256, 2000), (512, 500), (1024, 125), (2048, 100)])
def test_large_networks_are_read_by_fewer_images(resolution, samples):
    """So that a picture of 1024² does not wait for as many pixels as 2000 of them have"""
    width = dict(channel_base=resolution, channel_max=1)
    G = networks.Generator(4, 0, 4, resolution, 3, dict(num_layers=1), width).eval().requires_grad_(False)
    seen = []

    def count(parts):
        seen.extend(map(len, parts))
        raise InterruptedError  # before any image is made

    with pytest.raises(InterruptedError):
        Reader(G, count=count)
    assert sum(seen) == samples and max(seen) * resolution**2 <= max(2**17, resolution**2)


def test_pictures_are_not_overwritten_by_their_projections(made, tmp_path):
    picture = to_pictures(made[1][:1])[0]
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "same.png")
    before = (tmp_path / "in" / "same.png").read_bytes()
    for target, outdir, sentence in [
        ("in/same.png", "in", "would be overwritten"),
        ("in", "in", "whose pictures are projected"),
        ("in", "in/out", "whose pictures are projected"),
    ]:
        args = [f"--network={NAMED}", f"--target={tmp_path / target}", f"--outdir={tmp_path / outdir}"]
        done = CliRunner().invoke(main, ["project", *args])
        assert done.exit_code == 2 and "--outdir: " in done.output and sentence in done.output, done.output
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["same.png"]
    assert (tmp_path / "in" / "same.png").read_bytes() == before
