"""Data sets, samplers and grids against golden data; statistics, persistence, downloads and other helpers."""

import copy
import hashlib
import http.server
import json
import pickle
import threading
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch

import dnnlib
from golden_data import FOLDER
from helpers import make_dataset
from torch_utils import custom_ops, misc, persistence, training_stats
from training import health, loss, networks
from training.dataset import Dataset, ImageFolderDataset
from training.graphs import PhaseRunner, set_gradients
from training.latents import seed_latents
from training.loss import Loss
from training.training_loop import save_image_grid, setup_snapshot_image_grid

PARITY = json.loads((FOLDER / "rng_parity.json").read_text())


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def cases(name):
    return pytest.mark.parametrize("case", PARITY[name]["cases"], ids=range(len(PARITY[name]["cases"])))


# Golden order of random numbers


def first_indices(count, dataset, **kwargs):
    stream = iter(misc.InfiniteSampler(dataset, **kwargs))
    return [int(next(stream)) for _ in range(count)]


@cases("InfiniteSampler")
def test_sampler_golden(case):
    dataset = range(case["dataset_size"])
    assert first_indices(60, dataset, **case["kwargs"]) == case["first"]
    indices = first_indices(1000, dataset, **case["kwargs"])
    assert sha256(np.array(indices, dtype="<i8")) == case["sha256_first_1000"]


@cases("InfiniteSampler")
def test_sampler_takes_up_where_it_left_off(case):
    dataset, kwargs = range(case["dataset_size"]), case["kwargs"]
    start = 60 * kwargs["num_replicas"]
    assert first_indices(30, dataset, **kwargs, start=start) == first_indices(90, dataset, **kwargs)[60:]


@cases("InfiniteSampler")
def test_sampler_takes_up_a_known_order(case):
    dataset, kwargs = range(case["dataset_size"]), case["kwargs"]
    sampler = misc.InfiniteSampler(dataset, **kwargs)
    for count in (0, 7, 60, 5000, 50):  # in whatever sequence it is asked
        start = count * kwargs["num_replicas"]
        taken_up = first_indices(30, dataset, **kwargs, start=start, order=sampler.order_at(start))
        assert taken_up == first_indices(count + 30, dataset, **kwargs)[count:]
    again = misc.InfiniteSampler(dataset, **kwargs, start=start, order=sampler.order_at(start))
    assert np.array_equal(again.order_at(start + 99), sampler.order_at(start + 99))


def test_sampler_refuses_an_order_of_something_else():
    with pytest.raises(ValueError, match="the order is none of the data set's images"):
        misc.InfiniteSampler(range(3), order=np.array([0, 1, 1]))


class MemoryDataset(Dataset):
    def __init__(self, labels, **kwargs):
        self.pixels = np.array(PARITY["Dataset"]["pixels"], dtype=np.uint8)
        self.labels = labels
        super().__init__("memory", self.pixels.shape, **kwargs)

    def _load_raw_image(self, raw_idx):
        return self.pixels[raw_idx]

    def _load_raw_labels(self):
        return {
            "none": None,
            "int": np.array(PARITY["Dataset"]["ints"], dtype=np.int64),
            "vector": np.array(PARITY["Dataset"]["vectors"], dtype=np.float32),
        }[self.labels.removesuffix("s")]


def check_dataset(dataset, expect):
    assert len(dataset) == expect["len"]
    for name in set(expect) - {"len", "items"}:
        assert getattr(dataset, name) == expect[name], name
    for i, item in enumerate(expect["items"]):
        image, label = dataset[i]
        details = dataset.get_details(i)
        assert (details.raw_idx, details.xflip) == (item["raw_idx"], item["xflip"])
        assert details.raw_label.tolist() == item["raw_label"]
        assert (label.tolist(), label.dtype.name) == (item["label"], item["label_dtype"])
        assert (sha256(image), image.dtype.name) == (item["image_sha256"], item["image_dtype"])


@cases("Dataset")
def test_dataset_golden(case):
    check_dataset(MemoryDataset(case["labels"], **case["kwargs"]), case["expect"])


@cases("ImageFolderDataset")
def test_image_folder_golden(case, tmp_path):
    check_dataset(ImageFolderDataset(FOLDER / case["file"], **case["kwargs"]), case["expect"])
    folder = tmp_path / case["file"].removesuffix(".zip")
    zipfile.ZipFile(FOLDER / case["file"]).extractall(folder)
    check_dataset(ImageFolderDataset(folder, **case["kwargs"]), case["expect"])


