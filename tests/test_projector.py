"""The projector finds w again, with the pyramid and with a TorchScript detector from a web server."""

import functools
import http.server
import threading

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import ExifTags

from helpers import png, run
from metrics.detectors import PixelPyramid
from snapshots.safetensors import save_safetensors
from training import networks
from training.images import to_pictures
from training.projection import open_target, open_targets, project


class Detector(torch.nn.Module):
    """With the interface of the reference's vgg16.pt"""

    def forward(self, x, resize_images: bool = True, return_lpips: bool = False):
        assert return_lpips and not resize_images
        return torch.nn.functional.avg_pool2d(x / 255, 2).flatten(1)


@pytest.fixture(scope="module", params=[(0, 3), (2, 1)], ids=["colour", "gray-conditional"])
def network(request, tmp_path_factory):
    """A generator, the path of its export, and the folder where an image of it lies"""
    c_dim, channels = request.param
    torch.manual_seed(1)
    synthesis = dict(channel_base=512, channel_max=16)
    G = networks.Generator(8, c_dim, 8, 16, channels, dict(num_layers=2), synthesis).eval().requires_grad_(False)
    folder = tmp_path_factory.mktemp("projector")
    path, _ = save_safetensors(G, str(folder / "G.safetensors"))
    label = torch.eye(2)[[1]] if c_dim else None
    image = G(torch.randn(1, 8), label, noise_mode="none")
    to_pictures(image)[0].resize((48, 32)).save(folder / "target.png")
    return G, path, folder


def test_project_returns_a_path_that_comes_near(network):
    G, _, _ = network
    label = torch.eye(2)[[1]] if G.c_dim else None
    ws = G.mapping(torch.randn(1000, 8), None if label is None else label.expand(1000, -1))
    w = ws[:1].lerp(ws.mean(dim=0), 0.5)
    target = (G.synthesis(w, noise_mode="none")[0] + 1) * 127.5
    before = {name: buffer.clone() for name, buffer in G.named_buffers()}
    features = PixelPyramid()
    path = project(G, target, features=features, label=label, num_steps=300, w_avg_samples=500)
    assert path.shape == (300, G.num_ws, 8) and torch.equal(path[:, 0], path[:, -1])
    distance = lambda ws: (
        (features((G.synthesis(ws, noise_mode="none") + 1) * 127.5) - features(target[None])).square().sum()
    )
    assert distance(path[-1:]) < 0.05 * distance(path[:1])
    assert all(torch.equal(buffer, before[name]) for name, buffer in G.named_buffers())  # G is left alone


def test_pyramid_orders_changes():
    features, image = PixelPyramid(), torch.rand(1, 3, 32, 32) * 255
    distance = lambda other: (features(image) - features(other)).square().sum().item()
    noise = torch.randn_like(image)
    assert distance(image) == 0
    assert distance(image + 5 * noise) < distance(image + 20 * noise)
    assert distance(image + 10 * noise) < distance(image + 10)  # all pixels brighter is a change of the layout too
    assert distance(torch.zeros_like(image)) < 5


