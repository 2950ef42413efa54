"""calc_metrics as a user runs it: all metrics, several processes, other detectors, and what goes wrong."""

import io
import json
import pickle

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

from calc_metrics import main
from helpers import make_dataset, newest, png, run
from metrics import detectors, metric_main, metric_utils
from metrics.perceptual import perceptual_features
from runs import launch
from segan_ext.networks import SEGANGenerator
from training import networks

HOST_METRICS = "fid50k_full,kid50k_full,pr50k3_full,ppl2_wend,is50k,fid50k,kid50k,pr50k3,ppl_zfull,ppl_wfull,ppl_zend"
HOST_METRICS += ",ppl_wend"


class Detector(torch.nn.Module):
    """Coarse pictures as features; of them ten probabilities"""

    def forward(self, img, return_features: bool = False, no_output_bias: bool = False, return_lpips: bool = False):
        x = torch.nn.functional.adaptive_avg_pool2d(img.to(torch.float32) / 255, 4).flatten(1)
        return x if return_features or return_lpips else torch.softmax(10 * x[:, :10], dim=1)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run directory with a snapshot of mode 2, its data, and a detector"""
    folder = tmp_path_factory.mktemp("run")
    data = make_dataset(folder / "discs.zip", count=30)
    torch.jit.script(Detector()).save(str(folder / "coarse.pt"))
    torch.manual_seed(0)
    narrow = dict(channel_base=128, channel_max=8)
    G = SEGANGenerator(8, 0, 8, 16, 3, dict(num_layers=1), narrow, mode=2).eval()
    D = networks.Discriminator(0, 16, 3, **narrow).eval()
    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=str(data), use_labels=False, xflip=True)
    snapshot = dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=kwargs)
    (folder / "network-snapshot-000000.pkl").write_bytes(pickle.dumps(snapshot))
    (folder / "training_options.json").write_text("{}")
    return folder


def calc(run_dir, *args, script="stylegan2_ada/calc_metrics.py", check=True):
    network = f"--network={run_dir / 'network-snapshot-000000.pkl'}"
    return run(script, network, *args, check=check, env={"DNNLIB_CACHE_DIR": str(run_dir / "cache")})


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{") and "results" in line]


def test_every_metric_of_the_host(run_dir):
    args = [f"--metrics={HOST_METRICS}", f"--detector={run_dir / 'coarse.pt'}", "--num-gen=40"]
    done = calc(run_dir, *args)
    results = {line["metric"]: line for line in lines(done)}
    assert list(results) == [f"{name}_coarse_n40" for name in HOST_METRICS.split(",")]
    assert "Generator" in done.stdout and "Calculating kid50k_full..." in done.stdout
    for name, line in results.items():
        assert line["snapshot_pkl"] == "network-snapshot-000000.pkl" and line["total_time"] > 0
        assert all(np.isfinite(value) and key.endswith("_coarse_n40") for key, value in line["results"].items())
        saved = (run_dir / f"metric-{name}.jsonl").read_text().splitlines()
        assert json.loads(saved[-1]) == line
        protocol = line["protocol"]
        assert protocol["detector"] == "coarse" and protocol["seed"] == 0 and protocol["num_gen"] == 40
        if name.startswith(("fid", "kid", "pr")):
            assert protocol["data"] == "discs" and len(protocol["data_digest"]) == 16
            assert protocol["xflip"] is ("full" not in name) and protocol["resolution"] == 16
            assert protocol["num_real"] == (30 if "full" in name else 60)
    assert results["fid50k_full_coarse_n40"]["results"]["fid50k_full_coarse_n40"] > 0

    again = {line["metric"]: line["results"] for line in lines(calc(run_dir, *args, "--verbose=0"))}
    assert again == {name: line["results"] for name, line in results.items()}
    other = lines(calc(run_dir, "--metrics=fid50k_full", *args[1:], "--seed=1"))[0]["results"]
    assert other != again["fid50k_full_coarse_n40"]


def test_processes_share_the_work(run_dir):
    args = ["--metrics=fid50k_full,kid50k_full,pr50k3_full,ppl2_wend,is50k", f"--detector={run_dir / 'coarse.pt'}"]
    together = lines(calc(run_dir, *args, "--num-gen=300", "--gpus=2", "--device=cpu"))
    alone = lines(calc(run_dir, *args, "--num-gen=300", "--device=cpu"))
    assert [line["num_gpus"] for line in together] == [2] * 5 and len(alone) == 5
    for a, b in zip(alone, together):  # other latents, the same distribution
        for name, value in a["results"].items():
            assert b["results"][name] == pytest.approx(value, rel=0.35, abs=0.1), name


@pytest.mark.slow
def test_onnx_detectors_give_the_same(run_dir, tmp_path):
    class Features(torch.nn.Module):
        def forward(self, img):
            return torch.nn.functional.avg_pool2d(img / 255, 4).flatten(1)

    torch.onnx.export(
        Features(),
        (torch.zeros(2, 3, 16, 16),),
        str(tmp_path / "coarse.onnx"),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    args = ["--metrics=fid50k_full", "--num-gen=40"]
    (onnx,) = lines(calc(run_dir, *args, f"--detector={tmp_path / 'coarse.onnx'}"))
    (script,) = lines(calc(run_dir, *args, f"--detector={run_dir / 'coarse.pt'}"))
    assert onnx["results"] == pytest.approx(script["results"], rel=1e-4)


def test_what_cannot_be_measured_is_explained(run_dir, tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    (tmp_path / "small").mkdir()
    coarse = f"--detector={run_dir / 'coarse.pt'}"
    for args, sentence in [
        (["--metrics=fid"], "--metrics: there is no 'fid'; known: fid50k_full,"),
        ([f"--detector={tmp_path / 'missing.pt'}"], "missing.pt'; give a file, a URL, or one of"),
        ([f"--detector={tmp_path / 'text.onnx'}"], "is no ONNX file that onnxruntime opens"),
        (
            ["--detector=pixel-pyramid", "--num-gen=8"],
            "needs a detector for features, which pixel-pyramid is not; add efficientnet",
        ),
        (["--detector=efficientnet-lite0", "--metrics=ppl2_wend"], "is not; add vgg-hed or pixel-pyramid"),
        ([coarse, f"--data={tmp_path / 'nothing.zip'}"], "--data:"),
        ([coarse, f"--data={make_dataset(tmp_path / 'large.zip', 4, 32)}"], "32×32, expected 16×16"),
        ([coarse, f"--data={make_dataset(tmp_path / 'gray.zip', 4, 16, 'L')}"], "has 1 channels"),
        (["--attributes=nothing.zip"], "--attributes: nothing.zip does not exist"),
        ([coarse, "--metrics=pr50k3_full", "--num-gen=3"], "3 images have no 3 neighbours"),
        ([coarse, "--metrics=pr50k3_full", "--num-gen=3", "--gpus=2", "--device=cpu"], "3 images have no 3 neighbours"),
    ]:
        done = CliRunner().invoke(main, [f"--network={run_dir / 'network-snapshot-000000.pkl'}", *args])
        assert done.exit_code == 2 and sentence in done.output, done.output


def test_images_of_the_training_that_have_moved_are_asked_for(run_dir, tmp_path):
    snapshot = pickle.loads((run_dir / "network-snapshot-000000.pkl").read_bytes())
    snapshot["training_set_kwargs"]["path"] = str(tmp_path / "moved.zip")
    (tmp_path / "network.pkl").write_bytes(pickle.dumps(snapshot))
    args = [f"--network={tmp_path / 'network.pkl'}", f"--detector={run_dir / 'coarse.pt'}", "--num-gen=8"]
    for metric in ("fid50k_full", "purity"):
        done = CliRunner().invoke(main, [*args, f"--metrics={metric}"])
        assert done.exit_code == 2, done.output
        assert f"not at {tmp_path / 'moved.zip'} any more; name them with --data=PATH" in done.output
    assert CliRunner().invoke(main, [*args, "--metrics=is50k"]).exit_code == 0  # needs none


def test_offline_detectors_compare_images(tmp_path):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    image = torch.nn.functional.interpolate(image[:, :, ::16, ::16], scale_factor=16, mode="bicubic").clamp(0, 1) * 255
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    for name in ("vgg-hed", "pixel-pyramid"):
        features = perceptual_features(name, "cpu")
        assert features.name == name
        of_image = features(image)
        changed = [image, image + 5 * noise, image + 25 * noise, image.flip(3)]
        distances = [(features(other) - of_image).square().sum().item() for other in changed]
        assert distances[0] == 0 and distances == sorted(distances)
    x = image.clone().requires_grad_(True)
    perceptual_features("vgg-hed", "cpu")(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    tiny = perceptual_features("vgg-hed", "cpu")(image[:, :, :8, :8])
    assert torch.isfinite(tiny).all()


def test_efficientnet_knows_imagenet():
    from sklearn.datasets import load_sample_image

    net = detectors.open_detector("efficientnet-lite0", None)
    net.resolution = 224  # as it was trained
    for picture, expected in (("china.jpg", 698), ("flower.jpg", 985)):  # a palace; a daisy
        image = torch.from_numpy(load_sample_image(picture)[:, 107:534].copy()).permute(2, 0, 1)[None]
        probabilities = net(image, no_output_bias=True)
        assert probabilities.shape == (1, 1000) and probabilities.sum().item() == pytest.approx(1, abs=1e-5)
        assert probabilities.argmax().item() == expected
        assert net(image, return_features=True).shape == (1, 1280)


class Pictures(torch.nn.Module):
    """A generator that returns pictures of a data set in turn, changed"""

    z_dim, c_dim, img_channels = 4, 0, 3

    def __init__(self, images, change=lambda x: x):
        super().__init__()
        self.images, self.change, self.next, self.img_resolution = images, change, 0, images.shape[-1]

    def forward(self, z, c):
        chosen = torch.arange(self.next, self.next + len(z)) % len(self.images)
        self.next += len(z)
        return self.change(self.images[chosen].float() / 127.5 - 1)


def blurred(x):
    return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


@pytest.fixture(scope="module")
def avatars(tmp_path_factory):
    from segan_ext.data.avatars import make_avatars

    path = make_avatars(tmp_path_factory.mktemp("avatars") / "a.zip", count=160, resolution=64, progress=False)
    from training.dataset import ImageFolderDataset

    data = ImageFolderDataset(path)
    return path, torch.stack([torch.from_numpy(data[i][0]) for i in range(len(data))])


@pytest.mark.slow
def test_metrics_order_what_goes_wrong(avatars, tmp_path, monkeypatch):
    """FID and KID grow from real images over a colour shift and blur to noise; ten modes cost recall, noise both."""
    import dnnlib

    monkeypatch.setattr(dnnlib.util, "_cache_dir", str(tmp_path))
    path, images = avatars
    shift = torch.tensor([0.15, -0.1, 0.1]).view(3, 1, 1)
    generators = dict(
        real=Pictures(images),
        shifted=Pictures(images, lambda x: (x + shift).clamp(-1, 1)),
        blurred=Pictures(images, blurred),
        modes=Pictures(images[:10]),
        noise=Pictures(images, lambda x: torch.randn_like(x) / 2),
    )
    data = dict(class_name="training.dataset.ImageFolderDataset", path=str(path))
    found = {name: {} for name in generators}
    for metric in ("fid50k_full", "kid50k_full", "pr50k3_full", "prdc50k5"):
        for name, G in generators.items():
            kwargs = dict(dataset_kwargs=dict(data), detectors=["efficientnet-lite0"], num_gen=160, seed=0)
            results = metric_main.calc_metric(metric, G=G, device="cpu", **kwargs).results
            found[name] |= {key.split("_eff")[0]: value for key, value in results.items()}
    fid, kid, precision, recall = (
        {name: found[name][key] for name in generators}
        for key in ("fid50k_full", "kid50k_full", "pr50k3_full_precision", "pr50k3_full_recall")
    )
    assert fid["real"] == pytest.approx(0, abs=0.1)
    assert fid["real"] < fid["shifted"] < fid["blurred"] < fid["modes"] < fid["noise"]
    assert kid["real"] < 0.01 < kid["shifted"] < min(kid["blurred"], kid["modes"]) and kid["noise"] > 1
    assert precision["real"] == recall["real"] == 1 and precision["noise"] == recall["noise"] == 0
    coverage, floor = ({n: found[n][f"prdc50k5_coverage{of}"] for n in generators} for of in ("", "_of_reals"))
    assert len(set(floor.values())) == 1 and floor["real"] > 0.8  # two halves of the same pictures
    assert coverage["real"] > coverage["blurred"] > coverage["modes"] > coverage["noise"] == 0
    assert precision["modes"] == 1 and recall["modes"] < 0.5 and recall["blurred"] < recall["shifted"] <= 1


def test_digest_of_a_folder_and_its_zip(tmp_path):
    from training.dataset import ImageFolderDataset

    folder, archive = make_dataset(tmp_path / "discs", count=5), make_dataset(tmp_path / "discs.zip", count=5)
    digests = {ImageFolderDataset(str(path)).digest() for path in (folder, archive)}
    assert len(digests) == 1
    PIL.Image.new("RGB", (16, 16)).save(folder / "00000" / "img00000000.png")
    assert ImageFolderDataset(str(folder)).digest() not in digests


@pytest.fixture
def tf32():
    """Allowed, as it is in a training that asks for it"""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = True
    yield lambda: [switch.allow_tf32 for switch in switches]
    for switch, allowed in zip(switches, before):
        switch.allow_tf32 = allowed


def test_metrics_do_without_tf32_and_say_so(tf32, monkeypatch):
    seen = []

    def probe(opts):
        seen.append(tf32())
        return dict(probe=1.0)

    monkeypatch.setitem(metric_main._metrics, "probe", probe)
    assert metric_main.calc_metric("probe", device="cuda:0").protocol["tf32"] is False
    assert "tf32" not in metric_main.calc_metric("probe", device="cpu").protocol
    assert seen == [[False, False]] * 2 and tf32() == [True, True]  # as training had it
    launch.choose_device("cpu")  # as every command does
    assert tf32() == [False, False]


def test_processes_get_a_gpu_each_or_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launch.check_gpus(2, "cuda")
    launch.check_gpus(8, "cpu")
    launch.check_gpus(1, "cuda:1")
    with pytest.raises(ValueError, match="--gpus: 3 are asked for; this machine has 2"):
        launch.check_gpus(3, "cuda")
    with pytest.raises(ValueError, match="--device: 2 processes cannot share cuda:1"):
        launch.check_gpus(2, "cuda:1")


def test_onnx_computes_where_it_is_told_to():
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    choose = lambda name, available: detectors.onnx_providers(torch.device(name), available)
    assert choose("cpu", both) == ["CPUExecutionProvider"]
    assert choose("cuda:1", both) == [("CUDAExecutionProvider", dict(device_id=1)), "CPUExecutionProvider"]
    assert choose("cuda:1", both[2:]) == ["CPUExecutionProvider"]


def test_data_to_compare_with_is_looked_at_first(run_dir, tmp_path):
    palette = io.BytesIO()
    PIL.Image.open(io.BytesIO(png())).quantize(16).save(palette, format="PNG")
    data = make_dataset(tmp_path / "x.zip", count=0, extra={f"{i}.png": palette.getvalue() for i in range(8)})
    network = f"--network={newest(run_dir)}"
    done = run("-m segan_ext calc_metrics", network, f"--data={data}", "--metrics=none", check=False)
    assert done.returncode == 2 and "--data: " in done.stderr and "in the modes P" in done.stderr


def test_features_that_are_not_finite_are_no_score():
    stats = metric_utils.FeatureStats(capture_mean_cov=True)
    with pytest.raises(ValueError, match="not finite"):
        stats.append(np.full([2, 3], np.nan))