class ManyPixels(Dataset):
    def _load_raw_image(self, raw_idx):
        return np.zeros([1, 4, 4], dtype=np.uint8)


@cases("max_size")
def test_max_size_golden(case):
    data = ManyPixels("x", [case["size"], 1, 4, 4], max_size=case["max_size"], random_seed=case["random_seed"])
    indices = [data.get_details(i).raw_idx for i in range(len(data))]
    assert indices[: len(case["first"])] == case["first"]
    assert sha256(np.array(indices, dtype="<i8")) == case["sha256"]


@cases("setup_snapshot_image_grid")
def test_grid_golden(case):
    data = ImageFolderDataset(FOLDER / case["file"], use_labels=case["use_labels"])
    grid_size, images, labels = setup_snapshot_image_grid(data, random_seed=case["random_seed"])
    assert list(grid_size) == case["grid_size"] and list(labels.shape) == case["labels_shape"]
    assert sha256(images) == case["images_sha256"] and sha256(labels) == case["labels_sha256"]


@cases("setup_snapshot_image_grid")
def test_the_first_rows_of_a_smaller_grid_show_what_a_large_one_does(case):
    data = ImageFolderDataset(FOLDER / case["file"], use_labels=case["use_labels"])
    _, images, _ = setup_snapshot_image_grid(data, case["random_seed"], grid_size=(32, 2))
    _, large, _ = setup_snapshot_image_grid(data, case["random_seed"])
    assert np.array_equal(images, large[:64])


@cases("latents")
def test_seed_latents_golden(case):
    G = networks.Generator(512, 0, 4, 8, 3, synthesis_kwargs=dict(channel_base=32))
    assert sha256(seed_latents(G, [case["seed"]], "cpu").numpy()) == case["sha256"]


# Data sets


def test_a_zip_is_read_by_several_worker_processes(tmp_path):
    data = ImageFolderDataset(make_dataset(tmp_path / "discs.zip", count=64))
    data[0]  # opens the archive in this process before it forks
    loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=2)
    images = torch.cat([images for images, _ in loader])
    assert torch.equal(images, torch.stack([torch.from_numpy(data[i][0]) for i in range(64)]))


def test_dataset_pickles_without_its_open_file(tmp_path):
    data = ImageFolderDataset(make_dataset(tmp_path / "discs.zip", labels="classes"), use_labels=True)
    expected = data[3]
    again = pickle.loads(pickle.dumps(data))
    assert all(np.array_equal(a, b) for a, b in zip(again[3], expected))


