"""Coordinates of one's own: what they follow, where they act, what edits do to them, and training them with names."""

import copy
import csv
import json
import math
import os
import shutil
import unicodedata

import numpy as np
import pytest
import torch

from helpers import TINY, make_dataset, newest, only_run, png, read_stats, run, slowly
from segan_ext import labelled, own
from segan_ext.atlas.atlas import make_atlas
from segan_ext.atlas.page import page
from segan_ext.control.address import Name
from segan_ext.control.named import NamedDirection
from segan_ext.control.render import render
from segan_ext.directions.named import with_named
from segan_ext.encoder import EncoderDiscriminator
from segan_ext.latents import ws_of_seeds
from segan_ext.metrics.attributes import Attribute
from segan_ext.networks import OwnCoordinates, OwnSubspace, SEGANGenerator, _onto_simplex
from snapshots.load import load_generator, load_snapshot
from snapshots.save import save_snapshot
from torch_utils import cached_weights
from training import state
from training.dataset import ImageFolderDataset
from training.networks import Discriminator

NAMED = [
    dict(name="tilt", size=1, quantiles=[-1.5, 0.5, 2.0]),
    dict(name="hair", values=["curly", "long", "short"], shares=[0.2, 0.3, 0.5]),
    dict(name="glasses", values=["no", "yes"], shares=[0.75, 0.25]),
]
EIGEN = own.eigen_coordinates(16, 3)


def generator(mode, groups, **kwargs):
    narrow = dict(channel_base=128, channel_max=8, use_noise=False)
    dims = dict(z_dim=8 + OwnCoordinates(groups).inputs, w_dim=8 + OwnCoordinates(groups).outputs)
    sizes = dict(c_dim=0, img_resolution=16, img_channels=3, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=narrow)
    return SEGANGenerator(**dims, **sizes, mode=mode, own=groups, **kwargs).eval().requires_grad_(False)


def test_coordinates_follow_what_they_are_said_to_and_nothing_else():
    e = OwnCoordinates(NAMED)(torch.randn(100_000, 3))
    assert torch.allclose(
        e[:, 0].quantile(torch.tensor([0, 0.25, 0.5, 0.75, 1])), torch.tensor([-1.5, -0.5, 0.5, 1.25, 2]), atol=0.02
    )
    assert torch.equal(e[:, 1:4].sum(dim=1), torch.ones(len(e))) and set(e[:, 1:].unique().tolist()) == {0, 1}
    assert torch.allclose(e[:, 1:].mean(dim=0), torch.tensor([0.2, 0.3, 0.5, 0.75, 0.25]), atol=0.01)
    uniform = OwnCoordinates(EIGEN)(torch.randn(100_000, 9))
    assert uniform.abs().max() <= 3**0.5 and torch.allclose(uniform.std(dim=0), torch.ones(9), atol=0.01)
    assert torch.allclose((uniform.abs() < 3**0.5 / 2).float().mean(dim=0), torch.full([9], 0.5), atol=0.01)
    normal = torch.randn(10, 6)
    assert torch.equal(OwnCoordinates(own.eigen_coordinates(8, 3, "gaussian"))(normal), normal)


@pytest.mark.parametrize("mode, groups", [("eigen", EIGEN), ("named", NAMED)])
def test_coordinates_are_independent_of_w_and_of_each_other(mode, groups):
    G = generator(mode, groups)
    ws = G.mapping(torch.randn(10_000, G.z_dim), None)
    width = sum(own.widths(groups))
    found = torch.corrcoef(ws[:, 0].t())[:, -width:]
    start = len(found) - width
    for size in own.widths(groups):  # within a group values exclude each other
        found[start : start + size, start - len(found) + width : start - len(found) + width + size] = 0
        start += size
    assert found.abs().max() < 0.05
    assert torch.equal(G.mapping.w_avg[-width:], torch.zeros(width)) and len(G.mapping.w_avg) == G.w_dim


def test_truncation_pulls_numbers_to_their_mean_and_leaves_values():
    G = generator("named", NAMED)
    z = torch.randn(50, G.z_dim)
    full, half = G.mapping(z, None)[:, 0, 8:], G.mapping(z, None, truncation_psi=0.5, truncation_cutoff=3)
    assert torch.allclose(half[:, 0, 8], full[:, 0] / 2) and torch.equal(half[:, 0, 9:], full[:, 1:])
    assert torch.equal(half[:, 3, 8:], full)


