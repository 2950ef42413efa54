"""Feature statistics and FID against golden data; the cache; a metric computed end to end."""

import functools
import hashlib

import numpy as np
import pytest
import torch

import dnnlib
from golden_data import FOLDER, GoldenFile, case_ids
from helpers import make_dataset
from metrics import inception_score, metric_main, metric_utils, precision_recall
from metrics.frechet_inception_distance import INCEPTION, frechet_distance
from metrics.kernel_inception_distance import kernel_distance
from metrics.perceptual_path_length import PPLSampler
from training import networks

GOLDEN = GoldenFile("metrics.npz")


def cases(start):
    found = [case for case in GOLDEN.cases if case.name.startswith(start)]
    return pytest.mark.parametrize("case", found, ids=case_ids(found))


class Detector(torch.nn.Module):
    """The golden data's detector: a linear map of a coarse picture"""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.from_numpy(GOLDEN.arrays["detector/weight"]), requires_grad=False)

    def forward(
        self,
        img,
        return_features: bool = False,
        no_output_bias: bool = False,
        resize_images: bool = True,
        return_lpips: bool = False,
    ):
        x = torch.nn.functional.adaptive_avg_pool2d(img.to(torch.float32) / 255, 4).flatten(1) @ self.weight
        return x if return_features or return_lpips else torch.softmax(x, dim=1)


@pytest.fixture
def detector(tmp_path, monkeypatch):
    """Path of that detector as TorchScript, and a cache of its own"""
    path = tmp_path / "detector.pt"
    torch.jit.script(Detector()).save(str(path))
    monkeypatch.setattr(dnnlib.util, "_cache_dir", str(tmp_path / "cache"))
    return str(path)


@pytest.fixture
def stored_features(monkeypatch):
    """A function that makes metrics see a case's stored features, and returns the statistics as they are filled"""

    def store(case):
        inputs = {name: value.numpy() for name, value in case.inputs().items()}
        kwargs, filled = case.info["kwargs"], {}

        def fill(name):
            def compute(opts, detector_url, detector_kwargs, rel_lo=0, rel_hi=1, max_items=None, **stats_kwargs):
                items = min(len(inputs[name]), max_items or len(inputs[name])) if name == "real" else max_items
                stats = filled[name] = metric_utils.FeatureStats(max_items=items, **stats_kwargs)
                for start in range(0, len(inputs[name]), 48):
                    stats.append(inputs[name][start : start + 48])
                return stats

            return compute

        monkeypatch.setattr(metric_utils, "compute_feature_stats_for_dataset", fill("real"))
        monkeypatch.setattr(
            metric_utils, "compute_feature_stats_for_generator", fill("gen" if "gen" in inputs else "probs")
        )
        return case.function()(metric_utils.MetricOptions(), **kwargs), filled

    return store


@cases("fid-")
def test_fid(case, stored_features):
    fid, filled = stored_features(case)
    case.check("fid", fid)
    for name, stats in filled.items():
        mean, cov = stats.get_mean_cov()
        case.check(f"mu_{name}", mean)
        case.check(f"sigma_{name}", cov)


@cases("kid-")
def test_kid(case, stored_features):
    np.random.seed(case.info["numpy_seed"])
    case.check("kid", stored_features(case)[0])


@cases("is-")
def test_inception_score(case, stored_features):
    mean, std = stored_features(case)[0]
    case.check("mean", mean)
    case.check("std", std)


def test_inception_score_of_known_probabilities():
    assert inception_score.score(np.eye(5)) == pytest.approx(5)  # certain of each image, all classes alike
    assert inception_score.score(np.full([5, 4], 0.25)) == pytest.approx(1)


@pytest.mark.parametrize(
    "case", [c for c in GOLDEN.cases if c.info["target"].endswith("compute_pr")], ids=lambda c: c.name
)
def test_precision_and_recall(case, stored_features):
    precision, recall = stored_features(case)[0]
    case.check("precision", precision)
    case.check("recall", recall)


@cases("pr-distances")
def test_distances(case):
    case.check("dist", case.function()(**case.inputs(), **case.info["kwargs"]))


@cases("slerp")
def test_slerp(case):
    case.check("y", case.function()(**case.inputs()))


def golden_generator(case):
    name = case.info["generator"]
    G = networks.Generator(**GOLDEN.meta["generators"][name]).eval()
    G.load_state_dict(GOLDEN.tensors(GOLDEN.meta["state_prefix"][name]))
    return G


@cases("ppl-")
def test_perceptual_path_length(case, monkeypatch):
    inputs, kwargs, G = case.inputs(), case.info["kwargs"], golden_generator(case)
    monkeypatch.setattr(metric_utils, "get_feature_detector", lambda url, *_args, **_kwargs: Detector())

    def draw_stored():
        t, z = iter(inputs["t"]), iter(inputs["z"])
        monkeypatch.setattr(torch, "rand", lambda *shape, **kwargs: next(t))
        monkeypatch.setattr(torch, "randn", lambda *shape, **kwargs: next(z))

    draw_stored()
    data = dict(class_name="training.dataset.ImageFolderDataset", path=str(FOLDER / "dataset_rgb.zip"))
    case.check("ppl", case.function()(metric_utils.MetricOptions(G=G, dataset_kwargs=data), **kwargs))
    draw_stored()
    names = ("epsilon", "space", "sampling", "crop")
    sampler = PPLSampler(G=G, G_kwargs={}, vgg16=Detector(), **{name: kwargs[name] for name in names})
    labels = torch.zeros([kwargs["batch_size"], 0])
    with torch.no_grad():
        case.check("dist", torch.cat([sampler(labels) for _ in inputs["t"]]))