def test_save_image_grid(tmp_path):
    images = np.linspace(-1.5, 1.5, 6)[:, None, None, None] * np.ones([6, 3, 4, 5])
    save_image_grid(images, tmp_path / "grid.png", drange=[-1, 1], grid_size=(3, 2))
    pixels = np.asarray(PIL.Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (8, 15, 3)
    assert [int(pixels[y, x, 0]) for y in (0, 4) for x in (0, 5, 10)] == [0, 13, 89, 166, 242, 255]


# Statistics


def test_statistics_between_updates():
    collector = training_stats.Collector(regex="Test/.*")
    training_stats.report("Test/a", [1.0, 2.0, 3.0])
    assert torch.equal(training_stats.report("Test/b", torch.ones(2)), torch.ones(2))
    assert collector.num("Test/a") == 0 and np.isnan(collector["Test/a"])
    collector.update()
    training_stats.report("Test/a", 100)
    assert (collector.num("Test/a"), collector["Test/a"]) == (3, 2)
    np.testing.assert_allclose(collector.std("Test/a"), np.std([1, 2, 3]))
    collector.update()
    assert collector.mean("Test/a") == 100 and collector.std("Test/a") == 0
    assert collector.mean("Test/b") == 1  # kept, as nothing new was reported
    assert set(collector.as_dict()["Test/b"]) == {"num", "mean", "std"}


def test_statistics_that_are_held_back_count_when_they_are_added():
    collector = training_stats.Collector(regex="Held/.*")
    with training_stats.held_back() as sums:
        training_stats.report("Held/back", torch.tensor([1.0, 3.0]))
    collector.update()
    assert collector.num("Held/back") == 0
    for _ in range(2):
        for name, each in sums:
            training_stats.add(name, each)
    training_stats.report("Held/back", 8)
    collector.update()
    assert collector.num("Held/back") == 5 and collector["Held/back"] == 16 / 5


def test_gradients_of_any_layout_go_through_one_vector():
    net = torch.nn.ModuleList([torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(5, 2), torch.nn.Linear(2, 2)])
    net[0].to(memory_format=torch.channels_last)

    class Squares(Loss):
        def accumulate_gradients(self, phase, sync, gain, x):
            (gain * x * (net[0].weight.square().sum() + net[1].weight.pow(3).sum())).backward()

    runner = PhaseRunner(Squares(), recording=False, on_failure=pytest.fail)
    trained, vector = runner.gradients("Gmain", net, 2.0, [dict(x=torch.ones([])), dict(x=torch.ones([]) * 2)])
    assert trained == [net[0].weight, net[1].weight]
    net.zero_grad()
    set_gradients(trained, vector)
    torch.testing.assert_close(net[0].weight.grad, 12 * net[0].weight.detach())
    torch.testing.assert_close(net[1].weight.grad, 18 * net[1].weight.detach().square())
    assert net[0].weight.grad.stride() == net[0].weight.stride() and net[2].weight.grad is None


def test_collector_state_continues_where_it_was():
    first = training_stats.Collector(regex="State/.*")
    training_stats.report("State/a", [1.0, 2.0])
    first.update()
    training_stats.report("State/a", [5.0])
    state = first.state_dict()
    other = training_stats.Collector(regex="State/.*")
    other.load_state_dict(state)
    assert other["State/a"] == 1.5
    training_stats.report("State/a", [7.0])
    for collector in (first, other):
        collector.update()
        assert (collector.num("State/a"), collector["State/a"]) == (2, 6)


def test_what_is_not_finite_is_left_out_and_counted():
    collector = training_stats.Collector(regex="Bad/.*")
    training_stats.report("Bad/a", [1.0, float("nan"), 3.0, float("inf")])
    training_stats.report("Bad/b", float("nan"))
    collector.update()
    assert (collector.num("Bad/a"), collector["Bad/a"], collector.nonfinite("Bad/a")) == (2, 2, 2)
    assert collector.num("Bad/b") == 0 and np.isnan(collector["Bad/b"]) and collector.nonfinite("Bad/b") == 1
    training_stats.report("Bad/a", [7.0, 9.0])
    training_stats.report("Bad/b", 1e30)  # its square is not finite in float32
    collector.update()
    assert collector.nonfinite("Bad/a") == collector.nonfinite("Bad/b") == 0
    assert (collector["Bad/a"], collector.std("Bad/a")) == (8, 1)
    assert collector["Bad/b"] == np.float32(1e30) and np.isfinite(collector.std("Bad/b"))


def test_a_state_that_a_nan_has_spoilt_recovers():
    sums = lambda *values: {"Spoilt/a": torch.tensor(values, dtype=torch.float64)}
    collector = training_stats.Collector(regex="Spoilt/.*")
    collector.load_state_dict(dict(totals=sums(3, float("nan"), 5), seen=sums(2, 1, 5), moments=sums(1, 1, 5)))
    training_stats.report("Spoilt/a", [2.0, 4.0])
    collector.update()
    assert (collector.num("Spoilt/a"), collector["Spoilt/a"]) == (2, 3)


def test_one_bad_batch_does_not_end_the_path_length_nor_the_mean_of_w():
    G = networks.Generator(4, 0, 4, 8, 3, synthesis_kwargs=dict(channel_base=32)).train()
    w_avg = G.mapping.w_avg.clone()
    G.mapping(torch.full([2, 4], float("nan")), None)
    assert torch.equal(G.mapping.w_avg, w_avg)
    G.mapping(torch.randn(2, 4), None)
    assert G.mapping.w_avg.isfinite().all() and not torch.equal(G.mapping.w_avg, w_avg)
    D = networks.Discriminator(0, 8, 3, channel_base=32)
    training_loss = loss.StyleGAN2Loss("cpu", G.mapping, G.synthesis, D)
    labels = torch.zeros(4, 0)
    for z in (torch.full([4, 4], float("nan")), torch.randn(4, 4)):
        training_loss.accumulate_gradients("Greg", None, None, z, labels, sync=True, gain=1)
    assert training_loss.pl_mean.isfinite() and training_loss.pl_mean != 0


def test_constants_do_not_pile_up():
    before = len(misc._constants)
    for i in range(3000):
        misc.constant(float(i))
    assert len(misc._constants) <= max(before, 1000)
    assert misc.constant(2999.0) is misc.constant(2999.0)


def test_health_speaks_up_when_something_is_wrong():
    well = dict(signs_real=0.5, signs_fake=-0.5, augment_p=0.3, adaptive=True, nonfinite=0, relative_diversity=0.9)
    assert health.assess(**well) == []
    for change, word in [
        (dict(nonfinite=0.2), "non-finite"),
        (dict(left_out={"Loss/G/loss": 3}), "3 of Loss/G/loss"),
        (dict(augment_p=0.9), "augment p is 0.90"),
        (dict(signs_real=0.97, signs_fake=-0.97, adaptive=False), "memorises"),
        (dict(relative_diversity=0.1), "collapses"),
        (dict(relative_recall=0.1, kimg=50), "the samples show 10% of the variety"),
    ]:
        (sentence,) = health.assess(**(well | change))
        assert word in sentence
    nan = float("nan")
    assert health.assess(nan, nan, nan, True, nan, nan) == []
    assert health.assess(**well, relative_recall=0.1, kimg=5) == []  # too early to say
    images = torch.randn(8, 3, 32, 32)
    assert health.diversity(images) > 10 * health.diversity(images[:1] + 0.01 * images)


def test_health_sees_samples_that_are_alike_within_a_kind():
    rng = torch.Generator().manual_seed(0)
    kinds = torch.randn(4, 3, 16, 16, generator=rng).repeat(32, 1, 1, 1)
    within = torch.randn(3, 128, 3, 16, 16, generator=rng)
    real, other, made = (kinds + 0.3 * each for each in within)
    alike = kinds + 0.03 * within[2]
    assert health.diversity(alike) > 0.8 * health.diversity(real)  # of all kinds together it says nothing
    assert (
        health.recall(real, made) == pytest.approx(health.recall(real, other), abs=0.2)
        and health.recall(real, made) > 0.5
    )
    assert health.recall(real, alike) < 0.05
    assert np.isnan(health.recall(real, made[:3]))


# Persistence


@persistence.persistent_class
class Small(torch.nn.Module):
    def __init__(self, size, scale=1):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size) * scale)


