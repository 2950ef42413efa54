"""What a GPU makes of it: `python benchmarks/cuda.py --reference=DIR`; on a machine that has one, with pytest-xdist.

    python benchmarks/cuda.py --parts=tests,operations          # minutes
    python benchmarks/cuda.py --parts=steps --sizes=256 --reference=DIR

tests: golden cases of operations and networks on the GPU, every kernel against the plain path, and CUDA graphs against
ordinary steps. operations: each kernel's time against the plain path, in half and single precision. steps: a training
step as we take it, without CUDA graphs, without kernels too, and by a checkout of NVlabs/stylegan2-ada-pytorch, which
builds plugins of its own with nvcc; in processes of their own and in turn. Prints Markdown. --device=cpu shows that
this program works, no more.
"""

import argparse
import functools
import os
import subprocess
import sys

from speed import OURS, ROOT, SHARE, Worker, in_turn, steps

# resolution: batch and networks of the configurations segan-mode0, paper256 and paper1024, whose batches are handled in
# parts of that size; with augmentation, as they train
SIZES = {
    64: (16, dict()),
    256: (8, dict(channel_base=16384, channel_max=512, z_dim=512)),
    1024: (4, dict(channel_max=512, z_dim=512)),
}
LAYOUTS = ("contiguous_format", "channels_last")


def tests(args):
    """pytest's last line, or everything where something fails"""
    env = os.environ | {"SEGAN_TEST_DEVICE": args.device}
    files = [f"tests/test_{name}.py" for name in ("ops", "networks", "loss", "augment", "native", "cuda")]
    kernels = "test_native and (bias_act or upfirdn2d or modulation or gradients_of_a_training_run)"
    command = [sys.executable, "-m", "pytest", "-n", "4", *files, "-k", f"golden or cuda or {kernels}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    print(done.stdout if done.returncode else f"tests: {done.stdout.strip().splitlines()[-1]}\n", flush=True)


def operations(args):
    """Times of the plain path over those of the kernels"""
    worker = Worker(OURS)
    print("| operation | precision | layout | forward | backward |\n| --- | --- | --- | --- | --- |", flush=True)
    for operation in ("bias_act", "upfirdn2d", "modulate"):
        for dtype in ("float16", "float32"):
            for layout in LAYOUTS:
                ratios = []
                for direction in ("forward", "backward"):
                    given = dict(
                        operation=operation, direction=direction, layout=layout, device=args.device, dtype=dtype
                    )
                    job = functools.partial(worker.seconds, "operation", repeats=args.repeats, **given)
                    times = in_turn({impl: functools.partial(job, impl=impl) for impl in ("cuda", "ref")}, args.rounds)
                    ratios.append(f"{times['ref'] / times['cuda']:.2f}×")
                print(f"| {operation} | {dtype} | {layout} | {' | '.join(ratios)} |", flush=True)
    worker.close()


def training(args):
    """Seconds a kimg and GPU memory of each, how many times as fast ours is, and milliseconds of the phases"""
    on_gpu = args.device != "cpu"
    print(f"| resolution, batch | {' | '.join(['', 's/kimg', 'ours is faster', *SHARE, 'memory'])} |", flush=True)
    print("| --- |" + " --- |" * (len(SHARE) + 4))
    for size in args.sizes:
        batch, networks = SIZES[size]
        networks = dict(networks, resolution=size, device=args.device, half=on_gpu, augment=True)
        ours = dict(networks, nhwc=on_gpu, fused=on_gpu)
        runs = {
            "ours": (Worker(OURS), dict(ours, graphs=on_gpu)),
            "without graphs": (Worker(OURS), ours),
            "plain": (Worker(OURS, native=False), ours),
        }
        if args.reference:
            runs["reference"] = (Worker(args.reference), networks)
        found = steps(runs, args.rounds, batch, repeats=3)  # the third that warms up is recorded
        for name, (worker, given) in runs.items():
            memory = worker.run("generate", given, batch=1)["peak_mb"] / 1024
            worker.close()
            step, best = found[name]["step"], found["ours"]["step"]
            phases = " | ".join(f"{found[name][phase] * 1000:.1f} ms" for phase in SHARE)
            cells = f"{name} | {step / batch * 1000:.1f} | {step / best:.2f}× | {phases} | {memory:.1f} GB"
            print(f"| {size}², {batch} | {cells} |", flush=True)


PARTS = dict(tests=tests, operations=operations, steps=training)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=list(SIZES))
    parser.add_argument("--reference", help="a checkout of it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=50, help="of an operation, timed together")
    args = parser.parse_args()
    for name in args.parts.split(","):
        if name not in PARTS:
            parser.error(f"--parts: there is no {name}; known: {', '.join(PARTS)}")
    if unknown := [size for size in args.sizes if size not in SIZES]:
        parser.error(f"--sizes: {unknown[0]} is not among {', '.join(map(str, SIZES))}")
    for name in args.parts.split(","):
        PARTS[name](args)


if __name__ == "__main__":
    main()