@pytest.mark.parametrize("bottleneck", [True, False])
def test_w_reaches_the_first_block_alone_and_coordinates_their_own(bottleneck):
    G = generator("eigen", EIGEN, bottleneck=bottleneck)
    ws = G.mapping(torch.randn(1, G.z_dim), None).requires_grad_()
    (grad,) = torch.autograd.grad(G.synthesis(ws).square().sum(), ws)
    read = grad[0].abs() > 0  # [num_ws, w_dim]
    assert read[:2, :8].any(dim=1).all() and read[2:, :8].any() == (not bottleneck)
    assert read[2:, 8:11].sum() == 0 and read[0, 8:11].all()  # block 0's coordinates, whose torgb reads ws[1] too
    assert read[1, 11:14].all() and read[2, 11:14].all() and not read[0, 11:].any()


def test_a_subspace_agrees_with_its_formula_its_matrix_and_its_gradients():
    subspace = OwnSubspace((1, 0), 8, 14, 8, NAMED, shared=True).double()
    torch.nn.init.normal_(subspace.mu)
    x = torch.randn(4, 14, dtype=torch.float64, requires_grad=True)
    e = x[:, 8:14]
    assert torch.allclose(subspace(x), x[:, :8] + (e * subspace.L) @ subspace.basis().t() + subspace.mu)
    matrix, origin = subspace.as_affine()
    assert torch.allclose(subspace(x), x @ matrix.double().t() + origin)
    assert torch.autograd.gradcheck(subspace, (x,))


def test_folding_leaves_images_as_they_are():
    G = generator("named", NAMED)
    z = torch.randn(3, G.z_dim)
    with cached_weights.enabled():
        folded = G(z, None)
    assert torch.allclose(folded, G(z, None), atol=1e-5)


def test_edits_stay_where_the_generator_was_trained():
    G = generator("named", NAMED)
    ws = G.mapping(torch.randn(20, G.z_dim), None)
    subspace, controls = G.subspaces()[1, 0], G.named_offsets()
    assert list(controls) == ["tilt", "hair long", "hair short", "glasses"]
    assert all(set(offsets) == set(G.subspaces()) for offsets in controls.values())

    def edited(name, amount):
        with G.edited(offsets={x: amount * o for x, o in controls[name].items()}):
            return subspace.controlled(subspace.coordinates(ws[:, 0]))

    before = subspace.coordinates(ws[:, 0])
    assert torch.equal(edited("tilt", 100)[:, 0], torch.full([20], 2.0)) and torch.equal(edited("tilt", 0), before)
    for amount, value in ((1, 2), (3, 2), (-1, 0)):  # whatever held before
        after = edited("hair short", amount)
        assert torch.equal(after[:, 1:4], torch.eye(3)[value].expand(20, 3)) and torch.equal(
            after[:, [0, 4, 5]], before[:, [0, 4, 5]]
        )
    assert torch.equal(edited("glasses", 1)[:, 4:], torch.tensor([0.0, 1.0]).expand(20, 2))


def test_the_projection_onto_the_simplex_is_the_nearest_point():
    x = torch.randn(200, 4, dtype=torch.float64) * 2
    found = _onto_simplex(x)
    assert torch.allclose(found.sum(dim=1), torch.ones(200, dtype=torch.float64)) and found.min() >= 0
    others = torch.distributions.Dirichlet(torch.full([4], 0.5, dtype=torch.float64)).sample([2000])
    nearest = torch.cdist(x, others).min(dim=1).values
    assert ((x - found).norm(dim=1) <= nearest + 1e-12).all()
    assert torch.equal(_onto_simplex(others[:5]).round(decimals=12), others[:5].round(decimals=12))


def test_the_loss_of_codes_is_cross_entropy_and_half_a_squared_error():
    codes = torch.tensor([[0.5, 0, 1, 0, 1, 0], [torch.nan, 1, 0, 0, torch.nan, torch.nan]])
    predicted = torch.randn(2, 6, requires_grad=True)
    entropy = torch.nn.functional.cross_entropy
    first = (predicted[0, 0] - 0.5) ** 2 / 2 + entropy(predicted[0, 1:4], torch.tensor(1))
    first = first + entropy(predicted[0, 4:], torch.tensor(0))
    second = entropy(predicted[1, 1:4], torch.tensor(0))
    assert torch.allclose(own.code_losses(predicted[:1], codes[:1], NAMED).sum(dim=1), first)
    found = own.code_losses(predicted, codes, NAMED).sum(
        dim=1
    )  # the mean over one, of which all is known, and over two
    hair = entropy(predicted[0, 1:4], torch.tensor(1))
    assert torch.allclose(found.mean(), first - hair + (hair + second) / 2)
    (grad,) = torch.autograd.grad(found.sum(), predicted)
    assert grad.isfinite().all() and not grad[1, [0, 4, 5]].any()  # nothing was said of those


