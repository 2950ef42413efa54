"""A run that was stopped at any moment and continued ends as one that was left alone, bit for bit."""

import os
import shutil
import signal
import subprocess

import PIL.Image
import pytest
import torch

from helpers import (
    PATIENCE,
    ROOT,
    TINY,
    assert_same_end,
    bits,
    command,
    make_dataset,
    newest,
    only_run,
    read_stats,
    run,
    saved_kimg,
    slowly,
    start,
    ticks_of,
    wait_for,
)
from training import state

# ADA, path length, R1, mixing and noise all draw random numbers; a tick of 0.1 kimg makes many snapshots in 1 kimg.
OPTIONS = ["--cfg=segan-mode2", *TINY, "--kimg=1", "--tick=0.1", "--snap=2", "--seed=3", "--mirror=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "discs.zip", labels="classes")


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    run("train_segan.py", *OPTIONS, f"--data={data}", "--cond=1", f"--outdir={out}")
    return only_run(out)


def begun(data, out, *options):
    return start(command("train_segan.py", *OPTIONS, f"--data={data}", "--cond=1", f"--outdir={out}", *options))


@pytest.mark.parametrize("images", slowly([8, 400], fast=[400]))
def test_killed_runs_end_the_same(images, data, undisturbed, tmp_path):
    while not 0 < saved_kimg(tmp_path) < 1000:  # one that had come to its end meanwhile is no use
        shutil.rmtree(tmp_path)
        process = begun(data, tmp_path)
        wait_for(lambda: saved_kimg(tmp_path) >= images, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run_dir = only_run(tmp_path)
    run("train_segan.py", f"--resume={run_dir}", "--workers=2")
    assert_same_end(run_dir, undisturbed)


@pytest.mark.slow
def test_terminated_runs_save_the_step_they_are_in(data, undisturbed, tmp_path):
    process = begun(data, tmp_path, "--workers=2")
    wait_for(lambda: saved_kimg(tmp_path) >= 8, process)
    before = saved_kimg(tmp_path)
    wait_for(lambda: ticks_of(tmp_path) >= 2, process)
    os.killpg(process.pid, signal.SIGTERM)  # to the loader's processes too, as a job scheduler does
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0 and "continues it" in output
    assert saved_kimg(tmp_path) > before
    run("train_segan.py", *OPTIONS, f"--data={data}", "--cond=1", f"--outdir={tmp_path}", "--resume=latest")
    run_dir = only_run(tmp_path)
    a, b = (state.read(str(newest(d, "training-state-*.pt"))) for d in (run_dir, undisturbed))
    assert bits(a["modules"]) == bits(b["modules"]) and bits(a["optimizers"]) == bits(b["optimizers"])


@pytest.mark.slow
def test_a_run_can_be_made_longer(data, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "00000-copy")
    done = run("train_segan.py", f"--resume={tmp_path / '00000-copy'}", check=False)
    assert done.returncode == 2 and "raise --kimg" in done.stderr
    (tmp_path / "notes.txt").touch()
    options = [f"--outdir={tmp_path}", "--resume=latest", "--kimg=2", "--workers=1", "--tick=0.5", "--grid=3x1"]
    run("train_segan.py", *options)
    assert saved_kimg(tmp_path) >= 2000
    ticks = [line["Progress/kimg"]["mean"] for line in read_stats(tmp_path / "00000-copy")]
    assert 0.09 < ticks[3] - ticks[2] < 0.12 and 0.49 < ticks[-2] - ticks[-3] < 0.52
    assert PIL.Image.open(tmp_path / "00000-copy" / "fakes000002.png").size == (48, 16)
    done = run("train_segan.py", f"--resume={tmp_path / '00000-copy'}", "--kimg=3", "--gamma=3", check=False)
    assert done.returncode == 2 and "--gamma: the run has the default" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_another_mode_is_continued_without_naming_it(data, tmp_path):
    options = ["--cfg=segan-mode3", *TINY, "--kimg=1", f"--data={data}", f"--outdir={tmp_path}"]
    run("train_segan.py", *options)
    run("train_segan.py", f"--resume={only_run(tmp_path)}", "--kimg=2")
    assert saved_kimg(tmp_path) >= 2000


def test_a_damaged_state_is_named(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "00000-copy")
    path = newest(tmp_path / "00000-copy", "training-state-*.pt")
    path.write_bytes(path.read_bytes()[:1000])
    done = run("train_segan.py", f"--resume={tmp_path / '00000-copy'}", "--kimg=2", check=False)
    assert done.returncode == 2 and path.name in done.stderr and "damaged" in done.stderr


def test_options_of_a_newer_version_are_refused(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "00000-copy")
    path = tmp_path / "00000-copy" / "training_options.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    done = run("train_segan.py", f"--resume={path.parent}", "--kimg=2", check=False)
    assert done.returncode == 2 and "is of version 2; this version of SEGAN reads 1" in done.stderr


WATCHED = """
import runpy, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
script, sys.argv = sys.argv[1], sys.argv[1:]
sys.path.insert(0, script.rpartition("/")[0])
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as done:
    assert not done.code, done.code
print("opened:", *[sum(path.endswith(end) for path in opened) for end in ("discs.zip", ".pkl.source")])
"""


@pytest.mark.slow
def test_data_and_pickles_are_opened_once(data, undisturbed, tmp_path):
    source = shutil.copy(newest(undisturbed), tmp_path / "network.pkl.source")
    (tmp_path / "watched.py").write_text(WATCHED)
    again = ["--cond=1", "--kimg=1", *TINY, f"--data={data}", f"--outdir={tmp_path}", f"--resume={source}"]
    for options in ([], ["--train=subspace"]):
        done = run(str(tmp_path / "watched.py"), ROOT / "train_segan.py", *again, *options)
        assert "opened: 2 1" in done.stdout  # the data to see whether it is a zip, and to read it


@pytest.mark.parametrize("unwritten", ["snapshot", "state"])
def test_a_full_disk_leaves_whole_files_and_a_sentence(unwritten, data, undisturbed, tmp_path):
    """With a limit on the size of files, in KiB: the state is a little larger than the snapshot before it."""
    limit = 100 if unwritten == "snapshot" else newest(undisturbed).stat().st_size // 1024 + 20
    args = command("train_segan.py", *OPTIONS, f"--data={data}", "--cond=1", f"--outdir={tmp_path}")
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f {limit}; exec {' '.join(args)}"],
        capture_output=True,
        text=True,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    run_dir = only_run(tmp_path)
    assert "File too large" in (run_dir / "log.txt").read_text()
    assert not list(run_dir.glob("training-state*")) and not list(run_dir.glob("*.tmp"))
    snapshots = [str(path) for path in run_dir.glob("network-snapshot*")]
    assert len(snapshots) == (unwritten == "state")
    for path in snapshots:  # what there is to go on with is named, and can be
        assert f"--resume={path} begins a new run" in done.stderr
        run("train_segan.py", *OPTIONS, f"--data={data}", "--cond=1", f"--resume={path}", "--dry-run")
    assert snapshots or "saved nothing yet" in done.stderr


def test_state_opens_without_code(undisturbed):
    saved = torch.load(newest(undisturbed, "training-state-*.pt"), weights_only=True)
    assert saved["counters"]["cur_nimg"] == 1000


class TwoGPUs:
    """Stands in for the random numbers of two GPUs, of which one is in use"""

    def __init__(self, monkeypatch, in_use):
        self.states = [torch.tensor([0, 0], dtype=torch.uint8), torch.tensor([1, 0], dtype=torch.uint8)]
        self.in_use = in_use
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: self.in_use)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: self.states[self.in_use].clone())
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.set)

    def set(self, state):
        self.states[self.in_use] = state.clone()


@pytest.mark.parametrize("then", [0, 1])
@pytest.mark.parametrize("now", [0, 1])
def test_random_numbers_of_the_gpu_in_use_go_on_whatever_its_number(then, now, monkeypatch):
    TwoGPUs(monkeypatch, then).set(torch.tensor([7, 7], dtype=torch.uint8))
    saved = state.random_state()
    here = TwoGPUs(monkeypatch, now)
    before = here.states[1 - now].tolist()
    state.set_random_state(saved)
    assert here.states[now].tolist() == saved["cuda"][0].tolist() != before
    assert here.states[1 - now].tolist() == before


def test_states_of_all_gpus_as_older_versions_saved_them_are_read(monkeypatch):
    here = TwoGPUs(monkeypatch, 1)
    of_all = [torch.tensor([number, 9], dtype=torch.uint8) for number in range(8)]
    state.set_random_state(state.random_state() | dict(cuda=of_all))
    assert [each.tolist() for each in here.states] == [[0, 0], [1, 9]]
    here.in_use = 0
    state.set_random_state(state.random_state() | dict(cuda=of_all[:1]))
    assert here.states[0].tolist() == [0, 9]