def features(count, mean=0.0, scale=1.0, seed=0, width=24):
    return np.random.RandomState(seed).randn(count, width).astype(np.float32) * scale + mean


def test_agreement_with_independent_implementations():
    from prdc import compute_prdc
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd

    real, generated = features(900, seed=1), features(700, mean=0.3, scale=1.2, seed=2)
    moments = []
    for x in (generated, real):
        stats = metric_utils.FeatureStats(capture_mean_cov=True)
        stats.append(x)
        moments += stats.get_mean_cov()
    theirs = _compute_fid(*map(torch.from_numpy, moments)).item()
    assert frechet_distance(*moments) == pytest.approx(theirs, rel=1e-3)

    same = generated[:700], real[:700]  # the only subset there is
    theirs = poly_mmd(*map(torch.from_numpy, same)).item()
    assert kernel_distance(*same, num_subsets=1, max_subset_size=700) == pytest.approx(theirs, rel=1e-3)

    theirs = compute_prdc(real_features=real, fake_features=generated, nearest_k=3)
    blocks = functools.partial(precision_recall._blocks, metric_utils.MetricOptions(), 200, 300)
    for distances in (None, blocks):
        ours = precision_recall.likeness(*map(torch.from_numpy, (real, generated)), 3, distances)
        assert ours._asdict() == pytest.approx(theirs, rel=1e-3)


def test_fid_of_known_gaussians():
    a, b = np.diag([1.0, 4.0]), np.diag([9.0, 4.0])
    assert frechet_distance(np.array([0.0, 1.0]), a, np.array([3.0, 1.0]), b) == pytest.approx(9 + (3 - 1) ** 2)
    assert frechet_distance(np.ones(2), a, np.ones(2), a) == pytest.approx(0, abs=1e-9)


@cases("feature-stats")
def test_feature_stats(case, tmp_path):
    stats = case.function()(**case.info["kwargs"])
    for part in case.inputs()["features"].split(16):
        stats.append_torch(part)
    stats.save(tmp_path / "stats")
    for each in (stats, metric_utils.FeatureStats.load(tmp_path / "stats")):
        mean, cov = each.get_mean_cov()
        for label, got in dict(all=each.get_all(), mean=mean, cov=cov).items():
            case.check(label, got)
        case.check("num_items", np.array(each.num_items))
        case.check("is_full", np.array(each.is_full()))


def test_feature_stats_refuse_what_does_not_fit():
    stats = metric_utils.FeatureStats(capture_all=True)
    stats.append(np.zeros([2, 3]))
    for call, sentence in [
        (lambda: stats.append(np.zeros([2, 4])), "do not mix"),
        (lambda: stats.append(np.zeros(3)), "two dimensions"),
        (stats.get_mean_cov, "without capture_mean_cov"),
        (metric_utils.FeatureStats().get_all, "without capture_all"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            call()


@cases("generator-features")
def test_features_of_a_generator(case, detector, monkeypatch):
    G = golden_generator(case)
    z = iter(case.inputs()["z"])
    monkeypatch.setattr(torch, "randn", lambda *shape, **kwargs: next(z))
    opts = metric_utils.MetricOptions(G=G, G_kwargs=dict(noise_mode="const"))
    case.check("features", case.function()(opts, detector_url=detector, **case.info["kwargs"]).get_all())


@cases("dataset-features")
def test_features_of_a_dataset_and_their_cache(case, detector, tmp_path):
    data = dict(class_name="training.dataset.ImageFolderDataset", path=str(FOLDER / case.info["dataset"]))
    opts = metric_utils.MetricOptions(dataset_kwargs=data)
    for _ in range(2):  # the second time from the cache
        stats = case.function()(opts, detector_url=detector, **case.info["kwargs"])
        mean, cov = stats.get_mean_cov()
        for label, got in dict(features=stats.get_all(), mean=mean, cov=cov).items():
            case.check(label, got)
    (cached,) = (tmp_path / "cache" / "gan-metrics").iterdir()
    assert cached.name.startswith("dataset_rgb-detector-")


def test_the_cache_notices_another_archive(detector, tmp_path):
    path = tmp_path / "discs.zip"
    opts = metric_utils.MetricOptions(
        dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=str(path))
    )
    means = []
    for count in (5, 9):
        make_dataset(path, count=count)
        kwargs = dict(detector_kwargs=dict(return_features=True), capture_mean_cov=True)
        means.append(metric_utils.compute_feature_stats_for_dataset(opts, detector, **kwargs).get_mean_cov()[0])
    assert not np.allclose(*means)


def test_fid50k_end_to_end(detector, tmp_path, capsys):
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    name = hashlib.md5(INCEPTION.encode()).hexdigest()
    torch.jit.script(Detector()).save(str(downloads / f"{name}_inception-2015-12-05.pt"))  # as if downloaded
    data = dict(
        class_name="training.dataset.ImageFolderDataset", path=str(make_dataset(tmp_path / "gray.zip", mode="L"))
    )
    G = networks.Generator(4, 0, 4, 4, 1, dict(num_layers=1), dict(channel_base=16, channel_max=4)).eval()
    progress = metric_utils.ProgressMonitor(verbose=True)
    result = metric_main.calc_metric("fid50k", G=G, dataset_kwargs=dict(data, use_labels=False), progress=progress)
    assert result.results.fid50k > 0 and result.metric == "fid50k"
    assert "generator features  items 50000" in capsys.readouterr().out