def test_codes_that_real_images_might_have():
    """What is drawn is distributed as the codes are, whatever Q does not see of them."""
    torch.manual_seed(0)
    e = OwnCoordinates(NAMED)(torch.randn(20_000, 3))
    e[:, 0] = (e[:, 0] - e[:, 0].mean()) / e[:, 0].std()
    seen = 0.8
    noise = (1 - seen**2) ** 0.5 * torch.randn(len(e), 1)
    number = seen * (seen * e[:, :1] + noise)  # the best guess, of variance 0.64
    guess = 0.7 * e[:, 1:4] + 0.3 * torch.tensor([0.2, 0.3, 0.5])
    e[:, 1:4] = torch.nn.functional.one_hot(torch.multinomial(guess, 1)[:, 0], 3)  # as likely as it says
    glasses = e[:, 4:] * 40  # no doubt is left
    read = torch.cat([number, guess.log(), glasses], dim=1)
    average = own.moments(read, NAMED)
    doubts = own.doubts(average, NAMED)
    known = own.code_losses(read, e, NAMED)
    assert float(doubts[0]) == pytest.approx((1 - seen**2) / 2, abs=0.01) == float(known[:, 0].mean())
    assert float(doubts[1]) == pytest.approx(float(known[:, 1].mean()), abs=0.01) and doubts[2] < 1e-6
    drawn = own.drawn(read, average, NAMED)
    assert float(drawn[:, 0].var()) == pytest.approx(1, abs=0.03)
    assert torch.allclose(drawn[:, 1:].mean(dim=0), torch.tensor([0.2, 0.3, 0.5, 0.75, 0.25]), atol=0.02)
    assert torch.equal(drawn[:, 4:], e[:, 4:]) and set(drawn[:, 1:].unique().tolist()) == {0, 1}
    first = own.doubts(own.first_moments(NAMED), NAMED)
    assert torch.allclose(first, torch.tensor([0.5, 1.0297, 0.5623]), atol=1e-4)  # ½ and the entropies of the shares


def test_the_encoder_leaves_the_logits_alone():
    narrow = dict(channel_base=128, channel_max=8)
    D, plain = EncoderDiscriminator(0, 16, 3, **narrow, codes=5, projection=True), Discriminator(0, 16, 3, **narrow)
    missing, unexpected = plain.load_state_dict(D.state_dict(), strict=False)
    assert not missing and all(name.startswith(("b4.codes", "b4.projection")) for name in unexpected)
    img = torch.randn(8, 3, 16, 16)
    logits, codes, projection = D(img, None, codes=True)
    assert torch.equal(logits, plain(img, None)) and torch.equal(logits, D(img, None))
    assert codes.shape == projection.shape == (8, 5)
    assert EncoderDiscriminator(0, 16, 3, **narrow, codes=5)(img, None, codes=True)[2].shape == (8, 0)
    assert torch.allclose(codes[3:4], D(img[3:4], None, codes=True)[1], atol=1e-5)  # of one image, not of the batch


def test_coordinates_are_made_from_labels():
    attributes = [Attribute("size"), Attribute("kind", ("a", "b", "c"))]
    rows = torch.stack(
        [torch.linspace(-1, 3, 101).double(), torch.tensor([0.0] * 60 + [1.0] * 40 + [torch.nan])], dim=1
    )
    size, kind = labelled.named_coordinates(attributes, rows)
    assert size["quantiles"][0] == -1 and size["quantiles"][-1] == 3 and size["quantiles"][8] == 1
    assert kind["shares"] == [0.5922, 0.3981, 0.009709]  # a value of no image is rare, but possible


def test_a_value_seen_once_in_very_many_images_has_a_share():
    rows = torch.zeros(60_000, 1).double()
    rows[7] = 1
    (group,) = labelled.named_coordinates([Attribute("hat", ("no", "yes"))], rows)
    assert group["shares"] == pytest.approx([60_000 / 60_002, 2 / 60_002], rel=1e-3)
    assert OwnCoordinates([group])(torch.randn(3, 1)).shape == (3, 2)