def test_persistent_objects_carry_source_and_arguments(monkeypatch):
    small = Small(3, scale=2)
    assert persistence.is_persistent(small) and not persistence.is_persistent(torch.nn.Linear(1, 1))
    assert small.init_args == (3,) and small.init_kwargs == {"scale": 2}
    function, (meta,), *_ = small.__reduce__()
    assert function is persistence._reconstruct_persistent_obj
    assert {"type", "version", "module_src", "class_name", "state"} == meta.keys()
    assert meta["version"] == 6 and meta["class_name"] == "Small" and "class Small" in meta["module_src"]
    assert torch.equal(pickle.loads(pickle.dumps(small)).weight, small.weight)
    monkeypatch.setattr(persistence, "known_modules", ["training.networks"])
    with pytest.raises(pickle.UnpicklingError, match="'Small', which is not in training.networks"):
        pickle.loads(pickle.dumps(small))
    copied = copy.deepcopy(small)  # looks up no name
    assert type(copied) is Small and torch.equal(copied.weight, small.weight) and copied.weight is not small.weight


def test_import_hooks_can_change_what_is_rebuilt(monkeypatch):
    monkeypatch.setattr(persistence, "_import_hooks", [])
    data = pickle.dumps(Small(3)).replace(b"\x8c\x05Small", b"\x8c\x05Smoll")
    with pytest.raises(pickle.UnpicklingError, match="Smoll"):
        pickle.loads(data)
    persistence.import_hook(lambda meta: dnnlib.EasyDict(meta, class_name="Small"))
    assert pickle.loads(data).weight.shape == (3,)


def test_a_pickle_that_names_other_code_is_refused(tmp_path):
    import legacy

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(dict(G=Evil(), D=None, G_ema=None)))
    with path.open("rb") as file, pytest.raises(ValueError, match=r"it names (_?io)\.open"):
        legacy.load_network_pkl(file)
    assert not (tmp_path / "ran").exists()
    with (tmp_path / "x.pkl").open("wb+") as file, pytest.raises(ValueError, match="x.pkl is not a network pickle"):
        legacy.load_network_pkl(file)


# Helpers


