"""Control: moves, edits and their files, traversals, the atlas and its page, directions found in closed form."""

import io
import json
import pickle
import shutil
import subprocess

import numpy as np
import PIL.Image
import planted
import pytest
import torch
from click.testing import CliRunner
from test_calc_metrics import run_dir  # noqa: F401 (a fixture)

import legacy
from helpers import ROOT, run
from segan_ext import latents, layers
from segan_ext.atlas import atlas
from segan_ext.cli import main
from segan_ext.control import traversal
from segan_ext.control.address import Address
from segan_ext.control.edit_file import read_edit, read_mask
from segan_ext.control.render import keep_outside, mixed_offsets, offsets_of, parse_edits, render, truncation
from segan_ext.directions import pca, sefa, subspaces
from segan_ext.images import write_pictures
from segan_ext.networks import style_layers
from segan_ext.web.engine import Engine, View
from snapshots.safetensors import save_safetensors
from test_segan_networks import FORMS, build, randomise
from training import images, networks
from training.latents import class_label

PLAIN = ROOT / "benchmarks" / "emoji" / "generator.safetensors"  # without subspaces


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    return randomise(build(mode=2))


def ws_of(G, count=3):
    return latents.ws_of_seeds(G, range(count))


def test_addresses(G):
    assert Address.parse(" l3.n1.d5 ") == (3, 1, 5) and str(Address(3, 1, 5)) == "L3.N1.D5"
    edits = [("L1.N0.D2", 1), ((1, 0, 2), -0.5), (Address(2, 1, 0), 2)]
    assert parse_edits(G, edits) == {(1, 0, 2): 0.5, (2, 1, 0): 2}
    for text, sentence in [("L1N0", "no address"), ("L9.N0.D0", "has no layer L9.N0"), ("L1.N0.D99", "D0 to D11")]:
        with pytest.raises(ValueError, match=sentence):
            parse_edits(G, {text: 1})


@pytest.mark.parametrize("kwargs", FORMS.values(), ids=FORMS)
def test_a_synthesis_goes_on_from_any_block(kwargs):
    G = randomise(build(**kwargs))
    ws = ws_of(G)
    whole = G.synthesis(ws, noise_mode="const")
    for L in range(len(G.synthesis.block_resolutions)):
        begun = layers.run_until(G, ws, L, noise_mode="const")
        assert torch.equal(layers.resume(G, begun, torch.arange(3), noise_mode="const"), whole)
        some = layers.resume(G, begun, torch.tensor([2, 0, 2]), noise_mode="const")
        assert torch.allclose(some, whole[[2, 0, 2]], atol=1e-5)


def test_edits_are_exact(G):
    ws = ws_of(G)
    plain = G.synthesis(ws, noise_mode="const")
    assert torch.equal(render(G, ws, {}, noise_mode="const"), plain)
    assert torch.equal(render(G, ws, [("L1.N0.D2", 1.5), ("L1.N0.D2", -1.5)], noise_mode="const"), plain)
    sigma = latents.coordinate_sigmas(G)[1, 0][2]
    offset = torch.zeros(12)
    offset[2] = 1.5 * sigma
    with G.edited(offsets={(1, 0): offset}):
        expected = G.synthesis(ws, noise_mode="const")
    assert torch.equal(render(G, ws, {"L1.N0.D2": 1.5}, noise_mode="const"), expected)
    assert not torch.equal(expected, plain)


@pytest.mark.parametrize("edited", [(0, 0), (1, 1), (2, 0)])
def test_an_edit_changes_nothing_before_its_layer(G, edited):
    outputs = {}

    def keep(address):
        return lambda _layer, _args, y: outputs.setdefault(address, []).append(y)

    hooks = [getattr(b, name).register_forward_hook(keep(a)) for a, b, name in style_layers(G.synthesis)]
    try:
        for edits in ({}, {(*edited, 3): 2.0}):
            render(G, ws_of(G), edits, noise_mode="const")
    finally:
        for hook in hooks:
            hook.remove()
    same = {address: torch.equal(*pair) for address, pair in outputs.items()}
    assert all(same[address] for address in same if address < edited) and not same[edited]


