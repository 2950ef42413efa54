"""Attributes of images, and the metrics that need them: separability, purity, path length as published, subspaces."""

import json
import math

import numpy as np
import planted
import pytest
import torch
from test_calc_metrics import calc, lines, run_dir  # noqa: F401 (a fixture)

from helpers import make_dataset, run
from segan_ext.metrics import attributes, purity, selectivity, separability, subspaces
from segan_ext.networks import SEGANGenerator
from training.dataset import ImageFolderDataset

NARROW = dict(mapping_kwargs=dict(num_layers=1), synthesis_kwargs=dict(channel_base=128, channel_max=8))


class LinearGenerator(planted.PlantedGenerator):
    """Eight numbers an image, the coordinates themselves, mixed"""

    def synthesis(self, ws, noise_mode="const"):
        driving = torch.stack([ws[:, 0, d] for d in range(self.w_dim)], dim=1)
        for i, (address, names) in enumerate(planted.PLANTS.items()):
            dims = [list(planted.VALUES).index(name) for name in names]
            driving[:, dims] = self.subspaces()[address](ws[:, i])[:, dims]
        return self.mixing(driving)[:, None, None]


def numbers(images):
    return {name: images[:, 0, :, i] for i, name in enumerate(planted.VALUES)}


def test_purity_of_known_directions():
    alone = purity.measure(LinearGenerator(), numbers, samples=2)
    assert len(alone) == 4 * 8 and purity.overall(alone) == pytest.approx(1)
    moving = {(p.address.layer, p.attribute): p for p in alone if p.strength > 0}
    assert set(moving) == {(address, name) for address, names in planted.PLANTS.items() for name in names}
    assert all(p.strength == pytest.approx(4, rel=0.15) for p in moving.values())  # from −2σ to +2σ
    assert purity.by_subspace(alone) == pytest.approx(dict.fromkeys(planted.PLANTS, 1))

    def turned(c):  # each pair of neighbours by 45 degrees
        a, b = c[:, 0::2], c[:, 1::2]
        return torch.stack([a + b, a - b], dim=2).flatten(1) / math.sqrt(2)

    assert purity.overall(purity.measure(LinearGenerator(mixing=turned), numbers, samples=2)) == pytest.approx(0.5, 0.1)
    assert purity.overall([]) == 0


class Numbers:
    """A predictor that reads the coordinates off a `LinearGenerator`'s images"""

    attributes = [attributes.Attribute(name) for name in planted.VALUES]
    scores, deviations = staticmethod(numbers), dict.fromkeys(planted.VALUES, 1.0)

    def reliable(self):
        return list(planted.VALUES)


def test_selectivity_of_known_directions():
    """Perfect directions score 1, turned ones what chance scores, folded ones lie between."""

    def scored(mixing=lambda c: c):
        ruler = selectivity.Ruler(LinearGenerator(mixing=mixing), Numbers())
        return ruler, selectivity.measure(ruler, selectivity.own_candidates(ruler.G))

    ruler, perfect = scored()
    assert perfect.selectivity == pytest.approx(1) and perfect.dependency == pytest.approx(0, abs=1e-5)
    assert perfect.selectivity_interval == pytest.approx((1, 1)) and perfect.worst.selectivity == pytest.approx(1)
    planted_at = {n: f"L{L}.N{N}.D{list(planted.VALUES).index(n)}" for (L, N), ns in planted.PLANTS.items() for n in ns}
    assert {score.attribute: score.direction for score in perfect.scores} == planted_at
    assert all(score.effect == pytest.approx(2 * score.step, rel=0.1) for score in perfect.scores)

    turned_ruler, turned = scored(planted.mixed)
    by_chance = [x.selectivity for x in selectivity.chance(turned_ruler, rotations=5)]
    assert turned.selectivity <= sum(by_chance) / 5 + 0.05
    assert selectivity.z_score(perfect.selectivity, by_chance) > 100
    folded = scored(planted.folded)[1]
    assert turned.selectivity < folded.selectivity < perfect.selectivity
    nothing = selectivity.measure(ruler, selectivity.own_candidates(ruler.G), steps=[0.1])
    assert nothing.selectivity == 0 and nothing.dependency == 1 and nothing.scores[0].direction == ""


