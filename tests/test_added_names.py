"""Names for trained networks: nothing changes at first, and what was there stays."""

import json
import re

import numpy as np
import pytest
import torch

from helpers import make_dataset, run
from segan_ext.added_names import discriminator_with_names, generator_with_names
from segan_ext.encoder import EncoderDiscriminator
from segan_ext.networks import SEGANGenerator
from snapshots.load import load_snapshot
from training import networks

SIZES = (8, 0, 8, 16, 3, dict(num_layers=2), dict(channel_base=128, channel_max=8))
NEW = [
    dict(name="kind", values=["a", "b", "c"], shares=[0.2, 0.3, 0.5]),
    dict(name="size", size=1, quantiles=[-1.5, 0.0, 1.5], unit=[0.0, 1.0]),
]


def trained(G):
    """G with weights that are not those of the beginning"""
    generator = torch.Generator().manual_seed(0)
    for p in G.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return G.eval().requires_grad_(False)


def images(G, seed, **kwargs):
    z = torch.from_numpy(np.random.RandomState(seed).randn(1, G.z_dim)).float()  # as generate.py draws them
    return G(z, None, noise_mode="const", **kwargs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: networks.Generator(*SIZES),
        lambda: SEGANGenerator(*SIZES, mode=0),
        lambda: SEGANGenerator(*SIZES, mode=2),
        lambda: SEGANGenerator(*SIZES, mode=2, subspace_dim=3),
        lambda: SEGANGenerator(*SIZES, mode=2, trained="subspace"),
        lambda: SEGANGenerator(*SIZES, mode=3),
        lambda: generator_with_names(networks.Generator(*SIZES), NEW[:1]),
        lambda: SEGANGenerator(9, 0, 10, *SIZES[3:], mode="named", own=[dict(NEW[1], name="x", size=1)]),
    ],
    ids=["plain", "0", "2", "residual", "frozen", "3", "named", "bottleneck"],
)
def test_images_stay_as_they_are(make):
    G = trained(make())
    new = NEW[1:] if "kind" in str(G.init_kwargs.get("own")) else NEW
    made = generator_with_names(G, new)
    assert made.mode == "named" and made.init_kwargs["own"][-1]["name"] == "size"
    exact = G.__class__ is networks.Generator or G.mode in (0, "named")
    for seed, psi in ((0, 1), (3, 1), (3, 0.5)):
        before, after = (images(each, seed, truncation_psi=psi) for each in (G, made))
        assert torch.equal(before, after) if exact else torch.allclose(before, after, atol=1e-4 * before.abs().max())
    known = getattr(G, "named_offsets", dict)()
    for name in known:  # they move what they moved
        moved = []
        for each in (G, made):
            with each.edited(offsets=each.named_offsets()[name]):
                moved.append(images(each, 3))
        assert torch.allclose(*moved, atol=1e-5)
        known[name] = not torch.allclose(moved[0], images(G, 3), atol=1e-3)
    assert any(known.values()) or not known


def test_new_names_can_be_learned():
    made = generator_with_names(trained(networks.Generator(*SIZES)), NEW).requires_grad_()
    importances = [subspace.L for subspace in made.subspaces().values()]
    assert not any(L.any() for L in importances)
    made(torch.randn(4, made.z_dim), None).square().sum().backward()
    assert all(L.grad.any() for L in importances)


def test_directions_of_new_names_stand_apart_from_the_old():
    made = generator_with_names(generator_with_names(trained(networks.Generator(*SIZES)), NEW[:1]), NEW[1:])
    for subspace in made.subspaces().values():
        gram = subspace.basis().t() @ subspace.basis()
        assert torch.allclose(gram, torch.eye(4), atol=1e-4)


def test_a_discriminator_learns_to_read_more():
    D = networks.Discriminator(0, 16, 3, channel_base=128, channel_max=8)
    three = discriminator_with_names(D, 3)
    torch.nn.init.normal_(three.b4.projection_out.weight)
    five, img = discriminator_with_names(three, 5), torch.randn(4, 3, 16, 16)
    assert torch.allclose(D(img, None), five(img, None)) and isinstance(five, EncoderDiscriminator)
    (_, read, projection), (_, more, wider) = (each(img, None, codes=True) for each in (three, five))
    assert torch.allclose(read, more[:, :3], atol=1e-6) and torch.allclose(projection, wider[:, :3], atol=1e-6)
    assert more.shape == (4, 5) and not wider[:, 3:].any()