def test_masks_keep_what_is_outside(G):
    ws = ws_of(G)
    before, after = (render(G, ws, edits, noise_mode="const") for edits in ({}, {"L2.N1.D0": 3}))
    kept = torch.zeros(32, 32)
    kept[:, :16], kept[:, 16:20] = 1, 0.5
    merged = keep_outside(before, after, kept)
    assert torch.equal(merged[..., :16], before[..., :16]) and torch.equal(merged[..., 20:], after[..., 20:])
    assert torch.allclose(merged[..., 16:20], (before + after)[..., 16:20] / 2)


def test_mixing_and_truncation_by_layer(G):
    ws, other = ws_of(G)[:1], ws_of(G)[1:2]
    expected = G.synthesis(other, noise_mode="const")
    with G.edited(offsets=mixed_offsets(G, ws, other, list(G.subspaces()))):
        assert torch.allclose(G.synthesis(ws, noise_mode="const"), expected, atol=1e-4)
    factors, offsets = truncation(G, 0)
    with G.edited(factors, offsets):
        images = G.synthesis(ws_of(G), noise_mode="const")
    assert torch.allclose(images[0], images[1], atol=1e-4)  # every latent gives the mean
    factors, offsets = truncation(G, 0.5, layers=[(2, 1)])
    assert list(factors) == [(2, 1)]
    factors, offsets = truncation(G, 1)
    with G.edited(factors, offsets):
        assert torch.equal(G.synthesis(ws, noise_mode="const"), render(G, ws, {}, noise_mode="const"))


def test_edit_and_replay(run_dir, tmp_path):  # noqa: F811
    network = f"--network={run_dir / 'network-snapshot-000000.pkl'}"
    mask = np.zeros([16, 16], np.uint8)
    mask[:8] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    args = [
        "--seeds=0,3",
        "--set=L1.N0.D2=+2.5",
        "--set=L2.N1.D0=-3",
        "--mix=L2.N0=7",
        f"--keep={tmp_path / 'mask.png'}",
    ]
    first, second = tmp_path / "first", tmp_path / "second"
    done = run("-m segan_ext edit", network, *args, f"--outdir={first}")
    assert done.stdout.count("mean change") == 2
    run("-m segan_ext edit", network, f"--replay={first / 'edit.json'}", f"--outdir={second}")
    files = sorted(path.name for path in first.iterdir())
    assert files == ["edit.json", *(f"seed{i:04d}{end}" for i in (0, 3) for end in ("-change.png", ".png"))]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    G = legacy.load_generator(str(run_dir / "network-snapshot-000000.pkl"))
    plain = G.synthesis(read_edit(first / "edit.json", G)["ws"][:1], noise_mode="const")
    edited = np.asarray(PIL.Image.open(first / "seed0000.png"), int)
    plain = np.asarray(images.to_pictures(plain)[0], int)
    assert np.array_equal(edited[:8], plain[:8]) and not np.array_equal(edited[8:], plain[8:])

    run(
        "-m segan_ext edit",
        network,
        f"--image={first / 'seed0000.png'}",
        "--num-steps=3",
        f"--outdir={tmp_path / 'third'}",
    )
    assert (tmp_path / "third" / "seed0000-edited-change.png").is_file()
    content = json.loads((first / "edit.json").read_text())
    (tmp_path / "bad.json").write_text(json.dumps(content | dict(names=["../x", "y"])))
    with pytest.raises(ValueError, match="is no edit"):
        read_edit(tmp_path / "bad.json", G)