def dropped(c):
    """The last attribute hardly varies, and moves with all coordinates"""
    return torch.cat([c[:, :7], 1e-4 * c.sum(dim=1, keepdim=True)], dim=1)


def test_what_hardly_varies_swamps_no_score():
    G, last = LinearGenerator(mixing=dropped), list(planted.VALUES)[-1]
    found = selectivity.measure(selectivity.Ruler(G, Numbers()), selectivity.own_candidates(G))
    assert [score.selectivity for score in found.scores] == pytest.approx([1] * 7 + [0])
    assert found.scores[-1].direction == "" and all(score.leaks[last] == 0 for score in found.scores[:7])
    predict = attributes.Predictor(Numbers.attributes, lambda x: x[:, 0, 0] - 127.5, deviations=Numbers.deviations)
    pure = purity.measure(LinearGenerator(mixing=lambda c: dropped(c) / 127.5), predict, samples=2)
    assert last not in pure[0].effects and purity.overall(pure) == pytest.approx(1)


def test_hardly_varying_is_told_by_what_it_does_over_data():
    x = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    assert attributes.hardly_varies(0.05 * x, 1.0) and not attributes.hardly_varies(0.2 * x, 1.0)
    assert attributes.hardly_varies(0.5 * x - 8) and not attributes.hardly_varies(4 * x - 8)  # logits of a classifier
    assert attributes.hardly_varies(torch.zeros(5, 2)) and not attributes.hardly_varies(0.05 * x)
    score = lambda likely: attributes._certainties(torch.stack([likely, 1 - likely], dim=1).log())
    assert attributes.hardly_varies(score(0.001 + 0.001 * torch.rand(500)))
    assert not attributes.hardly_varies(score((torch.arange(500) % 50 == 0) * 0.99 + 0.005))


def test_predictors_on_disk(tmp_path):
    known = [attributes.Attribute("hair", ("long", "short")), attributes.Attribute("tilt")]
    made = attributes.Predictor(
        known, attributes.AttributeNetwork(16, 3, 3).eval(), dict(hair=0.9, tilt=0.4), "avatars"
    )
    attributes.save_predictor(made, tmp_path / "p.safetensors", half=True)
    read = attributes.open_predictor(tmp_path / "p.safetensors")
    assert read.attributes == known and read.skill == made.skill and read.name == "avatars"
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(read(images)["hair"], made(images)["hair"], rtol=1e-2, atol=1e-2)
    scores = made.scores(images)["hair"]
    assert scores.sum(dim=1).abs().max() < 1e-5 and scores.abs().max() < math.log(99)
    (tmp_path / "p.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no attributes"):
        attributes.open_predictor(tmp_path / "p.safetensors")


def test_separability_of_known_latents():
    z = np.random.RandomState(0).randn(2000, 6)
    certain = lambda x: 1 / (1 + np.exp(-4 * x))
    separable, entropies = separability.score(z, {"a": certain(z[:, 0]), "b": certain(z[:, 1] + z[:, 2])})
    assert separable == pytest.approx(1, abs=0.05) and list(entropies) == ["a", "b"]
    folded = separability.score(z, {"a": certain(z[:, 0] * np.sign(z[:, 1]))})[0]
    assert folded == pytest.approx(2, abs=0.05)  # exp(H) of a fair coin
    assert separability.score(z, {"never": np.full(2000, 0.01)})[0] == 1