# ---------------------------------------------------------------------------------------------------------------------
# The command


def label(path, cells, kind="image", names=("bright", "round")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([[kind, *names], *cells])
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "discs.zip", count=60)


@pytest.fixture(scope="module")
def labels(data, tmp_path_factory):
    """Of every second image how bright it is, and of some of those whether that is much"""
    images = ImageFolderDataset(str(data))
    cells = []
    for i in range(0, 60, 2):
        bright = images[i][0].mean()
        cells.append([images.image_names()[i], f"{bright:.1f}", "" if i % 10 == 0 else "yes" if bright > 110 else "no"])
    return label(tmp_path_factory.mktemp("labels") / "labels.csv", cells)


TRAINING = [*TINY, "--cfg=segan-mode2", "--kimg=1", "--tick=0.2", "--snap=2"]


def started(mode, data, labels):
    return [*TRAINING, f"--mode={mode}", f"--data={data}", *([f"--labels={labels}"] if mode == "named" else [])]


@pytest.mark.parametrize("mode", slowly(["eigen", "named"], fast=["named"]))
def test_a_run_trains_and_its_snapshot_is_edited_by_name(mode, data, labels, tmp_path):
    run("train_segan.py", *started(mode, data, labels), f"--outdir={tmp_path / 'out'}")
    stats = read_stats(only_run(tmp_path / "out"))[-1]
    assert stats["Loss/G/codes"]["num"] > 0 and stats["Loss/G/ortho"]["num"] > 0
    assert ("Loss/D/labels" in stats) == (mode == "named") and stats["Loss/D/codes"]["mean"] > 0
    network = newest(only_run(tmp_path / "out"))
    G = load_generator(str(network))
    name = "bright" if mode == "named" else "E1.0"
    ws = G.mapping(torch.randn(2, G.z_dim), None)
    with G.edited(offsets=G.named_offsets()[name]):
        changed = G.synthesis(ws)
    assert G.mode == mode and not torch.equal(changed, G.synthesis(ws))
    edit = tmp_path / "edit"
    run("-m segan_ext", "edit", f"--network={network}", f"--set={name}=+1", "--seeds=0", f"--outdir={edit}")
    run("-m segan_ext", "run", "generate.py", f"--network={network}", "--seeds=0,1", f"--outdir={tmp_path / 'images'}")
    assert len(list((tmp_path / "images").glob("*.png"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eigen", "named"])
def test_a_run_in_two_parts_ends_as_one(mode, data, labels, tmp_path):
    """Whatever becomes of data and CSV meanwhile."""
    here, there = shutil.copy(data, tmp_path / "here.zip"), tmp_path / "there.zip"
    given = started(mode, here, shutil.copy(labels, tmp_path))
    run("train_segan.py", *given, "--kimg=2", f"--outdir={tmp_path / 'whole'}")
    run("train_segan.py", *given, f"--outdir={tmp_path / 'parts'}")
    swap(tmp_path / "labels.csv")
    os.rename(here, there)
    run("train_segan.py", "--resume=latest", "--kimg=2", f"--outdir={tmp_path / 'parts'}", f"--data={there}")
    states = [state.read(str(newest(only_run(tmp_path / part), "training-state-*.pt"))) for part in ("whole", "parts")]
    whole, parts = ({f"{kind} {n}": v for kind in ("loss", "modules") for n, v in flat(s[kind])} for s in states)
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def swap(path):
    """Makes every yes a no, and the other way round"""
    text = path.read_text()
    path.write_text(text.replace(",yes", ",swapped").replace(",no", ",yes").replace(",swapped", ",no"))


@pytest.fixture(scope="module")
def named_run(data, labels, tmp_path_factory):
    """A run of mode named, begun beside its labels, which have been taken away, as its data have"""
    folder = tmp_path_factory.mktemp("named")
    shutil.copy(data, folder / "discs.zip")
    shutil.copy(labels, folder)
    run("train_segan.py", *started("named", "discs.zip", "labels.csv"), "--outdir=out", cwd=folder)
    (folder / "discs.zip").unlink()
    (folder / "labels.csv").unlink()
    return only_run(folder / "out")


def test_a_run_goes_on_with_the_labels_that_it_began_with(named_run, data, labels, tmp_path):
    """Without its CSV, with its data elsewhere, from another folder; and not with others."""
    copied, elsewhere = shutil.copytree(named_run, tmp_path / "run"), shutil.copy(data, tmp_path / "elsewhere.zip")
    kept = (copied / "labels.json").read_bytes()
    go_on = lambda *more, **kwargs: run(
        "train_segan.py", f"--resume={copied}", "--kimg=2", *more, cwd=tmp_path, **kwargs
    )
    go_on(f"--data={elsewhere}")
    assert newest(copied).name == "network-snapshot-000002.pkl" and (copied / "labels.json").read_bytes() == kept
    (copied / "labels.json").write_bytes(kept.replace(b"1", b"0"))
    done = go_on(f"--data={elsewhere}", "--kimg=3", check=False)
    assert done.returncode == 2 and "labels.json is not what the run began with" in done.stderr
    (copied / "labels.json").unlink()
    done = go_on(f"--data={elsewhere}", "--kimg=3", check=False)
    assert done.returncode == 2 and "labels.json cannot be read" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_of_a_version_that_kept_no_labels_goes_on(named_run, data, labels, tmp_path):
    copied = shutil.copytree(named_run, tmp_path / "run")
    kept = (copied / "labels.json").read_bytes()
    (copied / "labels.json").unlink()
    options = json.loads((copied / "training_options.json").read_text())
    options["loss_kwargs"]["labels"] = dict(path="gone.zip", source=str(tmp_path / "labels.csv"), count=None)
    del options["options"]["kept_digests"]
    (copied / "training_options.json").write_text(json.dumps(options))
    path = newest(copied, "training-state-*.pt")
    saved = torch.load(path, weights_only=True)
    del saved["loss"]["drawn"]
    torch.save(saved, path)
    go_on = lambda **kwargs: run("train_segan.py", f"--resume={copied}", f"--data={data}", "--kimg=2", **kwargs)
    done = go_on(check=False)
    assert done.returncode == 2 and "labels.csv cannot be read" in done.stderr and "Traceback" not in done.stderr
    shutil.copy(labels, tmp_path)
    assert "from now on it has those that" in go_on().stdout
    assert json.loads((copied / "labels.json").read_text()) == json.loads(kept)


def test_other_labels_count_in_the_units_of_the_generator(named_run, data, labels, tmp_path):
    """A deviation stays what it was, whatever the new labels' deviation is."""
    images, (tilt, hair) = ImageFolderDataset(str(data)), ["tilt", "hair"]
    cells = [[name, x, ["yes", "no"][i % 2]] for i, (name, x) in enumerate(zip(images.image_names(), range(60)))]
    first = labelled.read(images, str(label(tmp_path / "first.csv", cells, names=(tilt, hair))))
    groups = labelled.named_coordinates(first.attributes, first.rows, first.units)
    some = labelled.read(images, str(label(tmp_path / "some.csv", cells[10:20], names=(tilt, hair))))
    turned = labelled.read(
        images, str(label(tmp_path / "turned.csv", [[n, h, t] for n, t, h in cells], names=(hair, tilt)))
    )
    expected = labelled.in_coordinates(first, groups)
    assert torch.allclose(expected, first.rows) and torch.allclose(labelled.in_coordinates(turned, groups), expected)
    assert torch.allclose(labelled.in_coordinates(some, groups), expected[10:20])
    for names, values, said in (
        ((tilt, "size"), ["yes", "no"], "label tilt, size, and the generator has coordinates for tilt, hair"),
        ((hair, tilt), ["1", "2"], "take tilt for values, and for the generator it is a number"),
        ((tilt, hair), ["yes", "maybe"], "say hair maybe, which the generator does not know"),
    ):
        other = [[name, x, values[i % 2]] for i, (name, x, _) in enumerate(cells)]
        with pytest.raises(ValueError, match=said):
            labelled.in_coordinates(
                labelled.read(images, str(label(tmp_path / "other.csv", other, names=names))), groups
            )
    given = ["train_segan.py", *started("named", data, labels), f"--resume={newest(named_run)}", "-n"]
    done = run(*given)
    assert "bright: a number" in done.stdout and "in which unit" not in done.stdout
    groups = json.loads((named_run / "training_options.json").read_text())["G_kwargs"]["own"]
    assert groups[0]["unit"][0] > 10  # of brightness, from 0 to 255
    old = copy.deepcopy(load_snapshot(str(newest(named_run))))
    for net in ("G", "G_ema"):
        del old[net]._init_kwargs["own"][0]["unit"]
    save_snapshot(str(tmp_path / "old.pkl"), old)
    done = run(*given[:-2], f"--resume={tmp_path / 'old.pkl'}", "-n")
    assert "does not know in which unit bright were labelled" in done.stdout


def test_what_each_column_was_taken_for_is_printed(data, labels):
    done = run("train_segan.py", *started("named", data, labels), "-n")
    assert "30 images are labelled:" in done.stdout and "bright: a number, " in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  round: ")]
    assert line.startswith("  round: no ") and ", yes " in line and line.endswith("; 6 not said")


def test_images_outside_the_subset_are_not_learned_from(data, labels, tmp_path):
    items = [[i % 2, i / 60] for i in range(60)]
    factors = dict(names=["side", "tilt"], kinds=[], values=dict(side=["left", "right"]), items=items)
    content = json.dumps(dict(labels=None, factors=factors)).encode()
    marked = make_dataset(tmp_path / "factors.zip", count=60, extra={"dataset.json": content})
    for path, source in ((data, labels), (marked, "factors")):
        whole = ImageFolderDataset(str(path))
        part = ImageFolderDataset(str(path), max_size=40, random_seed=3, xflip=True)
        every, found = labelled.read(whole, str(source)), labelled.read(part, str(source))
        inside = [name for name in every.names if name in part.image_names()]
        assert found.names == inside and 10 < len(inside) < len(every.names)
        assert found.left_out == (0 if source == "factors" else len(every.names) - len(inside))
        store, _ = store_of(part, source)
        originals = {whole[whole.image_names().index(name)][0].tobytes() for name in inside}
        assert {image.tobytes() for image in store.read(range(len(store))).numpy()} == originals
    raw = found.rows[:, 1] * found.units[1][1] + found.units[1][0]
    assert torch.allclose(raw, torch.tensor([int(name[-6:-4]) / 60 for name in found.names], dtype=torch.float64))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_pictures_are_found_however_accents_are_composed(form, tmp_path):
    pictures = {unicodedata.normalize(form, f"é{i}.v2.png"): png(seed=i) for i in range(3)}
    more = {"a.png": png(seed=3), "a.jpg": png(seed=4), "sub/b.png": png(seed=5)}
    images = ImageFolderDataset(str(make_dataset(tmp_path / "set.zip", count=0, extra=pictures | more)))
    for other in ("NFC", "NFD"):
        keys = [unicodedata.normalize(other, key) for key in ("é0.v2.png", "é1.v2", "é2.v2.png", "sub\\b", "./a.png")]
        cells = [[key, i, ["yes", "no"][i % 2]] for i, key in enumerate(keys)]
        found = labelled.read(images, str(label(tmp_path / "labels.csv", cells)))
        composed = [unicodedata.normalize("NFC", name) for name in pictures]
        assert found.names == [*composed, "sub/b.png", "a.png"]
    for keys, said in (
        (["a", "sub/b"], "a may be a.jpg or a.png"),
        (["sub/b", "sub/b.png"], "sub/b.png is there twice"),
    ):
        cells = [[key, i, ["yes", "no"][i % 2]] for i, key in enumerate([*keys, "a.png"])]
        with pytest.raises(ValueError, match=said):
            labelled.read(images, str(label(tmp_path / "labels.csv", cells)))


@pytest.mark.parametrize(
    "change",
    [dict(items=None), dict(items=[[0, 1]]), dict(items=[[9, 1.0]] * 60), dict(items=[["a", 1]] * 60), dict(names=3)],
)
def test_factors_that_are_none_are_explained(change, tmp_path):
    factors = (
        dict(names=["side", "tilt"], kinds=[], values=dict(side=["left", "right"]), items=[[0, 1.0]] * 60) | change
    )
    content = json.dumps(dict(labels=None, factors=factors)).encode()
    images = ImageFolderDataset(str(make_dataset(tmp_path / "set.zip", count=60, extra={"dataset.json": content})))
    with pytest.raises(ValueError, match="the factors in dataset.json"):
        labelled.read(images, "factors")


@pytest.mark.parametrize(
    "change",
    [dict(images=["a"]), dict(labels={}), dict(labels=dict(hair=[2, 0], tilt=[0, 0])), dict(version=2), dict(images=3)]
    + [dict(labels=dict(hair=[0.5, 0], tilt=[0, 0])), dict(labels=dict(hair=[0, 0], tilt=["x", 0]))],
)
def test_labels_of_a_run_that_are_none_are_refused(change):
    groups = [dict(name="hair", values=["long", "short"], shares=[0.5, 0.5]), dict(name="tilt", size=1)]
    rows = torch.tensor([[1, torch.nan], [torch.nan, 0.1]], dtype=torch.float64)
    content = labelled.as_file(["a", "b\udcff"], rows, groups)
    names, found = labelled.of_file(content, groups)
    assert names == ["a", "b\udcff"] and torch.equal(found.nan_to_num(7), rows.nan_to_num(7))
    with pytest.raises(ValueError, match="the labels of the run"):
        labelled.of_file(json.dumps(json.loads(content) | change).encode(), groups)


def flat(found, prefix=""):
    for name, value in found.items():
        yield from flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]


@pytest.mark.parametrize(
    "given, said",
    [
        (["--mode=named"], "--labels: the mode named needs labels"),
        (["--mode=2", "--labels=factors"], "--labels: belongs to the mode named, not to 2"),
        (["--mode=named", "--prior=gaussian"], "--prior: belongs to the mode eigen, not to named"),
        (["--mode=named", "--labels=nowhere.csv"], "--labels: "),
        (["--mode=named", "--labels=factors"], "no known attributes"),
        (["--mode=named", "--labels={strange}"], "names 00000/img99999999.png, which"),
        (["--mode=named", "--labels={one}"], "round needs two different answers"),
        (["--mode=named", "--labels={seeds}"], "labels seeds; training needs labels of images"),
        (["--mode=named", "--labels={late}", "--num-labels=2"], "the labels of round are all the same"),
        (["--mode=eigen", "--info=-1"], "-1.0 is not in the range"),
        (["--mode=eigen", "--subspace-dim=4"], "--subspace-dim: belongs to the modes 1 to 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_labels_and_options_that_do_not_serve_are_named(given, said, data, tmp_path):
    name = lambda i: f"00000/img{i:08d}.png"
    cells = [[name(i), i / 7, "yes"] for i in range(3)]
    files = dict(
        strange=[*cells, [name(99999999), 0.5, "no"]],
        one=cells,
        late=[*cells, [name(4), 1, "no"]],
        seeds=[[0, 1.5, "yes"], [1, 2.5, "no"], [2, 1, "no"]],
    )
    paths = {n: label(tmp_path / f"{n}.csv", c, "seed" if n == "seeds" else "image") for n, c in files.items()}
    given = [each.format(**paths) for each in given]
    done = run("train_segan.py", *TINY, "--cfg=segan-fast", *given, f"--data={data}", "-n", check=False)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def store_of(data, path):
    """(`LabelledImages` of a CSV, their coordinates)"""
    found = labelled.read(data, str(path))
    groups = labelled.named_coordinates(found.attributes, found.rows, found.units)
    codes = labelled.codes(labelled.in_coordinates(found, groups), groups)
    return labelled.LabelledImages(data, found.names, codes, groups), groups


def test_the_skill_of_names_is_measured_on_what_was_never_drawn(data, labels):
    images = ImageFolderDataset(str(data))
    store, _ = store_of(images, labels)
    assert len(store) == 30 and store.num_held_out == 0  # too few to spare any
    cells = [[name, i / 60, "yes" if i % 3 else "no"] for i, name in enumerate(images.image_names())]
    more, groups = store_of(images, label(labels.with_name("more.csv"), cells))
    assert len(more) == 60 and more.num_held_out == 6
    drawn = np.concatenate([more.pairs(number, 100) for number in range(10)])
    assert drawn.min() == 6 and len(np.unique(drawn)) == 54  # all but what is held out
    found, codes = more.draw(3, 8)
    assert torch.equal(codes, more.codes[more.pairs(3, 8)]) and torch.equal(
        found[2, 1], more.read([more.pairs(3, 8)[2, 1]])[0]
    )
    codes = more.codes
    assert own.skills(codes, codes, groups) == {"bright": 1, "round": 1}
    dull = torch.cat([torch.zeros(60, 1), torch.tensor([[0.0, 1]]).expand(60, 2)], dim=1)
    assert own.skills(dull, codes, groups) == pytest.approx({"bright": 0, "round": 0}, abs=1e-4)


def test_images_and_codes_are_mixed_alike():
    values = torch.randint(256, [500, 2], dtype=torch.uint8)
    images, codes = labelled.mixed(
        values[:, :, None, None, None].expand(500, 2, 3, 4, 4), values[:, :, None].float(), 0
    )
    torch.testing.assert_close(images, (codes / 127.5 - 1)[:, :, None, None].expand(500, 3, 4, 4))
    assert len(codes.unique()) > 400 and (codes <= values.max(dim=1, keepdim=True).values).all()
    torch.manual_seed(0)
    noisy = labelled.mixed(torch.zeros(100, 2, 3, 8, 8, dtype=torch.uint8), codes[:100, None].expand(100, 2, 1), 0.05)[
        0
    ]
    assert noisy.std() == pytest.approx(0.05, rel=0.05)


def test_sparse_labels_are_used_as_often_as_they_are_stored(data, tmp_path):
    """Of eight attributes one is known of each image: each teaches an eighth of the mixtures, however rare it is."""
    names, images = [f"a{i}" for i in range(8)], ImageFolderDataset(str(data))
    known = [0] * 20 + [1 + i % 7 for i in range(40)]
    cells = [[name, *[""] * 8] for name in images.image_names()]
    for i, row in enumerate(cells):
        row[1 + known[i]] = "yes" if i // 7 % 2 else "no"
    store, groups = store_of(images, label(tmp_path / "sparse.csv", cells, names=names))
    codes = torch.cat([store.codes[store.pairs(number, 100)] for number in range(8)])  # [800, 2, 16]
    usable = codes[:, :, ::2].isfinite().all(dim=1)  # known of both
    assert (usable.sum(dim=1) == 1).all() and usable.sum(dim=0).min() > 60
    _, mixtures = labelled.mixed(torch.zeros(800, 2, 3, 4, 4, dtype=torch.uint8), codes, 0)
    loss = own.code_losses(torch.zeros(800, 16), mixtures, groups).sum(dim=1).mean()
    assert loss == pytest.approx(8 * math.log(2), rel=1e-4)  # what it is where all eight are known of each image


def test_labelled_images_are_read_when_they_are_drawn(data, labels):
    images = ImageFolderDataset(str(data))
    for most, kept in ((labelled._KEPT_BYTES, 30), (4 * 3 * 16 * 16, 4)):
        store, _ = store_of(images, labels)
        store._room = most
        assert not store._kept
        found, _ = store.draw(0, 16)
        assert found.device.type == "cpu" and found.dtype == torch.uint8
        assert torch.equal(found.flatten(0, 1), store.read(store.pairs(0, 16).flat))
        store.read(range(30))
        assert len(store._kept) == kept
        everything = {image.tobytes() for image in store.read(range(30)).numpy()}
        assert everything == {images[i][0].tobytes() for i in range(0, 60, 2)}


def test_the_atlas_has_cards_for_names():
    G = generator("named", NAMED)
    entries = make_atlas(G, seeds=[0, 1])
    named = {str(entry.address): entry for entry in entries if isinstance(entry.address, Name)}
    assert list(sorted(named)) == ["glasses", "hair long", "hair short", "tilt"]
    assert len(entries) == 4 + sum(subspace.dims for subspace in G.subspaces().values())
    ws = ws_of_seeds(G, [0, 1])
    low, high = (render(G, ws, {"tilt": end}, noise_mode="const") for end in (-1.5, 2.0))
    assert named["tilt"].effect == pytest.approx((high - low).abs().mean().item(), rel=1e-4)
    text = page(entries, [0, 1], "")
    assert "a coordinate of its own, + is long" in text and "with a name" in text


def test_directions_found_later_stand_beside_the_coordinates():
    G = generator("named", NAMED)
    offsets = {(1, 0): torch.tensor([0.5, 0, 0, 0, 0, 0.0])}
    found = [NamedDirection(name, offsets, -2, 2, source="a test") for name in ("tilt", "size")]
    both = with_named(G, found)
    assert list(both.named_offsets()) == [*G.named_offsets(), "tilt (found)", "size"]
    assert list(with_named(both, found[1:]).named_offsets()) == list(both.named_offsets())
    assert torch.equal(both.named_offsets()["size"][1, 0], offsets[1, 0])
    z = torch.randn(2, G.z_dim)
    assert torch.equal(both(z, None), G(z, None))


@pytest.mark.parametrize(
    "group",
    [
        dict(name="a", size=10**9),
        dict(name="a", size=1, quantiles=[1]),
        dict(size=1),
        dict(name="a", values=["x"], shares=[1]),
    ],
)
def test_groups_that_are_none_are_refused(group):
    with pytest.raises(ValueError, match="own coordinates need a name"):
        OwnCoordinates([group])
