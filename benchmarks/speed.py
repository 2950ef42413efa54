"""How fast training, generation and the operations are: tables of ratios, measured in turn on this machine.

    python benchmarks/speed.py --reference=DIR [--peer=PYTHON] [--scaling] [--plot=FILE]

--reference: a checkout of NVlabs/stylegan2-ada-pytorch. --peer: a Python that has the package stylegan2-pytorch.
--scaling: time and memory against resolution and batch too, and --plot: a picture of that. Every implementation runs in
a process of its own, on the same PyTorch; each round does a job once in each of them, so that whatever else the machine
does meets all. Figures are medians. Without --reference, "×" is against our own plain PyTorch path.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = str(ROOT / "stylegan2_ada")
SHARE = {"Gmain": 1, "Greg": 1 / 4, "Dmain": 1, "Dreg": 1 / 16}  # of a training step
MODE_0, MODE_2 = dict(resolution=64, mode=0), dict(resolution=64, mode=2)


class Worker:
    """One implementation in a process of its own (speed_worker.py)."""

    def __init__(self, folder, native=True, python=sys.executable, **env):
        command = [python, str(ROOT / "benchmarks" / "speed_worker.py"), folder]
        env = dict(os.environ, SEGAN_NATIVE=str(int(native)), **env)
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen(command, env=env, text=True, **pipes)
        self._answer("ready")

    def run(self, job, networks=None, repeats=1, count_flops=False, **kwargs):
        """{seconds, flops, peak_mb}"""
        message = dict(job=job, networks=networks, repeats=repeats, count_flops=count_flops, kwargs=kwargs)
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        return json.loads(self._answer("{"))

    def seconds(self, *args, **kwargs):
        return self.run(*args, **kwargs)["seconds"]

    def _answer(self, beginning):
        for line in self.process.stdout:  # a host may print things of its own
            if line.startswith(beginning):
                return line
        sys.exit(f"{' '.join(self.process.args)} stopped; run it by hand to see why")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def in_turn(jobs, rounds):
    """{name: median seconds} of {name: function that does the job and returns its seconds}; a first round warms up."""
    times = {name: [] for name in jobs}
    for round_ in range(rounds + 1):
        for name, job in jobs.items():
            seconds = job()
            if round_:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def steps(runs, rounds, batch=16, repeats=1):
    """{run: {phase: seconds, "step": of all phases with their shares}} of {run: (worker, networks)}"""
    jobs = {}
    for run, (worker, networks) in runs.items():
        for phase in SHARE:
            jobs[run, phase] = lambda w=worker, n=networks, p=phase: w.seconds("phase", n, repeats, name=p, batch=batch)
    found = in_turn(jobs, rounds)
    result = {run: {phase: found[run, phase] for phase in SHARE} for run in runs}
    for phases in result.values():
        phases["step"] = sum(phases[phase] * share for phase, share in SHARE.items())
    return result


def training_rows(workers, rounds, print_row):
    """The step of all implementations, and the share of the machine's convolution throughput that ours reaches."""
    seconds = steps({name: (worker, MODE_0) for name, worker in workers.items() if name != "stylegan2-pytorch"}, rounds)
    base = "reference" if "reference" in workers else "plain"
    for phase in [*SHARE, "step"]:
        ratios = [f"{name} {seconds[base][phase] / seconds[name][phase]:.2f}×" for name in seconds if name != base]
        print_row(f"training, {phase}, against the {base}", ", ".join(ratios))
    if "stylegan2-pytorch" in workers:
        ours, peer = workers["native"], workers["stylegan2-pytorch"]
        four = lambda: sum(4 * ours.seconds("phase", MODE_0, name=p, batch=16) * SHARE[p] for p in SHARE)
        jobs = {"ours": four, "peer": lambda: peer.seconds("phase", MODE_0, name="step", batch=16)}
        times = in_turn(jobs, max(rounds // 2, 1))
        print_row("training, step, against stylegan2-pytorch", f"native {times['peer'] / times['ours']:.2f}×")
    count = lambda phase: workers["plain"].run("phase", MODE_0, count_flops=True, name=phase, batch=2)["flops"]
    flops = sum(count(phase) * share for phase, share in SHARE.items()) / 2
    jobs = {"conv": lambda: workers["plain"].seconds("convolution", batch=16)}
    jobs["step"] = lambda: steps({"": (workers["native"], MODE_0)}, 1)[""]["step"]
    times = in_turn(jobs, rounds)
    machine = 3 * 2 * 16 * 64**2 * 128**2 * 9 / times["conv"]
    print_row(
        f"share of PyTorch's convolution throughput ({machine / 1e9:.0f} GFLOP/s) at {flops / 1e9:.1f} GFLOP an image",
        f"{16 * flops / times['step'] / machine:.0%}",
    )


def small_rows(workers, rounds, print_row):
    """Where single calls weigh more: smaller images, fewer of them."""
    chosen = {name: worker for name, worker in workers.items() if name != "stylegan2-pytorch"}
    base = "reference" if "reference" in chosen else "plain"
    for resolution, batch in [(32, 16), (64, 4)]:
        seconds = steps({name: (w, dict(resolution=resolution, mode=0)) for name, w in chosen.items()}, rounds, batch)
        ratios = [f"{n} {seconds[base]['step'] / seconds[n]['step']:.2f}×" for n in seconds if n != base]
        print_row(f"training, step at {resolution}², batch {batch}, against the {base}", ", ".join(ratios))


def large_row(args, print_row):
    """One image of 1024²; each in a process that has made nothing else."""
    places = {"native": OURS} | ({"reference": args.reference} if args.reference else {})
    networks, workers = dict(resolution=1024, mode=0), {name: Worker(place) for name, place in places.items()}
    times = in_turn({n: lambda w=w: w.seconds("generate", networks, batch=1) for n, w in workers.items()}, args.rounds)
    peaks = {name: worker.run("generate", networks, batch=1)["peak_mb"] for name, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    against = f"{times[[*times][-1]] / times['native']:.2f}× the reference, " if args.reference else ""
    memory = ", ".join(f"{name} {peak / 1024:.1f} GB" for name, peak in peaks.items())
    print_row("generation, 1024², batch 1", f"native {against}peak memory: {memory}")


def generation_rows(args, print_row):
    """In processes that have done nothing else: what training leaves behind in memory would speed up generation."""
    workers = {"native": Worker(OURS), "plain": Worker(OURS, native=False)}
    if args.reference:
        workers["reference"] = Worker(args.reference)
    base = list(workers)[-1]
    for batch in (1, 16):
        repeats = dict(repeats=16 // batch, batch=batch)
        jobs = {
            name: lambda w=worker, r=repeats: w.seconds("generate", MODE_0, **r) for name, worker in workers.items()
        }
        jobs = {"folded": lambda r=repeats: workers["native"].seconds("generate", MODE_0, folded=True, **r)} | jobs
        times = in_turn(jobs, 2 * args.rounds)
        ratios = [f"{name} {times[base] / times[name]:.2f}×" for name in times if name != base]
        print_row(f"generation, batch {batch}, against the {base}", ", ".join(ratios))
    for worker in workers.values():
        worker.close()


def busy_rows(workers, rounds, print_row):
    """Beside a process that keeps one core busy, against the same while the machine is quiet."""
    as_commands = Worker(OURS, GOMP_SPINCOUNT="1000")  # what stylegan2_ada/runs/__init__.py sets
    chosen = {"commands": as_commands} | {n: workers[n] for n in ("native", "reference") if n in workers}
    works = {
        "training step": {
            name: lambda w=worker: steps({"": (w, MODE_0)}, 1)[""]["step"] for name, worker in chosen.items()
        },
        "generation, batch 1": {
            name: lambda w=worker: w.seconds("generate", MODE_0, repeats=8, batch=1) for name, worker in chosen.items()
        },
    }
    for work, jobs in works.items():
        quiet = in_turn(jobs, rounds)
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        busy = in_turn(jobs, rounds)
        other.kill()
        other.wait()
        slower = ", ".join(f"{name} {busy[name] / quiet[name]:.2f}× slower" for name in jobs)
        print_row(f"{work} beside one busy process, against itself without", slower)
    as_commands.close()


def mode_2_row(workers, rounds, print_row):
    native = workers["native"]
    seconds = steps({"mode 0": (native, MODE_0), "mode 2": (native, MODE_2)}, 2 * rounds)
    more = seconds["mode 2"]["step"] / seconds["mode 0"]["step"] - 1
    print_row("training step, mode 2 more than mode 0", f"{more:+.1%}")


def operation_rows(workers, rounds, print_row):
    for name in ("bias_act", "upfirdn2d"):
        for direction in ("forward", "backward"):
            jobs = {}
            for run in ("native", "native, channels-last", "plain", "reference"):
                worker = workers.get(run.split(",")[0])
                layout = "channels_last" if run.endswith("last") else "contiguous_format"
                impl = "cuda" if run.startswith("native") else "ref"
                options = dict(operation=name, impl=impl, direction=direction, layout=layout)
                if worker:
                    jobs[run] = lambda w=worker, o=options: w.seconds("operation", repeats=3, **o)
            times = in_turn(jobs, rounds)
            ratios = []
            for base in ("plain", "reference"):
                if base in times:
                    fast = [f"{times[base] / times[run]:.1f}×" for run in times if run.startswith("native")]
                    ratios.append(f"{' and '.join(fast)} the {base} path")
            print_row(f"{name}, {direction}, native contiguous and channels-last", "; ".join(ratios))


FIRST_IMAGE = """
import sys; sys.path.insert(0, sys.argv[1])
import torch, legacy
with open(sys.argv[2], "rb") as file:
    G = legacy.load_network_pkl(file)["G_ema"]
G(torch.zeros(1, G.z_dim), None, noise_mode="const")
"""
SAVE = """
import sys, pickle; sys.path.insert(0, sys.argv[1])
from training.networks import Discriminator, Generator
width = dict(channel_base=32768, channel_max=128)
G = Generator(64, 0, 64, 64, 3, synthesis_kwargs=width).eval()
D = Discriminator(0, 64, 3, **width).eval()
networks = dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=None)
with open(sys.argv[2], "wb") as file:
    pickle.dump(networks, file)
"""


def start_row(print_row):
    """From the start of Python to the first image of a pickle, in seconds: the one figure that is not a ratio."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.pkl")
        subprocess.run([sys.executable, "-c", SAVE, OURS, path], check=True)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", FIRST_IMAGE, OURS, path], check=True)
            times.append(time.perf_counter() - start)
    print_row("import and first image from a pickle", f"{statistics.median(times[1:]):.1f} s")


def scaling(args, rounds):
    """[{name, resolution, batch, images_per_second, peak_mb}] of whole training steps."""
    found = []
    places = {"native": OURS, "plain": OURS} | ({"reference": args.reference} if args.reference else {})
    for resolution, batch in [(32, 16), (64, 16), (128, 16), (256, 8), (64, 4), (64, 32)]:
        workers = {name: Worker(place, native=name == "native") for name, place in places.items()}
        networks = dict(resolution=resolution, mode=0)
        seconds = steps({name: (worker, networks) for name, worker in workers.items()}, max(rounds // 3, 1), batch)
        for name, worker in workers.items():
            peak = worker.run("generate", networks, batch=1)["peak_mb"]
            rate = batch / seconds[name]["step"]
            found.append(dict(name=name, resolution=resolution, batch=batch, images_per_second=rate, peak_mb=peak))
            worker.close()
            print(f"{resolution}², batch {batch}, {name}: {rate:.2f} images/s, {peak:.0f} MB", flush=True)
    return found


def plot(rows, path):
    """Time of an image in a training step and peak memory against resolution."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    at_16 = [r for r in rows if (r["resolution"], r["batch"]) in {(32, 16), (64, 16), (128, 16), (256, 8)}]
    least = min(1 / r["images_per_second"] for r in at_16)
    for name in dict.fromkeys(r["name"] for r in at_16):
        mine = [r for r in at_16 if r["name"] == name]
        x = [r["resolution"] for r in mine]
        axes[0].plot(x, [1 / r["images_per_second"] / least for r in mine], "o-", label=name)
        axes[1].plot(x, [r["peak_mb"] / 1024 for r in mine], "o-", label=name)
    for axis, title in zip(axes, ("training time of an image, relative", "peak memory, GB (batch 16; 8 at 256²)")):
        axis.set(xscale="log", yscale="log", title=title, xlabel="resolution", xticks=[32, 64, 128, 256])
        axis.set_xticks([32, 64, 128, 256], ["32", "64", "128", "256"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[1].set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def machine():
    """This CPU in a few words."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else platform.processor()
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), text)
    vectors = next((name for name in ("avx512f", "avx2") if name in text), "no AVX2")
    return f"{os.cpu_count()} cores of {model} ({vectors})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", help="root of a reference checkout")
    parser.add_argument("--peer", help="a Python with the package stylegan2-pytorch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scaling", action="store_true", help="also against resolution and batch")
    parser.add_argument("--plot", help="where to save a picture of --scaling")
    args = parser.parse_args()
    import torch

    print(f"{datetime.date.today()}, {machine()}, PyTorch {torch.__version__}\n\n| | |\n| --- | --- |", flush=True)
    workers = {"native": Worker(OURS), "plain": Worker(OURS, native=False)}
    if args.reference:
        workers["reference"] = Worker(args.reference)
    if args.peer:
        workers["stylegan2-pytorch"] = Worker("peer", python=args.peer)
    print_row = lambda name, value: print(f"| {name} | {value} |", flush=True)
    training_rows(workers, args.rounds, print_row)
    small_rows(workers, max(args.rounds // 2, 1), print_row)
    generation_rows(args, print_row)
    large_row(args, print_row)
    mode_2_row(workers, args.rounds, print_row)
    busy_rows(workers, args.rounds, print_row)
    operation_rows(workers, args.rounds, print_row)
    for worker in workers.values():
        worker.close()
    start_row(print_row)
    if args.scaling or args.plot:
        print()
        rows = scaling(args, args.rounds)
        if args.plot:
            plot(rows, args.plot)


if __name__ == "__main__":
    main()