def test_state_of_subspaces():
    G = SEGANGenerator(8, 0, 8, 16, 3, **NARROW, mode=2).eval().requires_grad_(False)
    states = subspaces.subspace_states(G)
    assert len(states) == 8 and all(s.dims == 8 and s.orthogonality < 1e-5 for s in states.values())
    assert all(s.effective_rank == pytest.approx(8) for s in states.values())
    G.subspaces()[2, 1].U.mul_(2)
    G.subspaces()[2, 1].L[2:] = 0
    state = subspaces.subspace_states(G)[2, 1]
    assert state.orthogonality == pytest.approx(3, rel=1e-4) and state.effective_rank == pytest.approx(2)
    G = SEGANGenerator(8, 0, 8, 16, 3, **NARROW, mode=3)
    assert subspaces.subspace_states(G)[0, 0].orthogonality is None


def test_what_is_known_of_a_data_set(tmp_path):
    data = ImageFolderDataset(str(make_dataset(tmp_path / "classes.zip", labels="classes")), use_labels=True)
    known, rows = attributes.known_attributes(data)
    assert known == [attributes.Attribute("label", ("0", "1", "2"))] and rows[:4, 0].tolist() == [0, 1, 2, 0]
    factors = dict(names=["tilt", "hair", "same"], kinds=[], values=dict(hair=["long", "short"], same=["x", "y"]))
    factors["items"] = [[i, int(i > 3), 1] for i in range(40)]
    extra = {"dataset.json": json.dumps(dict(labels=None, factors=factors))}
    data = ImageFolderDataset(str(make_dataset(tmp_path / "factors.zip", extra=extra)), use_labels=True)
    known, rows = attributes.known_attributes(data)
    assert known == [attributes.Attribute("tilt"), attributes.Attribute("hair", ("short", "long"))]
    assert rows[:, 0].mean().item() == pytest.approx(0, abs=1e-9) and rows[:5, 1].tolist() == [1, 1, 1, 1, 0]
    with pytest.raises(ValueError, match="has no known attributes: .* avatars"):
        attributes.open_predictor(str(make_dataset(tmp_path / "nothing.zip")))


@pytest.mark.slow
def test_a_predictor_is_learned_once(tmp_path, monkeypatch):
    """A disc's brightness can be told from its picture, the class of its number cannot."""
    import dnnlib

    monkeypatch.setattr(dnnlib.util, "_cache_dir", str(tmp_path))
    monkeypatch.setattr(attributes, "_KIMG", 2)
    folder = make_dataset(tmp_path / "discs", count=200)
    bright = [float(ImageFolderDataset(str(folder))[i][0].mean()) for i in range(200)]
    factors = dict(names=["light", "chance"], kinds=[], values=dict(chance=["a", "b"]))
    factors["items"] = [[value, int(np.random.RandomState(i).randint(2))] for i, value in enumerate(bright)]
    (folder / "dataset.json").write_text(json.dumps(dict(labels=None, factors=factors)))
    first = attributes.open_predictor(str(folder), progress=False)
    assert first.skill["light"] > 0.7 and first.reliable() == ["light"]
    monkeypatch.setattr(attributes, "train", lambda *_args, **_kwargs: pytest.fail("learned again"))
    again = attributes.open_predictor(str(folder))
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    assert all(torch.equal(a, b) for a, b in zip(first(images).values(), again(images).values()))
    assert first(images)["chance"].sum(dim=1).tolist() == pytest.approx([1] * 3)
    assert torch.isfinite(first(torch.rand(2, 3, 32, 32))["light"]).all()  # another size