def test_what_cannot_be_given_names_says_so():
    with pytest.raises(ValueError, match="SEGANGenerator of mode 1 cannot be given names; take one of mode 0, 2, 3"):
        generator_with_names(SEGANGenerator(*SIZES, mode=1), NEW)
    with pytest.raises(ValueError, match="a Linear cannot be given an encoder"):
        discriminator_with_names(torch.nn.Linear(1, 1), 3)


# ---------------------------------------------------------------------------------------------------------------------
# From the command line

NARROW = ["--channels=8", "--channel-base=128", "--batch=8", "--kimg=1", "--workers=0", "--grid=2x2"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """(folder, run of mode 0, run with the name kind), on pictures whose labels lie in kind.csv and size.csv"""
    folder = tmp_path_factory.mktemp("begun")
    data = make_dataset(folder / "discs.zip", count=60)
    names = [f"00000/img{i:08d}.png" for i in range(60)]
    for column, cells in (("kind", ["a", "b"] * 30), ("size", [str(i % 7) for i in range(60)])):
        lines = [f"{name},{cell}" for name, cell in zip(names, cells)]
        (folder / f"{column}.csv").write_text("\n".join([f"image,{column}", *lines]))
    common = [f"--data={data}", *NARROW, f"--outdir={folder / 'runs'}"]
    run("train_segan.py", "--cfg=segan-fast", "--mode=0", *common)
    run("train_segan.py", "--cfg=segan-named", f"--labels={folder / 'kind.csv'}", *common)
    return folder, *sorted((folder / "runs").iterdir())


def last_run(folder):
    return max((folder / "runs").iterdir())


def same_first_images(before, run_dir):
    """Whether a run began with the images of a snapshot"""
    G = load_snapshot(str(before))["G_ema"]
    D = load_snapshot(str(run_dir / "network-snapshot-000000.pkl"))["G_ema"]
    return torch.equal(images(G, 5), images(D, 5))


def test_a_plain_network_gets_names(begun):
    folder, plain, _ = begun
    snapshot = max(plain.glob("*.pkl"))
    done = run(
        "train_segan.py",
        f"--resume={snapshot}",
        f"--labels={folder / 'kind.csv'}",  # --cfg need not be said
        f"--data={folder / 'discs.zip'}",
        *[option for option in NARROW if "channel" not in option],
        f"--outdir={folder / 'runs'}",
    )
    assert "gets coordinates for kind; at first its images stay as they are" in done.stdout
    options = json.loads((last_run(folder) / "training_options.json").read_text())
    assert [group["name"] for group in options["G_kwargs"]["own"]] == ["kind"]
    G = load_snapshot(str(max(last_run(folder).glob("*.pkl"))))["G_ema"]
    assert G.mode == "named" and any(subspace.L.any() for subspace in G.subspaces().values())


def test_a_run_gets_more_names_and_keeps_its_labels(begun):
    folder, _, named = begun
    done = run(
        "train_segan.py",
        f"--resume={named}",
        f"--labels={folder / 'size.csv'}",
        *[option for option in NARROW if "channel" not in option],
        f"--outdir={folder / 'runs'}",
    )
    assert re.search(r"A new run begins from \S+network-snapshot-000001.pkl: the labels are others", done.stdout)
    assert "kind: as the run of --resume has it of 60 images" in done.stdout
    labels = json.loads((last_run(folder) / "labels.json").read_text())["labels"]
    assert (
        labels["kind"] == json.loads((named / "labels.json").read_text())["labels"]["kind"]
        and len(labels["size"]) == 60
    )
    G = load_snapshot(str(max(last_run(folder).glob("*.pkl"))))["G_ema"]
    assert list(G.named_offsets()) == ["kind", "size"]


def test_a_snapshot_without_its_labels_asks_for_them(begun, tmp_path):
    folder, _, named = begun
    copy = tmp_path / "network.pkl"
    copy.write_bytes(max(named.glob("*.pkl")).read_bytes())
    asked = [f"--resume={copy}", f"--labels={folder / 'size.csv'}", f"--data={folder / 'discs.zip'}", *NARROW]
    done = run("train_segan.py", *asked, f"--outdir={tmp_path / 'runs'}", check=False)
    assert done.returncode == 2 and "nothing is said of kind, which the generator of --resume has" in done.stderr
    assert not (tmp_path / "runs").exists()
