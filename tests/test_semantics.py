"""Linear semantics of a tiny generator whose classes are thresholds of brightness."""

import json
import pickle
import re
import shutil
import zipfile

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from helpers import run, write_segmenter
from segan_ext.cli import main
from segan_ext.control.address import Address
from segan_ext.control.sweep import sweep
from segan_ext.data.avatars import make_avatars
from segan_ext.latents import coordinate_sigmas, draw_ws, ws_from_z, ws_of_seeds
from segan_ext.layers import FeatureHooks
from segan_ext.networks import SEGANGenerator
from segan_ext.semantics import annotations, closed_form, evaluation, painting, regions, sampling, segmenters, training
from segan_ext.semantics.class_effects import ClassEffects, most_moved
from segan_ext.semantics.extractors import IGNORED, KINDS, LSE, NSE2, open_extractor, resize, save_extractor
from segan_ext.semantics.few_shot import train_few_shot
from segan_ext.semantics.iou import Scores
from segan_ext.web import engine
from test_segan_networks import build, randomise
from training import networks
from training.latents import seed_latents

CLASSES = ("background", "bright", "dark")


def brightness(images):
    """Logits of CLASSES"""
    grey = images.mean(dim=1, keepdim=True) / 64 - 2
    return torch.cat([0 * grey, grey - 0.5, -grey - 0.5], dim=1)


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    return randomise(build(mode=2))


@pytest.fixture(scope="module")
def segmenter():
    return segmenters.Segmenter(brightness, CLASSES, "brightness")


@pytest.fixture(scope="module")
def linear(G, segmenter):
    return closed_form.fit(G, segmenter, samples=150, progress=False)


# ---------------------------------------------------------------------------------------------------------------------
# Features and extractors


def test_taps_are_the_outputs_of_the_convolutions(G):
    ws = draw_ws(G, 2)
    images, features = FeatureHooks(G)(ws, noise_mode="const")
    assert torch.equal(images, G.synthesis(ws, noise_mode="const"))
    names = [f"b{r}.{name}" for r in G.synthesis.block_resolutions for name in ("conv0", "conv1")][1:]
    assert list(FeatureHooks(G).names) == names and [x.shape[1] for x in features] == list(FeatureHooks(G).channels)
    assert [x.shape[-1] for x in features] == list(FeatureHooks(G).resolutions)
    seen = []
    handle = G.synthesis.b8.conv0.register_forward_hook(lambda _layer, _args, y: seen.append(y))
    one = FeatureHooks(G, ["b8.conv0"])(ws, noise_mode="const")[1]
    handle.remove()
    assert torch.equal(one[0], seen[0]) and not G.synthesis.b8.conv0._forward_hooks
    with pytest.raises(ValueError, match="no layer b7"):
        FeatureHooks(G, ["b7"])


def test_latents(G):
    torch.testing.assert_close(draw_ws(G, 2, seed=5)[1], draw_ws(G, 1, seed=6)[0])
    z = seed_latents(G, [5], "cpu").float()
    torch.testing.assert_close(ws_from_z(G, z[:, None].repeat(1, G.num_ws, 1)), ws_from_z(G, z))
    mixed = draw_ws(G, 1, latents="notrunc-mixwp")[0]
    assert len({tuple(w.tolist()) for w in mixed}) == G.num_ws
    with pytest.raises(ValueError, match="latents must be one of"):
        draw_ws(G, 1, latents="w")


def test_lse_is_one_matrix_on_the_concatenated_features(G):
    extractor = LSE.of(G, CLASSES)
    features = FeatureHooks(G)(draw_ws(G, 2), noise_mode="const")[1]
    size = features[-1].shape[-1]
    assert extractor.weights().tolist() == pytest.approx([1 / len(features)] * len(features))
    matrix = torch.cat([a * layer.weight[:, :, 0, 0] for a, layer in zip(extractor.weights(), extractor.maps)], dim=1)
    x = torch.cat([resize(y, size) for y in features], dim=1)
    torch.testing.assert_close(extractor(features), torch.einsum("kc,nchw->nkhw", matrix, x), rtol=1e-4, atol=1e-4)
    layers = extractor.layer_logits(features, size)
    total = sum(a * y for a, y in zip(extractor.weights(), layers))
    torch.testing.assert_close(extractor(features), total, rtol=1e-4, atol=1e-4)


