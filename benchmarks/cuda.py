"""What a GPU makes of it: `python benchmarks/cuda.py --reference=DIR`; on a machine that has one, with pytest.

    python benchmarks/cuda.py --parts=golden,operations          # minutes
    python benchmarks/cuda.py --parts=steps --sizes=256 --reference=DIR

golden: the golden cases of operations and networks, with their gradients, on the GPU. operations: each kernel against
the plain path, in half and single precision. steps: a training step, with the kernels, without, and by a checkout of
NVlabs/stylegan2-ada-pytorch, which builds plugins of its own with nvcc; in processes of their own and in turn. Prints
Markdown. --device=cpu shows that this program works, no more.
"""

import argparse
import functools
import os
import subprocess
import sys

from speed import OURS, ROOT, Worker, in_turn, steps

# resolution: batch and networks. Widths and halves are those of the reference's configurations for these sizes.
SIZES = {
    64: (64, dict(channel_max=128)),
    256: (32, dict(channel_max=512, num_fp16_res=4)),
    1024: (4, dict(channel_max=512, num_fp16_res=4)),
}
LAYOUTS = ("contiguous_format", "channels_last")


def golden(args):
    """pytest's last line on the golden cases; half precision runs where a GPU would use it"""
    env = os.environ | {"SEGAN_TEST_DEVICE": args.device}
    command = [sys.executable, "-m", "pytest", "tests/test_ops.py", "tests/test_networks.py", "-k", "golden"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    print(done.stdout if done.returncode else f"golden cases: {done.stdout.strip().splitlines()[-1]}\n", flush=True)


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
    """Seconds a kimg of each implementation, and how many times as fast ours is"""
    workers = {"kernels": Worker(OURS), "plain": Worker(OURS, native=False)}
    if args.reference:
        workers["reference"] = Worker(args.reference)
    print("| resolution, batch | " + " | ".join(f"{name}, s/kimg" for name in workers), "| against the others |")
    print("| --- |" + " --- |" * (len(workers) + 1), flush=True)
    for size in args.sizes:
        batch, networks = SIZES[size]
        networks = dict(networks, resolution=size, device=args.device)
        found = steps({name: (worker, networks) for name, worker in workers.items()}, args.rounds, batch)
        seconds = {name: phases["step"] for name, phases in found.items()}
        ratios = ", ".join(f"{name} {seconds[name] / seconds['kernels']:.2f}×" for name in seconds if name != "kernels")
        cells = [f"{value / batch * 1000:.1f}" for value in seconds.values()]
        print(f"| {size}², {batch} | {' | '.join(cells)} | {ratios} |", flush=True)
    for worker in workers.values():
        worker.close()


PARTS = dict(golden=golden, operations=operations, steps=training)


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