@pytest.mark.slow
def test_metrics_with_a_classifier(run_dir, tmp_path):  # noqa: F811
    class Classifier(torch.nn.Module):
        def forward(self, img):
            means = img.to(torch.float32).mean(dim=[2, 3]) / 127.5 - 1
            return means[:, :2] * 10

    torch.jit.script(Classifier()).save(str(tmp_path / "colours.pt"))
    (tmp_path / "colours.json").write_text('["red", "green"]')
    args = [
        "--metrics=ls,purity,subspaces,ppl_segan,selectivity,disentanglement",
        f"--attributes={tmp_path / 'colours.pt'}",
    ]
    args += ["--num-gen=24", "--detector=pixel-pyramid"]
    done = calc(run_dir, *args, script="-m segan_ext calc_metrics")
    ls, purities, states, ppl, alone, entropies = (line["results"] for line in lines(done))
    assert set(ls) == {"ls_z_n24", "ls_w_n24"} and ls["ls_z_n24"] >= 1
    assert 0.5 <= purities["purity_n24"] <= 1
    assert states["subspaces_deviation"] < 1e-5 and states["subspaces_rank"] == pytest.approx(8)
    assert ppl["ppl_segan_pixel-pyramid_n24"] > 0
    assert 0 <= alone["selectivity_worst_n24"] <= alone["selectivity_n24"] <= 1
    assert alone["selectivity_z_n24"] < 10 and 0 <= alone["selectivity_chance_n24"] <= 1  # it is untrained
    assert 0 <= entropies["disentanglement_n24"] <= 1 and 0 <= entropies["completeness_n24"] <= 1
    protocol = lines(done)[1]["protocol"]
    assert protocol["attributes"] == "colours" and protocol["attribute_names"] == ["red", "green"]
    details = json.loads((run_dir / "metric-purity_n24-details.json").read_text())["details"]
    assert len(details) == 8 + 8 * 8 and details["L0.N0.D0"]["attribute"] in ("red", "green")

    (tmp_path / "colours.json").write_text('["red"]')
    bad = calc(run_dir, *args[:2], script="-m segan_ext calc_metrics", check=False)
    assert bad.returncode == 2 and "has 2 outputs; the list in its JSON names 1" in bad.stderr


@pytest.mark.slow
def test_training_computes_them(tmp_path):
    data = make_dataset(tmp_path / "discs.zip", labels="classes")
    args = ["--channels=8", "--channel-base=128", "--batch=8", "--grid=2x2", "--workers=0", "--kimg=1", "--cond=1"]
    args += ["--metrics=subspaces,fid50k_full,ppl_segan", "--detector=pixel-pyramid", "--num-gen=16"]
    done = run("train_segan.py", f"--data={data}", f"--outdir={tmp_path}", *args)
    (run_dir,) = (path for path in tmp_path.iterdir() if path.is_dir())  # noqa: F811
    assert "fid50k_full could not be computed: this metric needs a detector for features" in done.stdout
    for name in ("subspaces", "ppl_segan_pixel-pyramid_n16"):
        first, *more = map(json.loads, (run_dir / f"metric-{name}.jsonl").read_text().splitlines())
        assert (
            more and first["snapshot_pkl"] == "network-snapshot-000000.pkl" and first["results"] != more[-1]["results"]
        )


@pytest.mark.slow
def test_avatars_with_known_factors():
    """Purity and separability tell independent factors from mixed and folded ones."""
    predictor = planted.learned_predictor()
    known, names = predictor.attributes, predictor.reliable()
    assert len(names) == len(planted.VALUES)

    def both(mixing):
        G = planted.PlantedGenerator(32, mixing)
        z = torch.randn(600, G.z_dim, generator=torch.Generator().manual_seed(0))
        images = torch.cat([G(part) for part in z.split(100)])
        questions = separability.binary_attributes(predictor(images), [a for a in known if a.name in names])
        found = purity.measure(G, predictor, names, samples=3)
        return purity.overall(found), separability.score(z.numpy(), questions)[0], found

    pure, separable, found = both(lambda c: c)
    assert pure > 0.5 and separable < 8
    assert pure > 1.8 * both(planted.mixed)[0]
    assert 10 * separable < both(planted.folded)[1]
    strongest = sorted(found, key=lambda p: -p.strength)[: len(names)]
    assert {(p.address.layer, p.attribute) for p in strongest} == {
        (address, name) for address, planted_names in planted.PLANTS.items() for name in planted_names
    }