def test_published_sizes():
    channels = [512] * 9 + [256, 256, 128, 128, 64, 64, 32, 32]  # StyleGAN2 at 1024²
    layers, classes = [f"layer{i}" for i in range(17)], [f"class{i}" for i in range(15)]
    count = lambda extractor: sum(p.numel() for name, p in extractor.named_parameters() if name != "raw_weights")
    with torch.device("meta"):
        assert count(LSE(layers, channels, classes)) == 5568 * 15
        nse1 = KINDS["NSE-1"](layers, channels, classes)
        assert count(nse1) == pytest.approx(2.03e6, rel=0.01)
        assert count(NSE2(layers, channels, classes)) == pytest.approx(44.0e6, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_extractors_are_saved_and_opened(kind, G, tmp_path):
    features = FeatureHooks(G)(draw_ws(G, 2), noise_mode="const")[1]
    options = dict(layer_weights="sigmoid") if kind != "NSE-2" else {}
    extractor = KINDS[kind].of(G, CLASSES, **options)
    path = tmp_path / "sub" / "e.safetensors"
    save_extractor(path, extractor, note="test")
    opened = open_extractor(path, G)
    assert opened.classes == CLASSES and torch.equal(opened(features, 8), extractor(features, 8))
    assert opened(features).shape == (2, 3, G.img_resolution, G.img_resolution)
    with pytest.raises(ValueError, match="other widths"):
        open_extractor(
            path, SEGANGenerator(8, 0, 8, 32, 3, synthesis_kwargs=dict(channel_base=256, channel_max=8), mode=0)
        )
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="no extractor"):
        open_extractor(path)
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no extractor"):
        open_extractor(path, G)


def test_classes_are_checked(G):
    with pytest.raises(ValueError, match="two different classes"):
        LSE.of(G, ["background"])
    with pytest.raises(ValueError, match="layer_weights"):
        LSE.of(G, CLASSES, layer_weights="max")


# ---------------------------------------------------------------------------------------------------------------------
# Scores


def test_scores_by_hand():
    reference = torch.tensor([[[0, 1], [1, 2]], [[0, 0], [0, 1]]])
    predicted = torch.tensor([[[0, 1], [2, 2]], [[0, 0], [0, 0]]])
    scores = Scores(4)
    scores.add(predicted, reference)
    table = scores.table(["background", "a", "b", "never"])
    assert table.ious["a"] == pytest.approx((1 / 2 + 0) / 2)  # absent from one of the two counts as 0
    assert table.ious["b"] == pytest.approx(1 / 2) and table.ious["never"] is None
    assert table.mean_iou == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert table.pooled["a"] == pytest.approx(1 / 3) and table.accuracy == pytest.approx(6 / 8)
    unlabelled = reference.clone()
    unlabelled[1, 1, 1] = IGNORED
    scores = Scores(4)
    scores.add(predicted, unlabelled, ignored=IGNORED)
    assert scores.class_ious()[1].item() == pytest.approx(1 / 2)


def test_a_perfect_extractor_scores_1(G, segmenter):
    class Copy(LSE):
        def labels(self, features, size=None):
            return self.answer

    extractor = Copy.of(G, CLASSES)
    extractor.answer = segmenter(G.synthesis(draw_ws(G, 8, 3), noise_mode="const"))
    table = evaluation.evaluate(G, [extractor], segmenter, samples=8, seed=3, progress=False)[0]
    assert table.mean_iou == table.pooled_mean_iou == table.accuracy == 1 and table.images == 8


# ---------------------------------------------------------------------------------------------------------------------
# Training


