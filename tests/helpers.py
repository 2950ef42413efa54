"""What several tests need: small data sets, small runs of the real training loop, the commands as a user calls them."""

import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import psutil
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# Narrow networks and small pictures: a step takes some 20 ms.
TINY = ["--channels=8", "--channel-base=128", "--batch=8", "--grid=2x2", "--workers=0"]


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


def command(script, *args):
    """The command line of a script of ours ('-m …' for a module)."""
    start = script.split() if script.startswith("-m") else [str(ROOT / script)]
    return [sys.executable, *start, *map(str, args)]


def run(script, *args, cwd=ROOT, check=True, env=None):
    """Runs a script as a user does; the finished process, with stdout and stderr as text."""
    threads = {"OMP_NUM_THREADS": "1"}  # most runs are so narrow that a second one would only wait
    env = os.environ | threads | (env or {})
    done = subprocess.run(command(script, *args), cwd=cwd, capture_output=True, text=True, env=env, timeout=1200)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def only_run(outdir):
    """The single run directory below `outdir`."""
    (run_dir,) = [p for p in Path(outdir).iterdir() if p.is_dir()]
    return run_dir


def newest(run_dir, pattern="network-snapshot-*.pkl"):
    return sorted(Path(run_dir).glob(pattern))[-1]


def read_stats(run_dir):
    return [json.loads(line) for line in (Path(run_dir) / "stats.jsonl").read_text().splitlines()]
