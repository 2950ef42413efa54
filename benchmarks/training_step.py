"""The training step against that of a reference checkout, on this machine and this PyTorch.

    python benchmarks/training_step.py --reference=DIR

Both run the `segan-mode0` preset (64×64, batch 16, float32) through `StyleGAN2Loss.accumulate_gradients` and Adam, in a
process each, phase by phase in turn, so that whatever else the machine does meets both. The step counts Greg every 4th
and Dreg every 16th time, as in training. Prints the ratio of images per second, and of each phase.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARE = {"Gmain": 1, "Greg": 1 / 4, "Dmain": 1, "Dreg": 1 / 16}  # of a step


def worker(host, resolution, batch):
    """Runs one phase for every name read from stdin, and prints its seconds."""
    sys.path.insert(0, host)
    import torch

    import dnnlib

    torch.manual_seed(0)
    shape = dict(c_dim=0, img_resolution=resolution, img_channels=3)
    width = dict(channel_base=32768, channel_max=128)
    kwargs = dict(z_dim=64, w_dim=64, mapping_kwargs=dict(num_layers=8), synthesis_kwargs=width)
    make = dnnlib.util.construct_class_by_name
    G = make(class_name="training.networks.Generator", **kwargs, **shape).train().requires_grad_(False)
    D = make(class_name="training.networks.Discriminator", **width, **shape).train().requires_grad_(False)
    networks = dict(G_mapping=G.mapping, G_synthesis=G.synthesis, D=D)
    loss = make(class_name="training.loss.StyleGAN2Loss", device="cpu", r1_gamma=10, **networks)
    opts = {n: torch.optim.Adam(m.parameters(), lr=0.002, betas=(0.0, 0.99), eps=1e-8) for n, m in (("G", G), ("D", D))}
    real, labels = torch.rand(batch, 3, resolution, resolution) * 2 - 1, torch.zeros(batch, 0)
    print("ready", flush=True)
    for line in sys.stdin:
        phase = line.strip()
        net = {"G": G, "D": D}[phase[0]]
        start = time.perf_counter()
        opts[phase[0]].zero_grad(set_to_none=True)
        net.requires_grad_(True)
        z = torch.randn(batch, 64)
        loss.accumulate_gradients(
            phase=phase, real_img=real, real_c=labels, gen_z=z, gen_c=labels, sync=True, gain=1 / SHARE[phase]
        )
        net.requires_grad_(False)
        opts[phase[0]].step()
        print(time.perf_counter() - start, flush=True)


def start(host, args):
    command = [
        sys.executable,
        __file__,
        "--worker",
        str(host),
        f"--resolution={args.resolution}",
        f"--batch={args.batch}",
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    while process.stdout.readline().strip() != "ready":
        if process.poll() is not None:
            sys.exit(f"{host} does not run as a host on this PyTorch")
    return process


def seconds(process, phase):
    process.stdin.write(phase + "\n")
    process.stdin.flush()
    while True:  # a host may print things of its own
        try:
            return float(process.stdout.readline())
        except ValueError:
            continue


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", help="root of a reference checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.resolution, args.batch)
        return
    hosts = {"ours": start(ROOT / "stylegan2_ada", args)}
    if args.reference:
        hosts["reference"] = start(args.reference, args)
    times = {name: {phase: [] for phase in SHARE} for name in hosts}
    for round_ in range(args.rounds + 1):
        for phase in SHARE:
            for name, process in hosts.items():
                elapsed = seconds(process, phase)
                if round_ > 0:  # the first round warms up
                    times[name][phase].append(elapsed)
    medians = {name: {p: statistics.median(t) for p, t in phases.items()} for name, phases in times.items()}
    steps = {name: sum(m[p] * SHARE[p] for p in SHARE) for name, m in medians.items()}
    print(
        json.dumps(
            {name: dict(images_per_second=args.batch / steps[name], **medians[name]) for name in hosts}, indent=2
        )
    )
    if args.reference:
        for phase in SHARE:
            print(f"{phase:<6s} {medians['reference'][phase] / medians['ours'][phase]:.2f}× as fast as the reference")
        print(f"step   {steps['reference'] / steps['ours']:.2f}× as fast as the reference")
    for process in hosts.values():
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
