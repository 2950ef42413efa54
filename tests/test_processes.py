"""Several processes that train as one: the same arithmetic, exact continuation, and an end for all when one is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
import torch

from helpers import (
    PATIENCE,
    ROOT,
    TINY,
    bits,
    command,
    make_dataset,
    newest,
    only_run,
    run,
    saved_kimg,
    start,
    ticks_of,
    wait_for,
)
from training import state

OPTIONS = ["--cfg=segan-mode2", *TINY, "--kimg=1", "--tick=0.1", "--snap=2", "--seed=3"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "discs.zip")


def twins(data, tmp_path, count, *metrics):
    """What tests/twin.py saves, trained by so many processes; metrics: instead of its own"""
    folder = tmp_path / str(count)
    folder.mkdir()
    path = os.pathsep.join([str(ROOT / "stylegan2_ada"), str(ROOT)])
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=path)
    started = [
        subprocess.Popen(
            [sys.executable, ROOT / "tests" / "twin.py", folder, data, str(rank), str(count), *metrics], env=env
        )
        for rank in range(count)
    ]
    assert [process.wait(timeout=PATIENCE) for process in started] == [0] * count
    lines = [line for path in sorted(folder.glob("metric-*.jsonl")) for line in path.read_text().splitlines()]
    metrics = [json.loads(line)["results"] for line in lines]
    return torch.load(folder / "twin.pt", weights_only=True) | dict(metrics=metrics)


def test_two_processes_compute_what_one_does(data, tmp_path):
    one, two = (twins(data, tmp_path, count) for count in (1, 2))
    assert set(one["gradients"]) == {"Gmain", "Greg", "Dmain", "Dreg"}
    for phase, gradients in one["gradients"].items():
        largest = max(float(gradient.abs().max()) for gradient in gradients.values())
        for name, gradient in gradients.items():
            assert float((two["gradients"][phase][name] - gradient).abs().max()) <= 1e-5 * largest, (phase, name)
    assert one["p"] == two["p"] != 0.5
    assert two["pl_mean"] == pytest.approx(one["pl_mean"], rel=1e-3)
    assert set(one["stats"]) == set(two["stats"])
    for name, value in one["stats"].items():  # rounding, grown over 20 steps
        assert two["stats"][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    for name, tensor in one["G_ema"].items():
        torch.testing.assert_close(two["G_ema"][name], tensor, rtol=1e-3, atol=1e-3, msg=name)
    assert len(one["metrics"]) == 4  # two, of the first step and of the last
    for results, others in zip(one["metrics"], two["metrics"], strict=True):
        assert others == pytest.approx(results, rel=1e-3)


def test_a_metric_that_fails_in_one_process_ends_in_all(data, tmp_path, capfd):
    found = twins(data, tmp_path, 2, "fails_in_the_second", "kid50k_full")
    assert len(found["metrics"]) == 2 and all(
        list(results) == ["kid50k_full_vgg-hed_n64"] for results in found["metrics"]
    )
    assert capfd.readouterr().out.count("fails_in_the_second could not be computed: out of memory") == 2


def two(out, data):
    """A run of two processes that --gpus starts"""
    return start(command("train_segan.py", *OPTIONS, f"--data={data}", "--gpus=2", f"--outdir={out}"))


def under_torchrun(out, *options, more=()):
    """torchrun with two processes of train_segan.py"""
    return start([*TORCHRUN, *more, "train_segan.py", *OPTIONS, f"--outdir={out}", *options])


def others_of(process):
    """The processes that do the work beside the first one, and are not loaders"""
    return [child for child in psutil.Process(process.pid).children() if "distributed" in " ".join(child.cmdline())]


def same_state(a, b):
    a, b = (state.read(str(newest(run_dir, "training-state-*.pt"))) for run_dir in (a, b))
    return all(bits(a[part]) == bits(b[part]) for part in ("modules", "optimizers", "loss", "random"))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    run("train_segan.py", *OPTIONS, f"--data={data}", "--gpus=2", f"--outdir={out}")
    return only_run(out)


@pytest.mark.slow
def test_torchrun_trains_the_same(data, undisturbed, tmp_path):
    process = under_torchrun(tmp_path, f"--data={data}")
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output + errors
    assert output.count("Training options:") == output.count("Done.") == 1  # one of them speaks
    assert same_state(only_run(tmp_path), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["first", "other"])
def test_a_lost_process_ends_the_others_and_the_run_goes_on_the_same(victim, data, undisturbed, tmp_path):
    process = two(tmp_path, data)
    wait_for(lambda: saved_kimg(tmp_path) >= 8 and ticks_of(tmp_path) >= 2, process)  # beyond what is saved
    others = others_of(process)
    assert len(others) == 1
    (others[0] if victim == "other" else process).send_signal(signal.SIGKILL)
    output, errors = process.communicate(timeout=PATIENCE)
    psutil.wait_procs(others, timeout=PATIENCE)
    assert not any(other.is_running() for other in others)
    if victim == "other":
        assert process.returncode == 1 and errors.count("Error:") == 1, errors
        assert "another process of the run has ended" in errors and "Traceback" not in errors
    run_dir = only_run(tmp_path)
    run("train_segan.py", f"--resume={run_dir}")
    assert same_state(run_dir, undisturbed)


def test_a_process_whose_starter_went_before_they_met_ends(tmp_path):
    gone = start(["true"])
    gone.communicate()
    env = dict(WORLD_SIZE="2", RANK="1", SEGAN_MEETING=str(tmp_path / "meeting"), SEGAN_FIRST=str(gone.pid))
    env["PYTHONPATH"] = str(ROOT / "stylegan2_ada")
    process = start([sys.executable, "-c", "from runs import distributed; distributed.run(None)"], env)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 1


@pytest.mark.slow
def test_a_signal_to_one_stops_all(data, undisturbed, tmp_path):
    process = two(tmp_path, data)
    wait_for(lambda: saved_kimg(tmp_path) >= 8, process)
    before = saved_kimg(tmp_path)
    wait_for(lambda: ticks_of(tmp_path) >= 2, process)
    others_of(process)[0].send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "continues it" in output, output + errors
    assert saved_kimg(tmp_path) > before
    run("train_segan.py", f"--outdir={tmp_path}", "--resume=latest")
    a, b = (state.read(str(newest(d, "training-state-*.pt"))) for d in (only_run(tmp_path), undisturbed))
    assert bits(a["modules"]) == bits(b["modules"]) and bits(a["optimizers"]) == bits(b["optimizers"])


@pytest.mark.slow
def test_another_number_of_processes_goes_on_and_says_so(undisturbed, tmp_path):
    run_dir = shutil.copytree(undisturbed, tmp_path / "00000-copy")
    done = run("train_segan.py", f"--resume={run_dir}", "--kimg=2", "--gpus=1")
    assert "It was saved by 2 processes and goes on with 1" in done.stdout
    assert saved_kimg(tmp_path) >= 2000
    done = run("train_segan.py", f"--resume={run_dir}", "--kimg=3", "--gpus=3", check=False)
    assert done.returncode == 2 and "cannot be split between 3 processes; use one of 1, 2, 4, 8" in done.stderr
    done = run("train_segan.py", f"--resume={run_dir}", "--kimg=3", "--gpus=2")
    assert "It was saved by 1 process and goes on with 2" in done.stdout


@pytest.mark.slow
def test_what_the_first_process_refuses_ends_all(data, tmp_path):
    process = under_torchrun(tmp_path, f"--data={data}", "--gpus=3")
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0 and errors.count("--gpus: torchrun has started 2 processes; leave it out") == 1


@pytest.mark.slow
def test_torchrun_restarts_from_the_newest_state(data, undisturbed, tmp_path):
    process = under_torchrun(tmp_path, f"--data={data}", more=["--max-restarts=1"])
    wait_for(lambda: saved_kimg(tmp_path) >= 400, process)
    workers = [child for child in psutil.Process(process.pid).children() if "train_segan" in " ".join(child.cmdline())]
    workers[1].send_signal(signal.SIGKILL)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output + errors
    assert output.count("Training options:") == 1 and output.count("Continuing at") == 1
    assert same_state(only_run(tmp_path), undisturbed)


DIES_AT_FIRST = """
import os, runpy
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    os._exit(1)
runpy.run_path("train_segan.py", run_name="__main__")
"""


@pytest.mark.slow
def test_a_restart_takes_up_no_earlier_run(data, undisturbed, tmp_path):
    """The first attempt ends before it has a directory; a finished run of the same options lies there."""
    earlier = shutil.copytree(undisturbed, tmp_path / "out" / "00000-earlier")
    options = json.loads((earlier / "training_options.json").read_text())
    options["options"] |= dict(outdir=str(tmp_path / "out"))
    (earlier / "training_options.json").write_text(json.dumps(options))
    (tmp_path / "script.py").write_text(DIES_AT_FIRST)
    torchrun = [*TORCHRUN[:-1], "--nproc-per-node=1", "--max-restarts=1", tmp_path / "script.py"]
    args = [*torchrun, *OPTIONS, f"--data={data}", f"--outdir={tmp_path / 'out'}"]
    process = start(args, env=dict(PYTHONPATH=str(ROOT)))
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output + errors
    assert "Continuing at" not in output and output.count("Done.") == 1
    assert len(os.listdir(tmp_path / "out")) == 2


@pytest.fixture
def two_machines():
    """Two network namespaces with a cable between them, which stand for machines; skipped without root"""
    lines = ["netns add segan0", "netns add segan1"]
    lines += ["link add segan0 netns segan0 type veth peer name segan1 netns segan1"]
    for i in (0, 1):
        lines += [f"-n segan{i} addr add 10.9.0.{i + 1}/24 dev segan{i}", f"-n segan{i} link set lo up"]
        lines += [f"-n segan{i} link set segan{i} up"]
    try:
        for line in lines:
            if shutil.which("ip") is None or subprocess.run(["ip", *line.split()], capture_output=True).returncode:
                pytest.skip("network namespaces take root and `ip`")
        yield ["segan0", "segan1"]
    finally:
        for name in ("segan0", "segan1") if shutil.which("ip") else ():
            left = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            subprocess.run(["kill", "-9", *left], capture_output=True)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.slow
def test_two_machines_train_and_restart(two_machines, data, undisturbed, tmp_path):
    started = []
    for i, name in enumerate(two_machines):
        where = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=10.9.0.1:29500"]
        where += [f"--rdzv-conf=is_host={1 - i}", f"--local-addr=10.9.0.{i + 1}", "--rdzv-id=test", "--max-restarts=1"]
        args = [sys.executable, "-m", "torch.distributed.run", *where, "train_segan.py", *OPTIONS]
        args = ["ip", "netns", "exec", name, *args, f"--data={data}", f"--outdir={tmp_path}"]
        started.append(start(args, env=dict(GLOO_SOCKET_IFNAME=name)))
    wait_for(lambda: saved_kimg(tmp_path) >= 400, started[0])
    workers = psutil.Process(started[1].pid).children(recursive=True)
    next(worker for worker in workers if "train_segan" in " ".join(worker.cmdline())).kill()
    outputs = [process.communicate(timeout=PATIENCE) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert "".join(output for output, _ in outputs).count("Continuing at") == 1
    assert same_state(only_run(tmp_path), undisturbed)
