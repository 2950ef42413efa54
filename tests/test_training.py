"""The training commands from end to end: real data, real loop, real files."""

import contextlib
import json
import math
import os
import subprocess

import numpy as np
import PIL.Image
import pytest
import torch

import legacy
from helpers import (
    PATIENCE,
    TINY,
    command,
    held,
    make_dataset,
    newest,
    only_run,
    png,
    read_stats,
    run,
    slowly,
    start,
    wait_for,
)
from metrics import metric_main
from runs import launch
from torch_utils import training_stats
from training import networks
from training.augment import AugmentPipe
from training.state import read, saved_states
from training.training_loop import training_loop

FORMS = {
    "mode0": ["--cfg=segan-mode0"],
    "mode1": ["--cfg=segan-mode1", "--subspace-dim=8"],
    "mode2": ["--cfg=segan-mode2"],
    "mode2-residual": ["--cfg=segan-mode2", "--subspace-dim=8"],
    "mode2-published": ["--cfg=segan-mode2", "--subspace-form=published"],
    "mode3": ["--cfg=segan-mode3"],
    "host-recipe-with-subspaces": ["--cfg=auto", "--mode=2"],
}


def check_run_directory(run_dir, kimg):
    names = {p.name for p in run_dir.iterdir()}
    assert {"training_options.json", "log.txt", "stats.jsonl", "reals.png", "fakes_init.png", "health.txt"} <= names
    assert {"network-snapshot-000000.pkl", "fakes000000.png"} <= names
    assert {f"network-snapshot-{kimg:06d}.pkl", f"fakes{kimg:06d}.png", f"training-state-{kimg:06d}.pt"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    lines = read_stats(run_dir)
    assert all(math.isfinite(entry["mean"]) for line in lines for key, entry in line.items() if key != "timestamp")
    for key in ("Loss/G/loss", "Loss/D/loss", "Loss/r1_penalty", "Progress/tick", "Timing/sec_per_kimg"):
        assert {"num", "mean", "std"} == lines[-1][key].keys()
    return lines


@pytest.mark.parametrize("form", slowly(FORMS, fast=["mode2-residual"]))
def test_every_form_trains(form, tmp_path):
    options = FORMS[form]
    data = make_dataset(tmp_path / "discs.zip")
    run("train_segan.py", *options, *TINY, f"--data={data}", "--kimg=1", f"--outdir={tmp_path / 'out'}")
    run_dir = only_run(tmp_path / "out")
    lines = check_run_directory(run_dir, kimg=1)
    subspaces = options[0] not in ("--cfg=segan-mode0", "--cfg=segan-mode3") and "published" not in options[-1]
    assert ("Loss/G/ortho" in lines[-1]) == subspaces
    assert (run_dir / "log.txt").read_text().rstrip().endswith("Done.")


KINDS = ["zip", "folder", "labels", "vector-labels", "grey", "32px", "mirror-subset", "batch-gpu", "fixed-aug"]


@pytest.mark.parametrize("kind", slowly(KINDS, fast=["labels"]))
def test_every_kind_of_data_trains(kind, tmp_path):
    made = {
        "labels": dict(labels="classes"),
        "vector-labels": dict(labels="vectors"),
        "grey": dict(mode="L"),
        "32px": dict(size=32),
    }.get(kind, {})
    extra = {
        "labels": ["--cond=1"],
        "vector-labels": ["--cond=1"],
        "mirror-subset": ["--mirror=1", "--subset=17"],
        "batch-gpu": ["--batch-gpu=4"],
        "fixed-aug": ["--aug=fixed", "--p=0.5", "--augpipe=bgc"],
    }.get(kind, [])
    data = make_dataset(tmp_path / ("data" if kind == "folder" else "data.zip"), **made)
    out = tmp_path / "out"
    run("train_segan.py", *TINY, f"--data={data}", "--kimg=1", "--snap=1", *extra, f"--outdir={out}")
    run_dir = only_run(out)
    check_run_directory(run_dir, kimg=1)
    image = PIL.Image.open(run_dir / "fakes000001.png")
    assert image.mode == ("L" if kind == "grey" else "RGB") and image.size == ((64, 64) if kind == "32px" else (32, 32))
    conditional = ["--class=1"] if kind in ("labels", "vector-labels") else []
    made = tmp_path / "made"
    network = newest(run_dir)
    run("stylegan2_ada/generate.py", f"--network={network}", "--seeds=0-1,5", f"--outdir={made}", *conditional)
    assert sorted(p.name for p in made.iterdir()) == ["seed0000.png", "seed0001.png", "seed0005.png"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of mode 2, 1 kimg."""
    folder = tmp_path_factory.mktemp("trained")
    data = make_dataset(folder / "discs.zip")
    run("train_segan.py", *TINY, f"--data={data}", "--kimg=1", f"--outdir={folder / 'out'}")
    return only_run(folder / "out")


def load(run_dir):
    with open(newest(run_dir), "rb") as file:
        return legacy.load_network_pkl(file)


def test_snapshot_holds_what_the_reference_format_says(trained):
    data = load(trained)
    assert data.keys() == {"G", "D", "G_ema", "augment_pipe", "training_set_kwargs"}
    G = data["G_ema"]
    assert type(G).__name__ == "SEGANGenerator" and not G.training
    assert data["training_set_kwargs"]["class_name"] == "training.dataset.ImageFolderDataset"
    assert 0 <= float(data["augment_pipe"].p) <= 1
    options = json.loads((trained / "training_options.json").read_text())
    assert options["G_kwargs"]["class_name"] == "segan_ext.networks.SEGANGenerator"
    assert options["options"]["cfg"] == "segan-mode2"


def test_force_fp16_rebuilds_both_networks(trained):
    with open(newest(trained), "rb") as file:
        half = legacy.load_network_pkl(file, force_fp16=True)
    plain = load(trained)
    for name, net in (("G_ema", half["G_ema"].synthesis), ("D", half["D"])):
        assert net.b16.use_fp16 and net.b16.conv1.conv_clamp == 256
        assert all(torch.equal(a, b) for a, b in zip(half[name].parameters(), plain[name].parameters()))


def test_edits_of_a_trained_generator(trained):
    G = load(trained)["G_ema"]
    z = torch.from_numpy(np.random.RandomState(0).randn(2, G.z_dim))
    plain = G(z, None, noise_mode="const")
    with G.edited(offsets={(1, 1): 3.0}):
        edited = G(z, None, noise_mode="const")
    assert not torch.equal(plain, edited)
    with G.edited(factors={(1, 1): 1.0}, offsets={(1, 1): 0.0}):
        assert torch.equal(plain, G(z, None, noise_mode="const"))


def test_explore_and_samples_draw_pictures(trained, tmp_path):
    network = f"--network={newest(trained)}"
    done = run("-m segan_ext explore", network, f"--dest={tmp_path / 't.png'}", "--rows=3", "--steps=5")
    rows = [line.split() for line in done.stdout.splitlines() if " effect " in line]
    assert len(rows) == 3 and float(rows[0][2]) >= float(rows[1][2]) > 0
    assert PIL.Image.open(tmp_path / "t.png").size == (96 + 5 * 96, 16 + 3 * 96)
    run("-m segan_ext samples", network, f"--dest={tmp_path / 's.png'}", "--grid=3x2", "--trunc=0.7")
    assert PIL.Image.open(tmp_path / "s.png").size == (3 * 96, 2 * 96)


def test_style_mixing(trained, tmp_path):
    args = ["--rows=0,1", "--cols=2-4", "--styles=0-1", f"--network={newest(trained)}", f"--outdir={tmp_path}"]
    run("stylegan2_ada/style_mixing.py", *args)
    assert PIL.Image.open(tmp_path / "grid.png").size == (4 * 16, 3 * 16)
    assert (tmp_path / "1-4.png").exists()


@pytest.mark.slow
def test_transfer_from_a_host_generator_starts_with_its_images(tmp_path):
    data = make_dataset(tmp_path / "discs.zip")
    plain = tmp_path / "plain"
    recipe = ["--cfg=auto", "--channels=8", "--batch=8", "--grid=2x2", "--workers=0", f"--data={data}"]
    run("stylegan2_ada/train.py", *recipe, "--kimg=1", f"--outdir={plain}")
    source = newest(only_run(plain))
    final = PIL.Image.open(newest(only_run(plain), "fakes0*.png"))
    for name in ("mode1", "mode2-residual"):  # all forms: test_transfer.py
        out = tmp_path / name
        options = [*TINY, *FORMS[name], f"--data={data}", f"--resume={source}", "--kimg=1", f"--outdir={out}"]
        done = run("train_segan.py", *options)
        assert "decide their own shape" in done.stdout and "w_dim 64 to 512" in done.stdout
        first = PIL.Image.open(only_run(out) / "fakes_init.png")
        assert np.array_equal(first, final), name


PRESETS = {
    **{f"mode{mode}": [f"--cfg=segan-mode{mode}"] for mode in range(4)},
    "mode2-residual": ["--cfg=segan-mode2", "--subspace-dim=16"],
    "mode2-published": ["--cfg=segan-mode2", "--subspace-form=published"],
}


@pytest.mark.slow
@pytest.mark.parametrize("options", PRESETS.values(), ids=PRESETS)
def test_presets_train_at_full_size(options, tmp_path):
    """The published 64×64 settings on avatars, for 1 kimg."""
    data = tmp_path / "avatars.zip"
    run("-m segan_ext avatars", "--count=300", "--resolution=64", f"--dest={data}")
    out = tmp_path / "out"
    threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
    run("train_segan.py", *options, f"--data={data}", "--kimg=1", "--snap=1", f"--outdir={out}", env=threads)
    lines = check_run_directory(only_run(out), kimg=1)
    print({name: entry["mean"] for name, entry in lines[-1].items() if name.startswith("Loss")})


@pytest.mark.slow
def test_128_pixels_train(tmp_path):
    data = make_dataset(tmp_path / "discs.zip", size=128)
    out = tmp_path / "out"
    run("train_segan.py", *TINY, "--channel-base=1024", f"--data={data}", "--kimg=1", f"--outdir={out}")
    check_run_directory(only_run(out), kimg=1)


@pytest.fixture
def register_metric(monkeypatch):
    """The decorator, whose metrics are gone after the test"""
    monkeypatch.setattr(metric_main, "_metrics", dict(metric_main._metrics))
    return metric_main.register_metric


def test_metrics_are_kept_beside_snapshots_and_leave_no_trace_in_a_run(register_metric, trained, tmp_path):
    """A metric that draws random numbers, registered as a user would, in the loop that made `trained`."""

    @register_metric
    def mean_brightness(opts):
        images = opts.G(torch.randn(4, opts.G.z_dim), None)
        return dict(mean_brightness=float(images.mean()))

    training_loop(**dict(args_of(trained), run_dir=str(tmp_path), metrics=["mean_brightness"]))
    lines = [json.loads(line) for line in (tmp_path / "metric-mean_brightness.jsonl").read_text().splitlines()]
    assert [line["snapshot_pkl"] for line in lines] == ["network-snapshot-000000.pkl", "network-snapshot-000001.pkl"]
    assert all(math.isfinite(line["results"]["mean_brightness"]) for line in lines)
    with_metric, without = (load(run_dir)["G_ema"].state_dict() for run_dir in (tmp_path, trained))
    assert all(torch.equal(with_metric[name], without[name]) for name in without)


def test_dry_run_writes_nothing(tmp_path):
    data = make_dataset(tmp_path / "discs.zip")
    done = run("train_segan.py", "-n", f"--data={data}", f"--outdir={tmp_path / 'out'}")
    assert '"mode": 2' in done.stdout and "Dry run" in done.stdout and not (tmp_path / "out").exists()


def test_unused_labels_are_mentioned(tmp_path):
    data = make_dataset(tmp_path / "discs.zip", labels="classes")
    assert "labels that are not used" in run("train_segan.py", "-n", f"--data={data}").stdout


def args_of(run_dir):
    """The arguments of the training loop that a run was made with"""
    args = json.loads((run_dir / "training_options.json").read_text())
    del args["options"]
    return args


def test_a_metric_that_does_not_fit_into_memory_ends_no_run(register_metric, trained, tmp_path, capsys):
    @register_metric
    def too_large(opts):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 90.00 GiB")

    @register_metric
    def wrong(opts):
        raise RuntimeError("a fault in the code")

    training_loop(**dict(args_of(trained), run_dir=str(tmp_path), metrics=["too_large"]))
    assert "too_large could not be computed: out of memory" in capsys.readouterr().out
    assert (tmp_path / "network-snapshot-000001.pkl").exists()
    with pytest.raises(RuntimeError, match="a fault in the code"):
        training_loop(**dict(args_of(trained), run_dir=str(tmp_path), metrics=["wrong"]))


@pytest.mark.parametrize(
    "error, said",
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory; a smaller --batch-gpu needs less"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory; a smaller"),
        (MemoryError(), "out of memory; a smaller"),
    ],
    ids=["cuda", "cpu", "numpy"],
)
def test_a_run_that_does_not_fit_into_memory_says_what_helps(error, said, trained, tmp_path, monkeypatch, capsys):
    def greedy(self, *_args):
        raise error

    monkeypatch.setattr(AugmentPipe, "forward", greedy)  # the machine's failure, where it may well happen
    with pytest.raises(SystemExit) as stopped:
        launch.run(dict(args_of(trained), run_dir=str(tmp_path)))
    assert stopped.value.code == 1 and said in capsys.readouterr().err


def test_nan_does_not_turn_augmentation_off(trained, tmp_path, monkeypatch):
    """A D that gives NaN for one batch, and again and again."""
    forward, calls = networks.Discriminator.forward, []

    def sometimes_nan(self, img, c, **kwargs):
        calls.append(img)
        return forward(self, img, c, **kwargs) * (float("nan") if len(calls) % 7 == 0 else 1)

    monkeypatch.setattr(networks.Discriminator, "forward", sometimes_nan)
    training_loop(**dict(args_of(trained), run_dir=str(tmp_path), total_kimg=1, ada_kimg=1, ada_target=-0.9))
    last = read_stats(tmp_path)[-1]
    assert last["Progress/augment"]["mean"] > 0
    bad = [name for name in last if name.startswith(("Loss", "Progress")) and not math.isfinite(last[name]["mean"])]
    assert not bad
    assert "were left out of the statistics" in (tmp_path / "health.txt").read_text()
    snapshot = load(tmp_path)
    assert snapshot["augment_pipe"].p.isfinite() and snapshot["G_ema"].mapping.w_avg.isfinite().all()


def test_statistics_of_an_earlier_training_are_forgotten(trained, tmp_path):
    training_stats.report("Loss/of_another_loss", 1.0)
    training_loop(**dict(args_of(trained), run_dir=str(tmp_path), total_kimg=0.05))
    (*_, last) = read_stats(tmp_path)
    assert "Loss/of_another_loss" not in last
    assert all(math.isfinite(entry["mean"]) for name, entry in last.items() if name != "timestamp")


def stop_after(steps):
    """abort_fn of a run that is asked to stop after so many steps, and progress_fn, by which it counts them"""
    done = []
    return dict(abort_fn=lambda: len(done) >= steps, progress_fn=lambda *_: done.append(1))


def test_a_run_that_is_to_stop_leaves_its_metrics_for_later(register_metric, trained, tmp_path, capsys):
    measured = []

    @register_metric
    def quick(opts):
        measured.append(opts)
        return dict(quick=float(len(measured)))

    args = dict(args_of(trained), run_dir=str(tmp_path), total_kimg=0.1, metrics=["quick"])
    training_loop(**args, **stop_after(5))
    assert len(measured) == 1  # of the first step's snapshot
    assert "Stopped at 0.0 kimg" in capsys.readouterr().out
    (path,) = saved_states(str(tmp_path))
    assert read(path)["counters"]["cur_nimg"] == 40
    training_loop(**args, resume_state=path)
    assert len(measured) == 3  # of that where it stopped, and of the last one
    assert len((tmp_path / "metric-quick.jsonl").read_text().splitlines()) == 3


def test_a_request_to_stop_breaks_off_a_metric(register_metric, trained, tmp_path, capsys):
    began = []

    @register_metric
    def quick(opts):
        return dict(quick=1.0)

    @register_metric
    def endless(opts):
        began.append(opts)
        progress = opts.progress.sub("endless")
        while opts.G is not None:
            progress.update(1)

    args = dict(args_of(trained), run_dir=str(tmp_path), total_kimg=0.1, metrics=["endless", "quick"])
    training_loop(**args, abort_fn=lambda: bool(began))
    output = capsys.readouterr().out
    assert "endless of network-snapshot-000000.pkl is left out; --resume makes up for it" in output
    assert "Stopped at 0.0 kimg" in output and len(began) == 1 and not list(tmp_path.glob("metric*"))
    (path,) = saved_states(str(tmp_path))
    training_loop(**args | dict(metrics=["quick"]), resume_state=path)  # one of the first snapshot, and one of the last
    assert len((tmp_path / "metric-quick.jsonl").read_text().splitlines()) == 2


def test_states_are_saved_between_ticks(trained, tmp_path):
    saved = []

    def progress(*_):
        saved.extend(read(path)["counters"]["cur_nimg"] for path in saved_states(str(tmp_path)))

    args = dict(args_of(trained), run_dir=str(tmp_path), total_kimg=0.064, kimg_per_tick=100, save_minutes=1e-9)
    training_loop(**args, progress_fn=progress)
    assert saved == [8, 16, 24, 32, 40, 48, 56]  # before each step after the first


@pytest.mark.parametrize("count", [1, 3])
def test_a_data_set_of_one_picture_is_named(count, trained, tmp_path, capsys):
    for i in range(count):
        (tmp_path / f"{i}.png").write_bytes(png())
    data = dict(args_of(trained)["training_set_kwargs"], path=str(tmp_path), max_size=None)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    training_loop(**dict(args_of(trained), run_dir=str(run_dir), total_kimg=0.02, training_set_kwargs=data))
    assert "the data set is one picture" in (run_dir / "health.txt").read_text()
    assert "not finite" not in capsys.readouterr().out


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB"""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(mount)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("mounting needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_fills_up_gets_a_sentence(trained, small_disk):
    outdir = small_disk / "out"
    data = args_of(trained)["training_set_kwargs"]["path"]
    args = ["train_segan.py", *TINY, f"--data={data}", "--kimg=1000", "--tick=0.1", f"--outdir={outdir}"]
    process = start(command(*args))
    wait_for(lambda: list(outdir.glob("*/training-state-*.pt")), process)
    # Lest it replaces what it has saved before the disk is full.
    with held(process), open(small_disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        before = {path: path.read_bytes() for path in outdir.glob("*/network-snapshot-*.pkl")}
        while True:
            filler.write(bytes(4096))  # until there is no room for another page
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, (process.returncode, errors)
    (line,) = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert "No space left on device" in line and "goes on from training-state-" in line
    assert "Traceback" not in out + errors and "Exception" not in out + errors
    assert before and all(path.read_bytes() == content for path, content in before.items())
