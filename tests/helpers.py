"""What several tests need: small data sets, small runs of the real training loop, the commands as a user calls them."""

import contextlib
import io
import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import psutil
import pytest
import torch

from training import state

ROOT = Path(__file__).resolve().parents[1]

# Narrow networks and small pictures: a step takes some 20 ms.
TINY = ["--channels=8", "--channel-base=128", "--batch=8", "--grid=2x2", "--workers=0"]


# Seconds to wait for what comes at last: a busy machine takes its time, and what hangs ends all the same.
PATIENCE = 600


def slowly(names, fast):
    """Parameters of a test, of which all but those in `fast` are marked slow."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def within_limits(function, seconds, megabytes):
    """What function() returns, called in a process of its own.

    AssertionError if it takes more processor time or memory than that; what it raises is raised here, as a text.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the threads of OpenMP are not in a forked process
        before = psutil.Process().memory_info()
        os.write(writing, struct.pack("Q", before.rss))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds + 1, seconds + 2))
        resource.setrlimit(resource.RLIMIT_AS, (before.vms + 5 * megabytes * 2**20,) * 2)
        try:
            result = ("returned", function())
        except BaseException as error:
            result = ("raised", f"{type(error).__name__}: {error}")
        os.write(writing, pickle.dumps(result)[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        (before,) = struct.unpack("Q", pipe.read(8))
        answer = pipe.read()
    _, status, used = os.wait4(child, 0)
    grown = used.ru_maxrss / 2**10 - before / 2**20
    assert used.ru_utime + used.ru_stime < seconds, f"{used.ru_utime + used.ru_stime:.1f} s of processor time"
    assert grown < megabytes, f"{grown:.0f} MB of memory"
    assert answer, f"it died with the status {status}"
    what, value = pickle.loads(answer)
    assert what == "returned", value
    return value


def png(width=16, height=16, mode="RGB", seed=0):
    """The bytes of a picture with a bright disc at a random place."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[:height, :width]
    disc = (x - rng.uniform(0.3, 0.7) * width) ** 2 + (y - rng.uniform(0.3, 0.7) * height) ** 2 < (width / 4) ** 2
    channels = len(mode) if mode != "L" else 1
    pixels = np.where(disc[:, :, None], rng.randint(128, 256, channels), rng.randint(0, 128, channels)).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels, mode=None).save(buffer, format="PNG")
    return buffer.getvalue()


def make_dataset(dest, count=40, size=16, mode="RGB", labels=None, extra=()):
    """A folder, or a zip where `dest` ends so, of `count` pictures. labels: 'classes', 'vectors' or None."""
    files = {f"00000/img{i:08d}.png": png(size, size, mode, seed=i) for i in range(count)}
    values = {"classes": lambda i: i % 3, "vectors": lambda i: [i / count, 1 - i / count], None: None}[labels]
    if values is not None:
        files["dataset.json"] = json.dumps({"labels": [[n, values(i)] for i, n in enumerate(files)]}).encode()
    files.update(extra)
    if dest.suffix == ".zip":
        with zipfile.ZipFile(dest, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            (dest / name).write_bytes(data)
    return dest


class Brightness(torch.nn.Module):
    """A segmenter of three classes: neither, bright and dark"""

    def forward(self, images):
        grey = images.mean(dim=1, keepdim=True) / 64 - 2
        return torch.cat([0 * grey, grey - 0.5, -grey - 0.5], dim=1)


def write_segmenter(path, classes):
    """Brightness as TorchScript, and its three classes beside it"""
    torch.jit.script(Brightness()).save(path)
    path.with_suffix(".json").write_text(json.dumps(classes))


def command(script, *args):
    """The command line of a script of ours ('-m …' for a module, '-c' for the text that follows)."""
    start = script.split() if script.startswith("-") else [str(ROOT / script)]
    return [sys.executable, *start, *map(str, args)]


def run(script, *args, cwd=ROOT, check=True, env=None, input=None):
    """Runs a script as a user does; the finished process, with stdout and stderr as text. input: its stdin, a text."""
    threads = {"OMP_NUM_THREADS": "1"}  # most runs are so narrow that a second one would only wait
    env = os.environ | threads | (env or {})
    pipes = dict(capture_output=True, text=True, input=input)
    done = subprocess.run(command(script, *args), cwd=cwd, env=env, timeout=1200, **pipes)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def start(args, env={}):
    """Starts a command line in a session of its own; the process, whose stdout and stderr are pipes of text."""
    env = os.environ | {"OMP_NUM_THREADS": "1"} | env
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(list(map(str, args)), cwd=ROOT, env=env, start_new_session=True, **pipes)


def only_run(outdir):
    """The single run directory below `outdir`."""
    (run_dir,) = [p for p in Path(outdir).iterdir() if p.is_dir()]
    return run_dir


def newest(run_dir, pattern="network-snapshot-*.pkl"):
    return sorted(Path(run_dir).glob(pattern))[-1]


def read_stats(run_dir):
    return [json.loads(line) for line in (Path(run_dir) / "stats.jsonl").read_text().splitlines()]


def wait_for(condition, process, seconds=PATIENCE):
    """Returns as soon as condition() holds; AssertionError where the process ends before, or nothing happens."""
    deadline = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.time() < deadline, "nothing happened"
        time.sleep(0.01)


@contextlib.contextmanager
def held(process):
    """A process that `start` began, and its children, stand still inside."""
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGCONT)


def ticks_of(out):
    """How many ticks all runs below a folder have reported"""
    return sum(path.read_bytes().count(b"\n") for path in Path(out).glob("*/stats.jsonl"))


def saved_kimg(out):
    """Images, not thousands, after which the newest state below a folder of runs was saved."""
    states = list(out.glob("*/training-state-*.pt"))
    return max((state.read(str(p))["counters"]["cur_nimg"] for p in states), default=0)


def assert_same_end(run_dir, undisturbed):
    """AssertionError unless two runs have ended with the same state, statistics, lines and images."""
    a, b = (state.read(str(newest(d, "training-state-*.pt"))) for d in (run_dir, undisturbed))
    for part in ("modules", "optimizers", "loss", "random"):
        assert bits(a[part]) == bits(b[part]), part
    for line, expected in zip(read_stats(run_dir), read_stats(undisturbed), strict=True):
        for key in expected:
            assert key.startswith(("Timing", "Resources", "timestamp")) or line[key] == expected[key], key
    assert _tick_lines(run_dir) == _tick_lines(undisturbed)
    assert (run_dir / "fakes000001.png").read_bytes() == (undisturbed / "fakes000001.png").read_bytes()


def _tick_lines(run_dir):
    lines = (run_dir / "log.txt").read_text().splitlines()
    return [line.split("time")[0] for line in lines if line.startswith("tick")]


def bits(value):
    """A structure of tensors as bytes, to be compared."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {k: bits(v) for k, v in value.items()}
    return [bits(v) for v in value] if isinstance(value, (list, tuple)) else value