def test_closed_form_equals_the_textbook():
    torch.manual_seed(0)
    labels = torch.randint(3, [600])
    x = torch.randn(600, 5) @ torch.randn(5, 5) + 2 * torch.randn(3, 5)[labels] + 50
    moments = closed_form.Moments(3)
    for part in torch.arange(600).split(100):
        moments.add(x[part], labels[part])
    moments.add(torch.full([4, 5], 1e6), torch.full([4], IGNORED))
    weights, biases = moments.solve("lda", strength=0)
    xd = x.double()
    means = torch.stack([xd[labels == k].mean(dim=0) for k in range(3)])
    within = (xd - means[labels]).t() @ (xd - means[labels]) / 600
    precision = torch.linalg.inv(within)
    logits = xd @ precision @ means.t() - 0.5 * (means @ precision * means).sum(1) + (labels.bincount() / 600).log()
    found = x.double() @ weights.double().t() + biases.double()
    torch.testing.assert_close(found.log_softmax(1), logits.log_softmax(1), rtol=1e-3, atol=1e-2)
    weights, biases = moments.solve("ridge", strength=0)
    design = torch.cat([xd, torch.ones(600, 1, dtype=torch.float64)], dim=1)
    exact = torch.linalg.lstsq(design, torch.eye(3, dtype=torch.float64)[labels]).solution
    torch.testing.assert_close(weights.double(), exact[:-1].t(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(biases.double(), exact[-1], rtol=1e-3, atol=1e-2)


def test_places_of_closed_form_are_pixels_of_the_extractor(G, segmenter):
    features = FeatureHooks(G)(draw_ws(G, 2), noise_mode="const")[1]
    size = G.img_resolution
    labels = torch.arange(2 * size * size).reshape(2, size, size)
    x, chosen = closed_form.at_random_places(features, labels, 50, torch.Generator().manual_seed(0))
    whole = torch.cat([resize(y, size) for y in features], dim=1).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(x, whole[chosen], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_all_trainings_learn(G, segmenter, linear):
    torch.manual_seed(0)
    extractors = [kind.of(G, CLASSES) for kind in KINDS.values()]
    untrained = evaluation.evaluate(G, extractors, segmenter, samples=40, progress=False)
    training.train(G, extractors, segmenter, samples=1500, progress=False)
    few = annotations.annotate(G, segmenter, 4)
    scribbled = few._replace(labels=torch.where(torch.rand(few.labels.shape) < 0.9, IGNORED, few.labels))
    named = dict(zip(KINDS, extractors), lda=linear)
    named["few"] = train_few_shot(G, few, epochs=10, progress=False)
    named["few lda"] = closed_form.fit_annotations(G, scribbled)
    tables = evaluation.evaluate(G, list(named.values()), segmenter, samples=40, progress=False)
    tables = dict(zip(named, tables))
    for before, after in zip(untrained, tables.values()):
        assert after.accuracy > before.accuracy + 0.05
    assert tables["lda"].accuracy > 0.75 and tables["few lda"].accuracy > 0.6 and tables["few"].accuracy > 0.55
    assert "| bright |" in evaluation.markdown(tables)
    assert evaluation.draw_examples(G, named, segmenter).width > 96


def minus_log_of_the_right_class(logits, labels):
    """-ln p of every pixel that is labelled, from the definition of the softmax"""
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    labelled = labels != IGNORED
    return -p.gather(1, labels.where(labelled, 0)[:, None])[:, 0][labelled].log()


@pytest.mark.parametrize("loss", training.LOSSES)
def test_losses_are_means_over_the_labelled_pixels(loss, G, segmenter):
    torch.manual_seed(0)
    extractor = LSE.of(G, CLASSES)
    images, features = FeatureHooks(G)(draw_ws(G, 2), noise_mode="const")
    labels = segmenter(images)
    labels[:, ::2] = IGNORED
    size = labels.shape[-1]
    each = minus_log_of_the_right_class(extractor(features, size), labels)
    expected = dict(normal=each.mean(), focal=((1 - (-each).exp()) ** 2 * each).mean())
    layers = [minus_log_of_the_right_class(y, labels).mean() for y in extractor.layer_logits(features, size)]
    expected["normallayer"] = each.mean() + 0.1 * sum(layers)
    torch.testing.assert_close(training.loss_of(extractor, features, labels, loss), expected[loss])


def test_an_interrupted_training_goes_on(G, segmenter, tmp_path):
    state = str(tmp_path / "state")

    def fresh():
        torch.manual_seed(0)
        return LSE.of(G, CLASSES)

    class Interrupted:
        classes, calls = CLASSES, 0

        def __call__(self, images):
            self.calls += 1
            if self.calls > 30:
                raise KeyboardInterrupt
            return segmenter(images)

    whole = fresh()
    training.train(G, [whole], segmenter, samples=200, progress=False)
    with pytest.raises(KeyboardInterrupt):
        training.train(G, [fresh()], Interrupted(), samples=200, state_path=state, progress=False)
    resumed = fresh()
    training.train(G, [resumed], segmenter, samples=200, state_path=state, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    assert not (tmp_path / "state").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Labels


@pytest.mark.slow
def test_a_segmenter_learns_the_masks_of_avatars(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(segmenters, "_KIMG", 2)
    data = make_avatars(tmp_path / "avatars.zip", 120, 16, masks=True, workers=1, progress=False)
    learned = segmenters.open_segmenter(str(data), progress=False)
    assert learned.classes[:3] == ("background", "skin", "hair") and learned.skill > 0.15
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    again = segmenters.open_segmenter(str(data))
    assert torch.equal(again.logits(images), learned.logits(images)) and again.skill == learned.skill
    with pytest.raises(ValueError, match="does not exist"):
        segmenters.open_segmenter(str(tmp_path / "other.zip"))
    shutil.copy(data, tmp_path / "other.zip")
    with pytest.raises(ValueError, match="no masks beside it"):
        segmenters.open_segmenter(str(tmp_path / "other.zip"))


def test_segmenters_from_files(tmp_path):
    class Network(torch.nn.Module):
        def forward(self, images):
            return torch.cat([images[:, :1], images[:, 1:2]], dim=1)[:, :, ::2, ::2] / 255

    path = tmp_path / "network.pt"
    torch.jit.script(Network()).save(path)
    with pytest.raises(ValueError, match="needs the list of its classes"):
        segmenters.open_segmenter(path)
    path.with_suffix(".json").write_text('["background", "green"]')
    opened = segmenters.open_segmenter(path)
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    assert opened(images).shape == (2, 8, 8) and opened.classes == ("background", "green")
    torch.onnx.export(Network(), torch.rand(1, 3, 8, 8), tmp_path / "network.onnx", dynamo=False)
    assert torch.equal(segmenters.open_segmenter(tmp_path / "network.onnx")(images[:1]), opened(images[:1]))
    path.with_suffix(".json").write_text('["background", "green", "blue"]')
    with pytest.raises(ValueError, match="were expected"):
        segmenters.open_segmenter(path)(images)


def test_annotations_on_disk(G, segmenter, tmp_path):
    made = annotations.annotate(G, segmenter, 2, seed=7)
    annotations.write_annotations(tmp_path, made, [7, 8])
    read = annotations.read_annotations(tmp_path, G)
    torch.testing.assert_close(read.ws, made.ws)
    assert torch.equal(read.labels, made.labels) and read.classes == CLASSES
    assert read._replace(classes=(*CLASSES, "hat")).missing() == ["hat"]
    with zipfile.ZipFile(tmp_path / "work.zip", "w") as archive:  # as Finder packs a folder
        archive.writestr("__MACOSX/work/._classes.json", b"resource fork")
        for path in tmp_path.glob("*.[jp]*"):
            archive.write(path, f"work/{path.name}")
    packed = annotations.read_annotations_zip(tmp_path / "work.zip", G, most=2)
    assert packed.classes == CLASSES and torch.equal(torch.stack(list(packed.labels.values())), made.labels)
    (tmp_path / "classes.json").write_text('["background"]')
    with pytest.raises(ValueError, match="there are 1 classes"):
        annotations.read_annotations(tmp_path, G)
    (tmp_path / "annotations.json").write_text('{"format": "segan-annotations", "version": 3, "class": 0}')
    with pytest.raises(ValueError, match="of version 3; this version of SEGAN reads 2"):
        annotations.read_annotations(tmp_path, G)
    (tmp_path / "annotations.json").unlink()
    (tmp_path / "class.json").write_text("1")  # as the first version wrote it
    with pytest.raises(ValueError, match="are of class 1, which this network lacks"):
        annotations.read_annotations(tmp_path, G)


# ---------------------------------------------------------------------------------------------------------------------
# Sampling, editing, regions


def test_improved_sampling_agrees_better(G, segmenter, linear):
    target = segmenter(G.synthesis(draw_ws(G, 1, 99), noise_mode="const"))[0]
    pool = sampling.Pool(G, linear, 200)
    ours = sampling.sample(G, linear, target, 3, pool, steps=20)
    theirs = sampling.published(G, linear, target, 3, n_init=50, steps=20)
    start = pool.best(target, 3, 3)
    first = linear.labels(FeatureHooks(G)(start, noise_mode="const")[1], target.shape[-1])
    assert (ours.agreement > sampling.agreement(first, target, 3)).all()
    assert ours.agreement.mean() > theirs.agreement.mean()
    torch.testing.assert_close(G.synthesis(ours.ws, noise_mode="const"), ours.images, rtol=1e-3, atol=1e-3)
    assert torch.equal(sampling.agreement(ours.labels, target, 3), ours.agreement)
    mixed = sampling.published(G, linear, target, 2, n_init=5, steps=3, latents="mixwp")
    assert mixed.ws.shape == (2, G.num_ws, G.w_dim) and not torch.equal(mixed.ws[:, 0], mixed.ws[:, 1])


def test_diversity_is_the_mean_distance_of_two():
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4), torch.ones(3, 4, 4)])
    brightest = lambda x: x.amax(dim=[1, 2, 3])[:, None]
    assert sampling.diversity(images, brightest) == pytest.approx(2 / 3 * 127.5**2)
    assert sampling.diversity(images[:1], brightest) == 0


def test_edits_follow_label_strokes_and_stay_in_their_place(G, segmenter, linear):
    ws = draw_ws(G, 3, 50, truncation_psi=1)
    labels = segmenter(G.synthesis(ws, noise_mode="const"))
    strokes = painting.Strokes(painting.scripted_strokes(labels, 3, 3))
    done = painting.edit(G, linear, ws, strokes, steps=30)
    z = seed_latents(G, range(50, 53), "cpu").float()
    theirs = painting.published(G, linear, z, strokes, steps=30)
    torch.testing.assert_close(theirs.before, done.before, rtol=1e-3, atol=1e-3)
    before = painting._in_strokes(
        linear.labels(FeatureHooks(G)(ws, noise_mode="const")[1], G.img_resolution), strokes.labels
    )
    assert (done.agreement >= before).all() and done.agreement.mean() > before.mean()
    assert done.agreement.mean() >= theirs.agreement.mean() and done.off_region.mean() < theirs.off_region.mean() / 2
    far = done.region.mask == 0
    assert far.any() and torch.equal((done.after - done.before) * far, torch.zeros_like(done.after))


def test_colour_strokes_count(G, linear):
    ws, size = draw_ws(G, 1, 3, truncation_psi=1), G.img_resolution
    painted = torch.zeros(1, 1, size, size)
    painted[:, :, 4:10, 4:10] = 1
    before = G.synthesis(ws, noise_mode="const")
    colours = -before.mean(dim=[2, 3], keepdim=True).sign().expand_as(before) * 0.5
    strokes = painting.Strokes(torch.full([1, size, size], IGNORED), colours, painted)
    done = painting.edit(G, linear, ws, strokes, steps=30)
    distance = lambda images: ((images - colours).square() * painted).mean()
    assert distance(done.after) < 0.7 * distance(before) and done.agreement.isnan().all()
    theirs = painting.published(G, linear, seed_latents(G, [3], "cpu").float(), strokes, steps=5)
    assert distance(theirs.after) < distance(before)


def test_edits_of_subspaces_stay_inside_a_class(G, linear):
    ws = draw_ws(G, 2, 5, truncation_psi=1)
    mask = regions.class_mask(G, linear, ws, ["bright"], noise_mode="const")
    region = regions.Region(G, ws, mask)
    address = list(G.subspaces())[2]
    with G.edited(offsets={address: 3.0}):
        inside, everywhere = region.render(ws), G.synthesis(ws, noise_mode="const")
    assert torch.equal(region.render(ws), region.image)
    near = regions.grown(mask, 2)
    assert (inside - region.image)[near.expand_as(inside) == 0].abs().max() == 0
    assert (inside - region.image)[mask.expand_as(inside) == 1].abs().max() > 0.01
    assert regions.off_region_change(region.image, everywhere, mask).mean() > 1
    with pytest.raises(ValueError, match="no class 'hat'"):
        regions.class_mask(G, linear, ws, ["hat"], noise_mode="const")


def test_which_classes_a_dimension_moves(G, linear):
    ws, sigmas = ws_of_seeds(G, [0, 1]), coordinate_sigmas(G, 200)
    effects = ClassEffects(G, linear, ws, sigmas)
    moved = next(iter(sweep(G, ws, sigmas)))
    found = effects.of(moved)[0]
    assert set(found) == set(CLASSES) and sum(e.share for e in found.values()) >= 1 - 1e-5
    with G.edited(offsets={moved.layer: -2 * torch.eye(len(sigmas[moved.layer]))[0] * sigmas[moved.layer][0]}):
        low = linear.labels(FeatureHooks(G)(ws, noise_mode="const")[1], G.img_resolution)
    torch.testing.assert_close(effects._labels(moved, -1)[0], low)
    still = moved._replace(low=moved.low * 0, high=moved.high * 0)
    assert most_moved(effects.of(still)[0]) == []


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def write_network(path, G):
    """A snapshot of G as training writes it"""
    D = networks.Discriminator(0, G.img_resolution, 3, channel_base=128, channel_max=8)
    with open(path, "wb") as file:
        pickle.dump(dict(G=G, D=D, G_ema=G, training_set_kwargs=None, augment_pipe=None), file)


@pytest.fixture(scope="module")
def files(tmp_path_factory, G, segmenter, linear):
    """A folder with a network, an extractor, annotations and a segmenter"""
    folder = tmp_path_factory.mktemp("semantics")
    write_network(folder / "G.pkl", G)
    save_extractor(folder / "linear.safetensors", linear)
    annotations.write_annotations(folder / "annotations", annotations.annotate(G, segmenter, 3), range(3))
    write_segmenter(folder / "brightness.pt", CLASSES)
    return folder


def call(*args):
    """What a command prints"""
    done = CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def semantics(files, command, *args):
    return call("semantics", command, f"--network={files / 'G.pkl'}", *args)


def test_commands_train_eval_sample_and_edit(files, G, tmp_path):
    segmenter = f"--segmenter={files / 'brightness.pt'}"
    few = tmp_path / "few.safetensors"
    semantics(files, "train", f"--annotations={files / 'annotations'}", f"--dest={few}")
    out = semantics(
        files,
        "eval",
        f"--extractor={few}",
        f"--extractor={files / 'linear.safetensors'}",
        segmenter,
        "--samples=20",
        f"--outdir={tmp_path}",
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["results"]["linear"]["accuracy"] > 0.7 and scores["protocol"]["samples"] == 20
    assert "| bright |" in out and (tmp_path / "examples.png").exists()

    extractor = f"--extractor={files / 'linear.safetensors'}"
    semantics(files, "sample", extractor, "--target-seed=9", "--count=2", "--steps=3", f"--outdir={tmp_path / 's'}")
    report = json.loads((tmp_path / "s" / "sample.json").read_text())
    assert len(report["agreement"]) == 2 and report["detector"] == "pixel-pyramid" and report["diversity"] > 0
    run(
        "stylegan2_ada/generate.py",
        f"--network={files / 'G.pkl'}",
        f"--projected-w={tmp_path / 's' / 'ws.npz'}",
        f"--outdir={tmp_path / 'g'}",
    )
    same = [np.asarray(PIL.Image.open(tmp_path / p), int) for p in ("s/sample00.png", "g/proj00.png")]
    assert abs(same[0] - same[1]).max() <= 1

    size = G.img_resolution
    stroke = np.full([size, size], IGNORED, np.uint8)
    stroke[2:8, 2:8] = 1
    PIL.Image.fromarray(stroke).save(tmp_path / "stroke.png")
    colours = np.zeros([size, size, 4], np.uint8)
    colours[10:14, 10:14] = [255, 0, 0, 255]
    PIL.Image.fromarray(colours).save(tmp_path / "colours.png")
    strokes = [f"--labels={tmp_path / 'stroke.png'}", f"--colours={tmp_path / 'colours.png'}"]
    out = semantics(files, "edit", extractor, "--seed=3", *strokes, "--steps=5", f"--outdir={tmp_path / 'e'}")
    assert "have their class" in out and (tmp_path / "e" / "after.png").exists()
    report = json.loads((tmp_path / "e" / "edit.json").read_text())
    assert 0 <= report["in_strokes"] <= 1 and report["off_region"] >= 0


def test_the_atlas_says_which_classes_move_and_the_page_takes_its_names(files, tmp_path):
    atlas = tmp_path / "atlas.html"
    extractor = f"--extractor={files / 'linear.safetensors'}"
    call("explore", f"--network={files / 'G.pkl'}", f"--atlas={atlas}", "--seeds=0", extractor)
    entries = json.loads(re.search(r"^const entries = (.*);$", atlas.read_text(), flags=re.MULTILINE)[1])
    assert all(set(name for name, *_ in entry["c"]) <= set(CLASSES) for entry in entries)
    first = next(entry for entry in entries if entry["c"] and entry["c"][0][1] >= 50)
    opened = engine.Engine([str(files / "G.pkl")]).network("G.pkl")
    opened.read_atlas(atlas)
    assert [str(address) for address in opened.ranking] == [entry["id"] for entry in entries]
    assert opened.label(Address.parse(first["id"])) == f"{first['id']} · in {first['c'][0][0]}"
    assert Address.parse(first["id"]) in opened.search(f"in {first['c'][0][0]}", count=999)
    atlas.write_text("<html></html>")
    with pytest.raises(ValueError, match="no page of `explore --atlas`"):
        opened.read_atlas(atlas)


@pytest.mark.parametrize("inside, sentence", [("hat", "no class 'hat'"), ("bright", "give one with --extractor")])
def test_edits_inside_what_is_not_known(inside, sentence, files, tmp_path):
    args = [f"--network={files / 'G.pkl'}", "--set=L1.N1.D0=+3", "--seeds=1", f"--inside={inside}"]
    args += [f"--extractor={files / 'linear.safetensors'}"] if inside == "hat" else []
    done = CliRunner().invoke(main, ["edit", *args, f"--outdir={tmp_path}"])
    assert done.exit_code == 2 and sentence in done.output


def test_edit_inside_a_class_replays(files, tmp_path):
    common = [f"--network={files / 'G.pkl'}"]
    inside = ["--inside=bright", f"--extractor={files / 'linear.safetensors'}"]
    call("edit", *common, "--set=L1.N1.D0=+3", "--seeds=1,2", *inside, f"--outdir={tmp_path / 'a'}")
    call("edit", *common, f"--replay={tmp_path / 'a' / 'edit.json'}", f"--outdir={tmp_path / 'b'}")
    call("edit", *common, "--set=L1.N1.D0=+3", "--seeds=1,2", f"--outdir={tmp_path / 'c'}")
    read = lambda folder: (tmp_path / folder / "seed0001.png").read_bytes()
    assert read("a") == read("b") != read("c")


@pytest.mark.parametrize(
    "command, args, sentence",
    [
        ("train", ["--segmenter={}/none.zip", "--dest=x.safetensors"], "--segmenter: {}/none.zip does not exist"),
        ("train", ["--annotations={}", "--dest=x.safetensors"], "no classes.json"),
        ("train", ["--dest=x.safetensors"], "--segmenter: give a segmenter"),
        ("train", ["--annotations={}/annotations", "--kind=NSE-2", "--dest=x.safetensors"], "--kind: NSE-2 needs"),
        ("train", ["--annotations={}/annotations", "--layers=b5.conv0", "--dest=x.safetensors"], "no layer b5.conv0"),
        ("eval", ["--extractor={}/G.pkl", "--segmenter={}/brightness.pt", "--outdir=x"], "no extractor"),
        ("sample", ["--extractor={}/linear.safetensors", "--target={}/small.png", "--outdir=x"], "the images are"),
        ("sample", ["--extractor={}/linear.safetensors", "--target={}/seven.png", "--outdir=x"], "has the label 7"),
        ("edit", ["--extractor={}/linear.safetensors", "--seed=0", "--outdir=x"], "paint something"),
        ("edit", ["--extractor={}/linear.safetensors", "--seed=0", "--labels={}/small.png", "--outdir=x"], "are"),
        ("edit", ["--extractor={}/linear.safetensors", "--seed=0", "--labels={}/none.png", "--outdir=x"], "is painted"),
    ],
    ids=str,
)
def test_wrong_input_gets_one_sentence(command, args, sentence, files, G):
    size = G.img_resolution
    for name, value, side in (("small", 0, size // 2), ("seven", 7, size), ("none", IGNORED, size)):
        PIL.Image.fromarray(np.full([side, side], value, np.uint8)).save(files / f"{name}.png")
    args = [arg.replace("{}", str(files)) for arg in args]
    done = CliRunner().invoke(main, ["semantics", command, f"--network={files / 'G.pkl'}", *args])
    assert done.exit_code == 2 and sentence.replace("{}", str(files)) in done.output, done.output
