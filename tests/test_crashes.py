"""Whatever ends a run, nothing that was saved is lost, and what goes on ends as an undisturbed run does."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

import psutil
import pytest

from dnnlib.util import make_cache_dir_path
from helpers import (
    PATIENCE,
    ROOT,
    TINY,
    assert_same_end,
    command,
    held,
    make_dataset,
    newest,
    only_run,
    read_stats,
    run,
    saved_kimg,
    start,
    wait_for,
    write_segmenter,
)
from runs.run_dir import hold
from snapshots.atomic import append_line, write_atomically
from training.training_loop import training_loop

METRICS = ["--metrics=ppl2_wend", "--detector=pixel-pyramid", "--num-gen=8"]
KILLS = int(os.environ.get("SEGAN_KILLS", 6))  # twenty take ten minutes
OPTIONS = ["--cfg=segan-mode2", *TINY, "--kimg=1", "--tick=0.1", "--snap=2", "--seed=3", *METRICS]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "discs.zip")


def kill(process):
    """SIGKILL to a run and its other processes"""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()  # whose pipes the others hold too


def is_writing(process, out):
    """Holds a run for a moment to see whether it is in the middle of writing a file; if so, it stays held."""
    os.killpg(process.pid, signal.SIGSTOP)
    while psutil.Process(process.pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
        pass
    if list(out.glob("*/*.tmp")):
        return True
    os.killpg(process.pid, signal.SIGCONT)
    return False


def metric_lines(run_dir):
    lines = [line for path in sorted(run_dir.glob("metric-*.jsonl")) for line in path.read_text().splitlines()]
    return [line.split(', "total_time"')[0] + line[line.index('"snapshot_pkl"') :].split(", ")[0] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("processes, kills", [(1, KILLS), (2, KILLS // 3)])
def test_runs_that_are_killed_at_random_end_the_same(processes, kills, data, tmp_path):
    """SEGAN_KILLS says how many. Every other kill comes in the middle of a write."""
    options = [*OPTIONS, f"--batch={8 * processes}", f"--data={data}", f"--gpus={processes}"]
    run("train_segan.py", *options, f"--outdir={tmp_path / 'left-alone'}")
    rng, out, killed = random.Random(0), tmp_path / "killed", 0
    out.mkdir()
    while killed < kills:
        process = start(
            command("train_segan.py", *options, f"--outdir={out}", *(["--resume=latest"] if saved_kimg(out) else []))
        )
        logs = lambda: [log for log in out.glob("*/log.txt") if "tick" in log.read_text()]
        begun = time.time()
        if killed % 2:
            patience = rng.uniform(0, 4)
            while process.poll() is None and not (logs() and time.time() - begun > patience):
                time.sleep(0.01)
        else:
            at_least = saved_kimg(out) + rng.choice([0, 100])  # not always the first one, which would be the end of it
            while process.poll() is None and not (saved_kimg(out) >= at_least and is_writing(process, out)):
                time.sleep(0.001)
        if process.poll() is not None:  # it came to its end first: begin anew
            process.communicate()
            shutil.rmtree(out)
            out.mkdir()
            continue
        kill(process)
        assert killed % 2 or list(out.glob("*/*.tmp"))
        killed += 1
    for run_dir in list(out.iterdir()):  # those that had not saved anything when they were killed
        if not list(run_dir.glob("training-state-*.pt")):
            shutil.rmtree(run_dir)
    options = ["--resume=latest"] if saved_kimg(out) else options
    run("train_segan.py", *options, f"--outdir={out}")
    ours, theirs = only_run(out), only_run(tmp_path / "left-alone")
    assert_same_end(ours, theirs)
    assert metric_lines(ours) == metric_lines(theirs)
    assert not list(ours.glob("*.tmp"))


@pytest.mark.slow
def test_metrics_that_a_kill_took_are_made_up_for(data, tmp_path):
    run("train_segan.py", *OPTIONS, f"--data={data}", f"--outdir={tmp_path}")
    run_dir = only_run(tmp_path)
    whole, stats = metric_lines(run_dir), read_stats(run_dir)
    assert len(whole) == 6
    path = newest(run_dir, "metric-*.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]) + '{"results": {"ppl2')
    run("train_segan.py", f"--resume={run_dir}", "--kimg=2")
    assert metric_lines(run_dir)[:6] == whole
    assert "Metrics/ppl2_wend_pixel-pyramid_n8" in read_stats(run_dir)[len(stats)]


def test_one_process_has_a_run_at_a_time(data, tmp_path):
    process = start(command("train_segan.py", *OPTIONS, "--kimg=10", f"--data={data}", f"--outdir={tmp_path}"))
    wait_for(lambda: saved_kimg(tmp_path) >= 8, process)
    run_dir = only_run(tmp_path)
    done = run("train_segan.py", f"--resume={run_dir}", check=False)
    assert done.returncode == 2 and f"is being trained by process {process.pid}" in done.stderr
    kill(process)
    (run_dir / "network-snapshot-000001.pkl.tmp").write_bytes(b"left behind")
    assert "goes on" not in run("train_segan.py", f"--resume={run_dir}", "--dry-run").stderr
    assert not list(run_dir.glob("*.tmp"))


@pytest.mark.slow
def test_states_are_saved_by_time_and_two_are_kept(data, tmp_path):
    often = ["--kimg=2", "--tick=0.5", "--snap=100", "--save-minutes=0"]
    run("train_segan.py", *OPTIONS, *often, f"--data={data}", f"--outdir={tmp_path}")
    names = sorted(path.name for path in only_run(tmp_path).iterdir())
    assert [name for name in names if "state" in name] == ["training-state-000001.pt", "training-state-000002.pt"]
    assert [name for name in names if "snapshot" in name] == [f"network-snapshot-00000{i}.pkl" for i in (0, 2)]
    newest(only_run(tmp_path), "training-state-*.pt").unlink()
    run("train_segan.py", f"--resume={only_run(tmp_path)}", "--keep=1")
    assert [path.name for path in only_run(tmp_path).glob("*state*")] == ["training-state-000002.pt"]


@pytest.mark.slow
def test_other_data_are_refused_and_moved_ones_found(data, tmp_path):
    mine = shutil.copy(data, tmp_path / "mine.zip")
    run("train_segan.py", *OPTIONS, f"--data={mine}", f"--outdir={tmp_path / 'out'}")
    run_dir = only_run(tmp_path / "out")
    other = make_dataset(tmp_path / "other.zip", 41)
    moved = shutil.move(mine, tmp_path / "moved.zip")
    done = run("train_segan.py", f"--resume={run_dir}", "--kimg=2", f"--data={other}", check=False)
    assert done.returncode == 2 and "does not hold what the run began with" in done.stderr
    run("train_segan.py", f"--resume={run_dir}", "--kimg=2", f"--data={moved}")


@pytest.mark.slow
def test_data_that_vanish_and_killed_loaders_end_a_run_with_a_sentence(tmp_path):
    folder = make_dataset(tmp_path / "discs")
    options = [*OPTIONS, "--kimg=100", "--workers=2", f"--data={folder}", f"--outdir={tmp_path / 'out'}"]
    process = start(command("train_segan.py", *options))
    wait_for(lambda: saved_kimg(tmp_path / "out") >= 8, process)
    psutil.Process(process.pid).children()[0].kill()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "DataLoader worker" in errors and "goes on from training-state" in errors
    assert "Traceback" not in errors
    process = start(command("train_segan.py", f"--resume={only_run(tmp_path / 'out')}", "--workers=2"))
    wait_for(lambda: saved_kimg(tmp_path / "out") >= 400, process)
    shutil.rmtree(folder)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "cannot be read" in errors and "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """A file system of that size; skipped where one cannot be mounted"""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def files_of(run_dir):
    return {path.name: path.read_bytes() for path in run_dir.iterdir() if path.suffix in (".pkl", ".pt")}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["snapshot", "log", "metric"])
def test_a_full_disk_loses_nothing(moment, data, tmp_path):
    with small_disk(tmp_path / "disk", 16) as disk:
        options = [*OPTIONS, "--kimg=100", f"--data={data}", f"--outdir={disk}"]
        options += ["--snap=1000"] if moment == "log" else ["--num-gen=2000"] if moment == "metric" else []
        process = start(command("train_segan.py", *options))
        wait_for(lambda: saved_kimg(disk) >= (8 if moment in ("log", "metric") else 400), process)
        run_dir = only_run(disk)
        with held(process):  # lest it replaces what it has saved before the disk is full
            before = files_of(run_dir)
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, output + errors
        assert "No space left" in errors and "Traceback" not in errors
        after = files_of(run_dir)
        assert all(after.get(name) == content for name, content in before.items() if name in after)
        assert saved_kimg(disk) >= 8
        (disk / "filler").unlink()
        run("train_segan.py", f"--resume={run_dir}", "--kimg=2", "--num-gen=8")
        assert saved_kimg(disk) >= 2000


@pytest.mark.slow
def test_a_read_only_disk_is_named(data, tmp_path):
    with small_disk(tmp_path / "disk", 16) as disk:
        run("train_segan.py", *OPTIONS, f"--data={data}", f"--outdir={disk}")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for options in ([f"--resume={only_run(disk)}", "--kimg=2"], [*OPTIONS, f"--data={data}", f"--outdir={disk}"]):
            done = run("train_segan.py", *options, check=False)
            assert done.returncode == 2 and "Read-only" in done.stderr and "Traceback" not in done.stderr


def test_numbers_that_are_not_finite_end_a_run_with_advice(data, tmp_path):
    done = run(
        "train_segan.py", *OPTIONS, "--lrate=1e30", f"--data={data}", "--kimg=4", f"--outdir={tmp_path}", check=False
    )
    assert done.returncode == 1 and "lower --lrate" in done.stderr and "Traceback" not in done.stderr
    assert "begin" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_clock_that_is_set_back_does_no_harm(data, tmp_path, monkeypatch):
    run("train_segan.py", *OPTIONS, f"--data={data}", f"--outdir={tmp_path}")
    args = json.loads((only_run(tmp_path) / "training_options.json").read_text())
    args.pop("options")
    clock = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    again = tmp_path / "again"
    again.mkdir()
    training_loop(**args | dict(run_dir=str(again), metrics=[]))
    assert all(line["Timing/sec_per_tick"]["mean"] >= 0 for line in read_stats(again))


TOOLS = dict(
    dataset=["stylegan2_ada/dataset_tool.py", "--source={folder}/discs", "--dest={out}/data.zip"],
    avatars=["-m segan_ext", "avatars", "--count=60", "--resolution=32", "--masks", "--dest={out}/avatars.zip"],
    projector=[
        "stylegan2_ada/projector.py",
        "--network={folder}/G.pkl",
        "--target={folder}/discs/00000/img00000000.png",
    ]
    + ["--detector=pixel-pyramid", "--num-steps=100", "--save-video=0", "--outdir={out}"],
    discover=[
        "-m segan_ext",
        "discover",
        "--network={folder}/G.pkl",
        "--method=ica",
        "--dest={out}/directions.safetensors",
    ],
    semantics=["-m segan_ext", "semantics", "train", "--network={folder}/G.pkl", "--segmenter={folder}/brightness.pt"]
    + ["--method=sgd", "--samples=64", "--dest={out}/extractor.safetensors"],
    atlas=["-m segan_ext", "explore", "--network={folder}/sefa.pkl", "--atlas={out}/atlas.html"],
    features=["stylegan2_ada/calc_metrics.py", "--network={folder}/G.pkl", "--metrics=fid50k_full"]
    + ["--data={folder}/discs", "--num-gen=100", "--detector=vgg-hed"],
)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A folder with what tools need: a generator, images, a segmenter"""
    folder = tmp_path_factory.mktemp("pieces")
    make_dataset(folder / "discs")
    shutil.copy(folder / "discs" / "00000" / "img00000000.png", folder / "target.png")
    write_segmenter(folder / "brightness.pt", ("background", "bright", "dark"))
    short = ["--cfg=segan-mode0", *TINY, "--kimg=1", "--metrics=none"]
    run("train_segan.py", *short, f"--data={folder / 'discs'}", f"--outdir={folder / 'runs'}")
    shutil.copy(newest(only_run(folder / "runs"), "network-snapshot-*.pkl"), folder / "G.pkl")
    run("-m segan_ext", "discover", f"--network={folder / 'G.pkl'}", f"--dest={folder / 'sefa.pkl'}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_tools_that_are_killed_leave_nothing_half_and_do_it_again(tool, pieces, tmp_path):
    """Pictures apart, which are to be looked at."""

    def call(out):
        if not out.exists():
            (out / "cache").mkdir(parents=True)
            (out / "cache" / "kernels").symlink_to(make_cache_dir_path("kernels"))  # which take seconds to build
        script, *options = [text.format(folder=pieces, out=out) for text in TOOLS[tool]]
        return start(command(script, *options), env=dict(DNNLIB_CACHE_DIR=str(out / "cache")))

    def written(out):
        found = (path for path in out.rglob("*") if path.is_file() and path.suffix not in (".png", ".tmp"))
        return {str(path.relative_to(out)): path.read_bytes() for path in found}

    whole, out = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    process = call(whole)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    seconds, expected = time.monotonic() - began, written(whole)
    assert expected
    for share in (0.5, 0.8, 0.95):
        process = call(out)
        time.sleep(share * seconds)
        kill(process)
    process = call(out)
    output, errors = process.communicate()
    assert process.returncode == 0 or "exists" in errors, output + errors
    assert written(out).keys() == expected.keys()
    assert [name for name, content in written(out).items() if content != expected[name]] == []


def test_half_a_line_is_dropped_before_the_next_one(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, "one")
    with open(path, "a") as file:
        file.write("tw")
    append_line(path, "three")
    assert path.read_text() == "one\nthree\n"


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "cache" / "one.npz"
    path.parent.mkdir()

    def slow(file):
        file.write(b"A" * 1000)
        write_atomically(path, lambda other: other.write(b"B" * 3000))
        assert path.read_bytes() == b"B" * 3000
        file.write(b"A" * 1000)

    write_atomically(path, slow)
    assert path.read_bytes() == b"A" * 2000 and os.listdir(path.parent) == ["one.npz"]


def test_what_killed_writes_have_left_is_swept_but_not_what_calc_metrics_may_be_writing(tmp_path):
    for name in (
        "network-snapshot-000001.pkl.0a1b2c3d.tmp",
        "metric-old.json.0a1b2c3d.tmp",
        "metric-new.json.4e5f.tmp",
    ):
        (tmp_path / name).touch()
    os.utime(tmp_path / "metric-old.json.0a1b2c3d.tmp", (0, 0))
    hold(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["metric-new.json.4e5f.tmp", "run.lock"]


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_of_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", lambda file: file.write(b"x"))
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


SAVE_BEYOND_A_LIMIT = """
import resource, signal, sys
import torch
from snapshots.atomic import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for numbers in range(1000, 12_000, 250):
    tensors = dict(a=torch.zeros(numbers // 2), b=torch.zeros(numbers // 2))
    try:
        write_atomically(sys.argv[1], lambda file: torch.save(tensors, file))
    except OSError as error:
        assert "File too large" in str(error) and sys.argv[1] in str(error), error
        refused = numbers
    else:
        kept = numbers
assert len(torch.load(sys.argv[1])["a"]) == kept // 2 and kept < refused
"""


def test_what_does_not_fit_on_the_disk_is_an_os_error_wherever_torch_stops(tmp_path):
    path = tmp_path / "state.pt"
    run("-c", SAVE_BEYOND_A_LIMIT, path, env=dict(PYTHONPATH=str(ROOT / "stylegan2_ada")))
    assert os.listdir(tmp_path) == ["state.pt"]


WRITERS_BEYOND_A_LIMIT = """
import os, resource, signal, sys
import numpy as np, PIL.Image, pytest, torch
from click import ClickException
from segan_ext import host
host.activate()
import generate
from metrics.metric_utils import FeatureStats
from snapshots.load import load_generator
from snapshots.safetensors import save_safetensors
from training.images import save_picture, save_video

folder, network = sys.argv[1:]
noise = np.random.RandomState(0).randint(0, 256, [40, 128, 128, 3]).astype(np.uint8)
frames = [PIL.Image.fromarray(frame) for frame in noise]
features = FeatureStats(capture_all=True)
features.append(np.random.randn(1000, 64))
G = load_generator(network)
args = [f"--network={network}", "--seeds=1", f"--outdir={folder}", "--device=cpu"]
writers = {
    "picture.png": lambda path: save_picture(frames[0], path),
    "film.gif": lambda path: save_picture(frames[0], path, save_all=True, append_images=frames[1:]),
    "film.mp4": lambda path: save_video(path, noise),
    "features.npz": features.save,
    "G.safetensors": lambda path: save_safetensors(G, path),
    "seed0001.png": lambda path: generate.main(args, standalone_mode=False),
}
for name, write in writers.items():
    write(os.path.join(folder, name))
there = {name: open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder)}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for name, write in writers.items():
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(there[name]) // 2, resource.RLIM_INFINITY))
    path = os.path.join(folder, name)
    with pytest.raises((OSError, ClickException), match="too large|ffmpeg could not write all") as caught:
        write(path)
    assert path in str(caught.value) and "\\n" not in str(caught.value), caught.value
assert there == {name: open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder)}
"""


def test_every_writer_says_what_the_disk_refused_and_keeps_what_was_there(tmp_path):
    network = ROOT / "tests" / "golden" / "nvidia_pickle_uncond.pkl"
    run("-c", WRITERS_BEYOND_A_LIMIT, tmp_path, network, env=dict(PYTHONPATH=str(ROOT)))


@pytest.mark.parametrize(
    "script, options, there",
    [
        ("-m segan_ext", ["avatars", "--count=60", "--resolution=64"], "avatars.zip"),
        ("stylegan2_ada/dataset_tool.py", ["--source={data}"], "data.zip"),
        ("stylegan2_ada/dataset_tool.py", ["--source={data}", "--width=128", "--height=128"], "data"),
    ],
    ids=["avatars", "zip", "folder"],
)
def test_data_sets_that_do_not_fit_on_the_disk_get_a_sentence(script, options, there, data, tmp_path):
    """With a limit of 20 KiB on the size of files"""
    options = [option.format(data=data) for option in options]
    args = command(script, *options, f"--dest={tmp_path / there}")
    done = subprocess.run(["bash", "-c", f"ulimit -f 20; exec {' '.join(args)}"], capture_output=True, text=True)
    assert done.returncode, done.stdout
    assert "Traceback" not in done.stderr and "File too large" in done.stderr.splitlines()[-1], done.stderr
    assert str(tmp_path / there) in done.stderr and os.listdir(tmp_path) == []
