"""Coordinates of one's own: what they follow, where they act, what edits do to them, and training them with names."""

import csv

import pytest
import torch

from helpers import TINY, make_dataset, newest, only_run, read_stats, run, slowly
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
from snapshots.load import load_generator
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
    expected = torch.stack([first, entropy(predicted[1, 1:4], torch.tensor(0))])
    found = own.code_loss(predicted, codes, NAMED)
    assert torch.allclose(found, expected)
    (grad,) = torch.autograd.grad(found.sum(), predicted)
    assert grad.isfinite().all() and not grad[1, [0, 4, 5]].any()  # nothing was said of those


def test_the_encoder_leaves_the_logits_alone():
    narrow = dict(channel_base=128, channel_max=8)
    D, plain = EncoderDiscriminator(0, 16, 3, **narrow, codes=5), Discriminator(0, 16, 3, **narrow)
    missing, unexpected = plain.load_state_dict(D.state_dict(), strict=False)
    assert not missing and all(name.startswith("b4.codes") for name in unexpected)
    img = torch.randn(8, 3, 16, 16)
    logits, codes = D(img, None, codes=True)
    assert torch.equal(logits, plain(img, None)) and torch.equal(logits, D(img, None)) and codes.shape == (8, 5)
    assert torch.allclose(codes[3:4], D(img[3:4], None, codes=True)[1], atol=1e-5)  # of one image, not of the batch


def test_coordinates_are_made_from_labels():
    attributes = [Attribute("size"), Attribute("kind", ("a", "b", "c"))]
    rows = torch.stack(
        [torch.linspace(-1, 3, 101).double(), torch.tensor([0.0] * 60 + [1.0] * 40 + [torch.nan])], dim=1
    )
    size, kind = labelled.named_coordinates(attributes, rows)
    assert size["quantiles"][0] == -1 and size["quantiles"][-1] == 3 and size["quantiles"][8] == 1
    assert kind["shares"] == [0.5922, 0.3981, 0.0097]  # a value of no image is rare, but possible


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
    assert ("Loss/D/labels" in stats) == (mode == "named") and ("Loss/D/codes" in stats) == (mode == "eigen")
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
    given = started(mode, data, labels)
    run("train_segan.py", *given, "--kimg=2", f"--outdir={tmp_path / 'whole'}")
    run("train_segan.py", *given, f"--outdir={tmp_path / 'parts'}")
    run("train_segan.py", "--resume=latest", "--kimg=2", f"--outdir={tmp_path / 'parts'}")
    states = [state.read(str(newest(only_run(tmp_path / part), "training-state-*.pt"))) for part in ("whole", "parts")]
    whole, parts = ({f"{kind} {n}": v for kind in ("loss", "modules") for n, v in flat(s[kind])} for s in states)
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


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


def test_the_skill_of_names_is_measured_on_what_was_never_drawn(data, labels):
    store = labelled.open_images(str(data), str(labels), None, "cpu")
    assert len(store) == 30 and store.held_out == 0  # too few to spare any
    cells = [
        [name, i / 60, "yes" if i % 3 else "no"] for i, name in enumerate(ImageFolderDataset(str(data)).image_names())
    ]
    more = labelled.open_images(str(data), str(label(labels.with_name("more.csv"), cells)), None, "cpu")
    assert len(more) == 60 and more.held_out == 6
    codes = more.codes.clone()
    more.codes[:6] = torch.nan
    images, drawn = more.draw(500, noise=0)
    assert drawn.isfinite().all() and images.abs().max() <= 1
    more.images = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(60, 3, 4, 4)
    more.codes = torch.arange(60.0)[:, None]
    images, drawn = more.draw(500, noise=0)
    torch.testing.assert_close(images, (drawn / 127.5 - 1)[:, :, None, None].expand(500, 3, 4, 4))
    assert len(drawn.unique()) > 400 and drawn.min() >= 6  # mixtures of what is not kept
    groups = [dict(name="bright", size=1), dict(name="round", values=["no", "yes"], shares=[0.5, 0.5])]
    assert own.skills(codes, codes, groups) == {"bright": 1, "round": 1}
    dull = torch.cat([torch.zeros(60, 1), torch.tensor([[0.0, 1]]).expand(60, 2)], dim=1)
    assert own.skills(dull, codes, groups) == pytest.approx({"bright": 0, "round": 0}, abs=1e-4)


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