def test_easy_dict_and_names():
    d = dnnlib.EasyDict(a=1)
    d.b = 2
    del d.a
    assert d == {"b": 2} and d.b == 2
    with pytest.raises(AttributeError):
        d.c  # noqa: B018
    assert dnnlib.util.get_obj_by_name("np.linalg.norm") is np.linalg.norm
    assert (
        dnnlib.util.construct_class_by_name(class_name="torch.nn.Linear", in_features=2, out_features=3).in_features
        == 2
    )
    assert dnnlib.util.call_func_by_name([1, 2], func_name="numpy.sum") == 3
    assert dnnlib.util.get_top_level_function_name(json.dumps) == "json.dumps"
    with pytest.raises(ImportError, match="no_such_module.x"):
        dnnlib.util.get_obj_by_name("no_such_module.x")
    with pytest.raises(AttributeError, match="Generatr"):
        dnnlib.util.get_obj_by_name("training.networks.Generatr")
    assert dnnlib.util.tuple_product((2, 3, 4)) == 24 and dnnlib.util.tuple_product(()) == 1
    assert dnnlib.util.get_dtype_and_ctype(np.float32)[0] == np.float32


@pytest.mark.parametrize(
    "seconds, text", [(0, "0s"), (59.4, "59s"), (60, "1m 00s"), (3725, "1h 02m 05s"), (90061, "1d 01h 01m")]
)
def test_format_time(seconds, text):
    assert dnnlib.util.format_time(seconds) == text


def test_logger_copies_to_a_file_and_restores_the_streams(tmp_path, capsys):
    with dnnlib.util.Logger(str(tmp_path / "log.txt")):
        print("héllo")
    print("after")
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "héllo\n"
    assert capsys.readouterr().out == "héllo\nafter\n"


class Handler(http.server.BaseHTTPRequestHandler):
    requests = []

    def do_GET(self):
        self.requests.append(self.path)
        body = b"x" * 1000
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(2000 if self.path == "/short" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        Handler.requests = []
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_downloads_are_cached_whole_or_not_at_all(server, tmp_path):
    open_url = lambda path, **kwargs: dnnlib.util.open_url(server + path, str(tmp_path), 2, verbose=False, **kwargs)
    for _ in range(2):
        with open_url("/some/net.pkl") as file:
            assert file.read() == b"x" * 1000
    assert Handler.requests == ["/some/net.pkl"]
    assert open_url("/some/net.pkl", return_filename=True).endswith("_net.pkl")
    for path in ("/short", "/missing"):
        with pytest.raises(OSError, match="could not be downloaded"):
            open_url(path)
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "local").write_bytes(b"abc")
    assert dnnlib.util.open_url(str(tmp_path / "local")).read() == b"abc"


def test_files_are_listed_and_copied(tmp_path):
    for name in ("a/b.txt", "a/__pycache__/c.pyc", "d.py"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(name)
    found = dnnlib.util.list_dir_recursively_with_ignore(
        str(tmp_path / "src"), ["__pycache__"], add_base_to_relative=True
    )
    assert sorted(relative for _, relative in found) == ["src/a/b.txt", "src/d.py"]
    dnnlib.util.copy_files_and_create_dirs([(path, str(tmp_path / "to" / rel)) for path, rel in found])
    assert (tmp_path / "to/src/a/b.txt").read_text() == "a/b.txt"


def test_misc_helpers(capsys):
    assert misc.constant([1, 2]) is misc.constant([1, 2]) and misc.constant(1, shape=[2, 2]).shape == (2, 2)
    with pytest.raises(AssertionError, match=r"shape is \[2, 3\], expected \[None, 4\]"):
        misc.assert_shape(torch.zeros(2, 3), [None, 4])
    source, target = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    misc.copy_params_and_buffers(source, target, require_all=True)
    assert torch.equal(source.weight, target.weight) and target.weight.requires_grad
    with pytest.raises(RuntimeError, match="weight has shape"):
        misc.copy_params_and_buffers(torch.nn.Linear(4, 3), target)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.BatchNorm1d(3))
    out = misc.print_module_summary(net, [torch.zeros(4, 2)])
    table = capsys.readouterr().out
    assert out.shape == (4, 3) and "[4, 3]" in table and "Total" in table and "15" in table.split("Total")[1]
    doubled = misc.profiled_function(lambda x: 2 * x)
    assert doubled(3) == 6


@pytest.mark.slow
def test_plugins_are_built_once_and_explain_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(dnnlib.util, "_cache_dir", str(tmp_path))
    source = tmp_path / "twice.cpp"
    source.write_text(
        "#include <torch/extension.h>\n"
        'PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("twice", [](int x) { return 2 * x; }); }\n'
    )
    plugin = custom_ops.get_plugin("twice_plugin", [source])
    assert plugin.twice(21) == 42 and custom_ops.get_plugin("twice_plugin", [source]) is plugin
    source.write_text("this is no C++")
    with pytest.raises(RuntimeError, match="broken_plugin could not be built"):
        custom_ops.get_plugin("broken_plugin", [source])