def test_a_plain_network_is_edited_by_the_names_that_the_page_shows(tmp_path):
    start = ["edit", f"--network={PLAIN}"]
    options = ["--seeds=0", "--set=coarse 1=+2", "--set=middle 3=-1", f"--outdir={tmp_path / 'a'}"]
    for args in (options, [f"--replay={tmp_path / 'a' / 'edit.json'}", f"--outdir={tmp_path / 'b'}"]):
        done = CliRunner().invoke(main, [*start, *args], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    picture = (tmp_path / "a" / "seed0000.png").read_bytes()
    assert picture == (tmp_path / "b" / "seed0000.png").read_bytes()
    engine = Engine([str(PLAIN)])
    name = next(iter(engine.paths))
    assert {"coarse 1", "middle 3", "fine 8"} <= set(engine.network(name).named)
    view = View(name, psi=1, edits=(("coarse 1", 2.0), ("middle 3", -1.0)))
    assert np.array_equal(images.to_pictures(engine.render(view)[None])[0], PIL.Image.open(io.BytesIO(picture)))


def test_a_plain_generator_is_rendered_without_edits(source):
    ws = latents.ws_of_seeds(source, [0])
    assert torch.equal(render(source, ws, {}, noise_mode="const"), source.synthesis(ws, noise_mode="const"))
    for attempt in (
        lambda: render(source, ws, {"L1.N0.D2": 1}),
        lambda: render(source, ws, [("hair", 1)]),
        lambda: traversal.traversal(source, [traversal.Dimension(Address(1, 0, 2), 1.0, 0.0)]),
        lambda: traversal.rank_dimensions(source),
        lambda: atlas.make_atlas(source),
    ):
        with pytest.raises(ValueError, match="this generator has no subspaces; give a snapshot of mode 1, 2 or 3, or"):
            attempt()


def test_pictures_of_traversals_and_walks(run_dir, tmp_path):  # noqa: F811
    network = f"--network={run_dir / 'network-snapshot-000000.pkl'}"
    for args, name in [
        (["--dims=L1.N0.D2,L2.N1.D0", "--steps=5"], "t.png"),
        (["--rows=3", "--steps=4", "--trunc=0.5"], "t.gif"),
        (["--rows=2", "--steps=4"], "t.mp4"),
        (["--interpolate=0,1,2", "--steps=4"], "walk.png"),
    ]:
        done = CliRunner().invoke(
            main, ["explore", network, *args, f"--dest={tmp_path / name}"], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
    assert PIL.Image.open(tmp_path / "t.png").size == (96 + 5 * 96, 16 + 2 * 96)
    assert PIL.Image.open(tmp_path / "t.gif").n_frames == 6  # to and fro
    assert PIL.Image.open(tmp_path / "t.gif").width == 2 * 128
    assert b"ftyp" in (tmp_path / "t.mp4").read_bytes()[:16]
    G = legacy.load_generator(str(run_dir / "network-snapshot-000000.pkl"))
    walk = traversal.interpolation(G, [4, 5], steps=3)
    for end, seed in ((0, 4), (-1, 5)):
        assert torch.allclose(
            walk[0, end], G.synthesis(latents.ws_of_seeds(G, [seed]), noise_mode="const")[0], atol=1e-4
        )


def test_captions_of_moving_pictures_stay_above_their_own_image(tmp_path):
    labels = ["eyesVariant sunglasses and\n±1.0", "a\n±1.7", "mouthVariant bigSmile with teeth"]
    write_pictures(tmp_path / "t.gif", torch.ones(3, 2, 3, 64, 64), labels, [])
    ink = np.asarray(PIL.Image.open(tmp_path / "t.gif").convert("L")) < 128  # all that is dark is a caption's
    assert ink.any() and not ink[:, [0, 1, 126, 127, 128, 129, 254, 255]].any()
    height = ink.shape[0] // 2
    assert not ink[[0, height - 128, height - 1, height, 2 * height - 128]].any()
    assert ink[: height - 128, :128].any() and ink[: height - 128, 128:].any() and ink[height:-128, :128].any()


def test_a_mask_of_any_kind_is_the_same(tmp_path):
    mask = np.zeros([16, 16], np.uint8)
    mask[:8], mask[8] = 255, 100
    expected = torch.from_numpy(mask / np.float32(255))
    painted = np.dstack([np.full([16, 16], 255, np.uint8), mask])  # white on nothing
    kinds = [mask, mask.astype(np.uint16) * 257, painted, np.dstack([mask] * 3)]
    for i, pixels in enumerate(kinds):
        PIL.Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        assert torch.equal(read_mask(tmp_path / f"{i}.png", 16), expected), i


def test_what_cannot_be_edited_is_explained(run_dir, tmp_path):  # noqa: F811
    network = f"--network={run_dir / 'network-snapshot-000000.pkl'}"
    PIL.Image.new("L", (8, 8)).save(tmp_path / "small.png")
    (tmp_path / "no.json").write_text("{}")
    plain = f"--network={PLAIN}"
    out = [f"--outdir={tmp_path / 'out'}"]
    for args, sentence in [
        (["edit", network, "--set=L1.N0.D2", "--seeds=0", *out], "write L3.N1.D5=+2.5"),
        (["edit", network, "--set=L7.N0.D2=1", "--seeds=0", *out], "has no layer L7.N0; it has L0.N0"),
        (["edit", network, "--set=L1.N0.D2=1", *out], "give --seeds, --projected-w or --image"),
        (["edit", network, "--mix=L1=3", "--seeds=0", *out], "is not of the form L3.N1=SEED"),
        (
            ["edit", network, f"--keep={tmp_path / 'small.png'}", "--seeds=0", *out],
            "the mask is 8×8; the images are 16×16",
        ),
        (["edit", network, f"--replay={tmp_path / 'no.json'}", *out], "is no edit"),
        (["edit", network, "--mix=L1.N0=3", "--seeds=0", "--class=7", "--inside=hair", *out], "--inside: classes are"),
        (
            ["edit", network, "--seeds=0", "--inside=hair", f"--extractor={tmp_path / 'no.json'}", *out],
            "--extractor: ",
        ),
        (["explore", network, "--projected-w=none.npz"], "--projected-w: none.npz is no .npz"),
        (["explore", network, "--dims=L1.N0.D99"], "dimensions D0 to D7"),
        (["explore", network, "--dest=t.bmp"], "must end in .png, .gif or .mp4"),
        (["explore", network, "--interpolate=1"], "name two seeds"),
        (["explore", network, "--atlas=a.html", "--attributes=none.zip"], "none.zip does not exist"),
        (["discover", network, "--dest=x.pkl"], "has subspaces of mode 2 already"),
        (["discover", network, "--dest=x.txt"], "must end in .pkl or .safetensors"),
        (["discover", plain, "--dest=x.safetensors", "--dims=1000"], "--dims: dims must lie between 1 and w_dim = 64"),
        (
            ["discover", plain, "--dest=x.safetensors", "--method=pca", "--samples=2"],
            "--samples: 2 latents do not tell 32 directions",
        ),
        (["discover", plain, "--dest=x.safetensors", "--layers=0-99"], "--layers: 0-99: this generator has style"),
        (["edit", plain, "--set=coarse 9=1", "--seeds=0", *out], "no named direction; there is coarse 1, coarse 2"),
        (
            ["edit", plain, "--set=L1.N0.D2=1", "--seeds=0", *out],
            "L1.N0.D2: this network has no subspaces; move coarse 1",
        ),
        (["explore", plain], "generator.safetensors has no subspaces; give a snapshot of mode 1, 2 or 3"),
        (
            [
                "semantics",
                "train",
                network,
                "--segmenter=x",
                "--kind=NSE-2",
                "--method=sgd",
                "--loss=normallayer",
                "--dest=x.safetensors",
            ],
            "--loss: normallayer is for",
        ),
        (["report", str(run_dir), "--attributes=none.zip"], "--attributes: "),
    ]:
        done = CliRunner().invoke(main, args)
        assert done.exit_code == 2 and sentence in done.output, done.output
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------------------
# The atlas


def test_the_atlas_ranks_measures_and_finds_copies():
    G = randomise(build(mode=2))
    with torch.no_grad():
        G.subspaces()[2, 1].U[:, 5] = -G.subspaces()[2, 1].U[:, 4]  # moves the same the other way round
        G.subspaces()[1, 0].U[:, 3] = 0  # does nothing
    entries = atlas.make_atlas(G, seeds=[0, 1])
    assert len(entries) == sum(s.dims for s in G.subspaces().values())
    effects = [entry.effect for entry in entries]
    assert effects == sorted(effects, reverse=True)
    found = {entry.address: entry for entry in entries}
    assert found[1, 0, 3].effect == 0 and found[1, 0, 3].like is None
    copies = [e for e in entries if e.address in ((2, 1, 4), (2, 1, 5)) and e.is_copy]
    assert any(e.like[0] in ((2, 1, 4), (2, 1, 5)) and e.like[1] < -0.95 for e in copies)
    assert entries[0].like is None and sum(e.is_copy for e in entries) < len(entries) / 2
    entry = found[2, 1, 4]
    low, high = (render(G, latents.ws_of_seeds(G, [0, 1]), {(2, 1, 4): a}, noise_mode="const") for a in (-2, 2))
    assert entry.effect == pytest.approx((high - low).abs().mean().item(), rel=1e-4)
    assert entry.heat.shape == (32, 32) and entry.heat.max() == 1 and entry.sigma > 0
    assert PIL.Image.open(io.BytesIO(entry.strip)).size == (3 * 32, 2 * 32)


def chromium(*args):
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --virtual-time-budget=4000"
    command = [shutil.which("chromium"), *options.split(), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_page_in_a_browser(run_dir, tmp_path):  # noqa: F811
    page = tmp_path / "atlas.html"
    network = f"--network={run_dir / 'network-snapshot-000000.pkl'}"
    done = CliRunner().invoke(main, ["explore", network, f"--atlas={page}", "--seeds=0,1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "")  # nothing comes from elsewhere
    script = """<script>
      document.querySelector(".card button").click();
      const search = document.getElementById("search");
      const strips = document.querySelectorAll(".strip img").length;
      search.value = "L2.N1"; search.form.dispatchEvent(new Event("input"));
      const count = document.getElementById("count").textContent;
      document.title = [strips, document.querySelectorAll(".card").length, count];
    </script>"""
    page.write_text(text.replace("</html>", script + "</html>"))
    dom = chromium(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri())
    assert "<title>1,8,8 of 64</title>" in dom


@pytest.mark.slow
def test_the_atlas_finds_what_was_planted():
    """At least 95 % of the plants are among the strongest dimensions, under their right names."""
    predictor = planted.learned_predictor()
    entries = atlas.make_atlas(planted.PlantedGenerator(32), seeds=range(6), predictor=predictor)
    plants = {
        Address(L, N, list(planted.VALUES).index(name)): name
        for (L, N), names in planted.PLANTS.items()
        for name in names
    }
    strongest = entries[: len(plants)]
    right = [entry for entry in strongest if plants.get(entry.address) == entry.purity.attribute]
    assert len(right) >= 0.95 * len(plants), [(str(e.address), e.purity.attribute) for e in strongest]
    assert all(entry.effect == 0 for entry in entries[len(plants) :])


# ---------------------------------------------------------------------------------------------------------------------
# Directions in closed form


@pytest.fixture(scope="module")
def source():
    """A generator without subspaces"""
    torch.manual_seed(0)
    G = networks.Generator(16, 0, 12, 32, 3, dict(num_layers=2), dict(channel_base=256, channel_max=16))
    return G.eval().requires_grad_(False)


def same_up_to_sign(a, b, atol=1e-4):
    signs = np.sign((a * b).sum(axis=0))
    return np.allclose(a * signs, b, atol=atol)


def test_sefa_is_what_numpy_finds(source):
    found = sefa.sefa(source)
    grouped = sefa.sefa(source, [[(0, 0), (1, 0)], [(3, 2)]])
    assert list(found) == [address for address, _, _ in style_layers(source.synthesis)] and set(grouped) == {
        (0, 0),
        (1, 0),
        (3, 2),
    }
    weights = {a: getattr(b, name).affine.weight.double().numpy() for a, b, name in style_layers(source.synthesis)}
    for group, directions in [([(2, 1)], found[2, 1]), ([(0, 0), (1, 0)], grouped[1, 0])]:
        A = np.concatenate([weights[address] for address in group])
        A /= np.linalg.norm(A, axis=1, keepdims=True)
        _, singular, rows = np.linalg.svd(A)
        assert np.allclose(directions[1].numpy(), singular**2)
        assert same_up_to_sign(directions[0].numpy(), rows.T)


def test_pca_is_what_numpy_finds(source):
    directions, deviations = pca.pca_of_w(source, samples=500, seed=3)
    z = torch.from_numpy(np.random.RandomState(3).randn(500, 16))
    w = source.mapping(z, None)[:, 0].double().numpy()
    values, vectors = np.linalg.eigh(np.cov(w.T))
    assert np.allclose(deviations.numpy(), np.sqrt(values[::-1]), rtol=1e-6)
    assert same_up_to_sign(directions.numpy(), vectors[:, ::-1])


def test_pca_of_features_is_what_numpy_finds(source):
    found = pca.pca_of_features(source, dims=4, samples=60, seed=1)
    w = source.mapping(torch.from_numpy(np.random.RandomState(1).randn(60, 16)), None)
    features = []
    hook = source.synthesis.b8.conv1.register_forward_hook(lambda _layer, _args, y: features.append(y.flatten(1)))
    source.synthesis(w, noise_mode="const")
    hook.remove()
    y = features[0].double().numpy()
    _, singular, components = np.linalg.svd(y - y.mean(axis=0), full_matrices=False)
    coordinates = (y - y.mean(axis=0)) @ components[:4].T / (singular[:4] / np.sqrt(59))  # of unit variance
    w = w[:, 0].double().numpy()
    directions = np.linalg.lstsq(coordinates, w - w.mean(axis=0), rcond=None)[0]
    first = directions[0] / np.linalg.norm(directions[0])
    assert same_up_to_sign(found[1, 1][0][:, :1].numpy(), first[:, None], atol=1e-3)
    spanned = found[1, 1][0].numpy()
    assert np.allclose(spanned @ (spanned.T @ directions.T), directions.T, atol=1e-3)
    assert np.allclose(found[1, 1][1].numpy(), singular[:4] / np.sqrt(59), rtol=1e-3)


def test_directions_leave_images_as_they_are(source, tmp_path):
    torch.manual_seed(1)
    found = subspaces.with_directions(source, {a: d for a, (d, _) in sefa.sefa(source).items()}, dims=5)
    z = torch.randn(3, 16)
    for kwargs in (dict(), dict(truncation_psi=0.5)):
        assert torch.equal(found(z, None, noise_mode="const", **kwargs), source(z, None, noise_mode="const", **kwargs))
    subspace = found.subspaces()[2, 1]
    directions = sefa.sefa(source)[2, 1][0][:, :5].float()
    assert torch.allclose(subspace.basis(), directions, atol=1e-6)
    ws = found.mapping(z, None)
    sigma = latents.coordinate_sigmas(found)[0, 0][0]
    moved = source.synthesis.b4.conv1.affine(ws[:, 0] + 2 * sigma * sefa.sefa(source)[0, 0][0][:, 0].float())
    with found.edited(offsets=offsets_of(found, {Address(0, 0, 0): 2})):
        assert torch.allclose(found.synthesis.b4.conv1.affine(ws[:, 0]), moved, atol=1e-5)
    for dims in (0, 13):
        with pytest.raises(ValueError, match="between 1 and w_dim = 12"):
            subspaces.with_directions(source, {}, dims)


@pytest.mark.parametrize("method", ["sefa", "pca", "pca-features"])
def test_discover_command(source, method, tmp_path):
    from snapshots.safetensors import save_safetensors

    path, _ = save_safetensors(source, str(tmp_path / "G.safetensors"))
    dest = tmp_path / "found.safetensors"
    args = ["discover", f"--network={path}", f"--method={method}", "--dims=3", f"--dest={dest}"]
    args += ["--samples=40"] if method != "sefa" else []
    done = CliRunner().invoke(main, args, catch_exceptions=False)
    assert done.exit_code == 0 and done.output.count("L2.N") == 3, done.output
    found = legacy.load_generator(str(dest))
    assert torch.equal(
        found(torch.ones(1, 16), None, noise_mode="const"), source(torch.ones(1, 16), None, noise_mode="const")
    )
    picture = tmp_path / "t.png"
    done = CliRunner().invoke(main, ["explore", f"--network={dest}", f"--dest={picture}", "--rows=2", "--steps=3"])
    assert done.exit_code == 0 and picture.is_file()
    assert json.loads((tmp_path / "found.json").read_text())["init_kwargs"]["subspace_dim"] == 3


def test_ranges_of_layers():
    addresses = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert subspaces.parse_layers("each", addresses) == [[a] for a in addresses]
    assert subspaces.parse_layers("all", addresses) == [addresses]
    assert subspaces.parse_layers("0-1,3", addresses) == [addresses[:2], addresses[3:]]
    for text, sentence in (("x", "layers"), ("0-9", "layers"), ("2-1", "2-1 runs backwards; write 1-2")):
        with pytest.raises(ValueError, match=sentence):
            subspaces.parse_layers(text, addresses)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """Snapshots of a generator with three classes, and of one with label vectors of three numbers"""
    folder = tmp_path_factory.mktemp("conditional")
    torch.manual_seed(0)
    G = randomise(build(mode=2, c_dim=3))
    D = networks.Discriminator(3, G.img_resolution, G.img_channels, channel_base=128, channel_max=8)
    snapshot = dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=None)
    vectors = torch.tensor([[0.25, 0.5, 0.25], [0.9, 0.1, 0.0]])
    (folder / "classes.pkl").write_bytes(pickle.dumps(snapshot))
    (folder / "vectors.pkl").write_bytes(pickle.dumps(snapshot | dict(label_examples=vectors)))
    return folder, vectors


def test_class_of_a_conditional_generator_can_be_chosen_and_is_said(conditional, tmp_path):
    folder, _ = conditional
    explore_ = lambda *args: CliRunner().invoke(main, ["explore", f"--network={folder / 'classes.pkl'}", *args])
    for name, args in dict(none=[], zero=["--class=0"], two=["--class=2"]).items():
        done = explore_(f"--dest={tmp_path / name}.png", "--rows=2", "--steps=3", *args)
        assert done.exit_code == 0, done.output
        assert ("class 0 is shown, --class=N shows another" in done.output) == (name == "none")
    content = {name: (tmp_path / f"{name}.png").read_bytes() for name in ("none", "zero", "two")}
    assert content["none"] == content["zero"] != content["two"]
    assert "give a class from 0 to 2" in explore_("--class=3").output
    for number in (0, 1):
        done = explore_(f"--atlas={tmp_path / 'atlas.html'}", "--seeds=0", f"--class={number}")
        assert done.exit_code == 0 and f"classes.pkl, class {number}" in (tmp_path / "atlas.html").read_text()


def test_label_vectors_come_with_the_network(conditional, tmp_path):
    folder, vectors = conditional
    G = legacy.load_generator(str(folder / "vectors.pkl"))
    assert torch.equal(class_label(G, 1, 2, "cpu"), vectors[[1, 1]])
    w = latents.random_w(G, 2000)
    z = torch.from_numpy(np.random.RandomState(0).randn(2000, G.z_dim))
    found = (w[:, None] - torch.stack([G.mapping(z, v.expand(2000, -1))[:, 0] for v in vectors], 1)).norm(dim=2)
    assert (found.min(dim=1).values < 1e-5).all() and 0.4 < (found[:, 0] < 1e-5).float().mean() < 0.6
    path, _ = save_safetensors(G, str(tmp_path / "G.safetensors"))
    assert torch.equal(legacy.load_generator(path).label_examples, vectors)
    done = CliRunner().invoke(main, ["explore", f"--network={path}", "--class=2", f"--dest={tmp_path / 'x.png'}"])
    assert "conditional on label vectors; give a class from 0 to 1" in done.output
    wrong = pickle.loads(pickle.dumps(legacy.load_snapshot(str(folder / "vectors.pkl"))))
    (tmp_path / "wrong.pkl").write_bytes(pickle.dumps(wrong | dict(label_examples=torch.zeros(2, 5))))
    with pytest.raises(ValueError, match="labels that do not fit"):
        legacy.load_generator(str(tmp_path / "wrong.pkl"))