@pytest.mark.slow
def test_command_with_a_detector_from_the_web(network, tmp_path):
    G, path, folder = network
    torch.jit.script(Detector()).save(str(tmp_path / "detector.pt"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    out = tmp_path / "out"
    args = [f"--network={path}", f"--target={folder / 'target.png'}", "--num-steps=12", f"--outdir={out}"]
    args += ["--class=1"] if G.c_dim else []
    url = f"http://localhost:{server.server_port}/detector.pt"
    done = run(
        "stylegan2_ada/projector.py", *args, f"--detector={url}", env={"DNNLIB_CACHE_DIR": str(tmp_path / "cache")}
    )
    server.shutdown()
    assert "distances are of detector" in done.stdout and "PSNR of the projection" in done.stdout
    assert len(list((tmp_path / "cache" / "downloads").iterdir())) == 1
    assert PIL.Image.open(out / "target.png").size == PIL.Image.open(out / "proj.png").size == (16, 16)
    assert np.load(out / "projected_w.npz")["w"].shape == (1, G.num_ws, 8)
    assert b"ftyp" in (out / "proj.mp4").read_bytes()[:16]
    redrawn = run(
        "stylegan2_ada/generate.py", f"--network={path}", f"--projected-w={out / 'projected_w.npz'}", f"--outdir={out}"
    )
    assert redrawn.returncode == 0
    assert (out / "proj00.png").read_bytes() == (out / "proj.png").read_bytes()


def test_what_cannot_be_projected_is_explained(network, tmp_path):
    G, path, folder = network
    label = ["--class=0"] if G.c_dim else []
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "broken.pt").write_bytes(png())
    target = f"--target={folder / 'target.png'}"
    for args, sentence in [
        ([f"--target={tmp_path / 'text.png'}", *label], "cannot be opened as a picture"),
        ([target, f"--detector={tmp_path / 'broken.pt'}", *label], "is no TorchScript file"),
        ([target, f"--detector={tmp_path / 'missing.pt'}", *label], "No such file"),
        *([([target], "--class: this network is conditional")] if G.c_dim else []),
    ]:
        out = tmp_path / "out"
        done = run("stylegan2_ada/projector.py", f"--network={path}", *args, f"--outdir={out}", check=False)
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
        assert not out.exists()


def test_a_picture_that_was_taken_sideways_is_turned_upright(network, tmp_path):
    G, _, _ = network
    upright = PIL.Image.fromarray(np.arange(64 * 48 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 48, 3))
    exif = upright.getexif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held on its side
    upright.transpose(PIL.Image.Transpose.ROTATE_90).save(tmp_path / "sideways.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    assert torch.equal(open_target(tmp_path / "sideways.png", G), open_target(tmp_path / "upright.png", G))


def as_stored(grey, kind):
    """(suffix, picture, options to save it) of an 8-bit grey picture, stored as another kind of file"""
    wide = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    return {
        "16-bit PNG": (".png", wide, {}),
        "16-bit TIFF": (".tiff", wide, {}),
        "16-bit PGM": (".pgm", wide.convert("I"), {}),
        "palette": (".png", PIL.Image.fromarray(grey).convert("P"), {}),
        "CMYK": (".tiff", PIL.Image.fromarray(grey).convert("RGB").convert("CMYK"), {}),
        "opaque alpha": (".png", PIL.Image.fromarray(grey).convert("RGBA"), {}),
    }[kind]


@pytest.mark.parametrize("kind", ["16-bit PNG", "16-bit TIFF", "16-bit PGM", "palette", "CMYK", "opaque alpha"])
def test_a_picture_of_any_kind_is_the_same_target(network, kind, tmp_path, capsys):
    G, _, _ = network
    grey = np.random.RandomState(0).randint(0, 256, [16, 16], dtype=np.uint8)
    suffix, picture, options = as_stored(grey, kind)
    picture.save(tmp_path / f"x{suffix}", **options)
    target = open_target(tmp_path / f"x{suffix}", G)
    assert torch.equal(target, torch.from_numpy(grey)[None].expand(G.img_channels, -1, -1))
    assert not capsys.readouterr().out


def test_what_is_transparent_is_laid_on_white_and_said_once(network, tmp_path, capsys):
    G, _, _ = network
    grey = np.random.RandomState(0).randint(0, 255, [16, 16], dtype=np.uint8)  # 255 is what is transparent
    grey[:8] = 255
    alpha = np.full([16, 16], 255, np.uint8)
    alpha[:8] = 0
    hidden = np.where(alpha == 0, 30, grey).astype(np.uint8)
    PIL.Image.fromarray(np.dstack([hidden] * 3 + [alpha])).save(tmp_path / "a.png")
    PIL.Image.fromarray(np.dstack([hidden, alpha])).save(tmp_path / "b.png")
    PIL.Image.fromarray(hidden.astype(np.uint16) * 257).save(tmp_path / "c.png", transparency=30 * 257)
    targets = open_targets([tmp_path / name for name in ("a.png", "b.png", "c.png")], G)
    assert (targets[:, :, :8] == 255).all()
    assert torch.equal(targets[0, :, 8:], torch.from_numpy(grey)[8:].expand(G.img_channels, -1, -1))
    assert capsys.readouterr().out == "a.png and 2 more: what is transparent is laid on white.\n"


def test_the_target_is_not_overwritten(network, tmp_path):
    _, path, folder = network
    (tmp_path / "target.png").write_bytes((folder / "target.png").read_bytes())
    args = [f"--network={path}", f"--target={tmp_path / 'target.png'}", "--class=0", f"--outdir={tmp_path}"]
    done = run("stylegan2_ada/projector.py", *args, check=False)
    assert done.returncode == 2 and "--outdir: " in done.stderr and "would be overwritten" in done.stderr
    assert (tmp_path / "target.png").read_bytes() == (folder / "target.png").read_bytes()


def test_numbers_without_a_range_are_no_picture(network, tmp_path):
    PIL.Image.fromarray(np.ones([16, 16], np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(ValueError, match="x.tiff cannot be opened as a picture .mode F has no fixed range"):
        open_target(tmp_path / "x.tiff", network[0])
