"""Tries broken and hostile files on every command that opens files: `python tests/fuzz.py --count=2000 --jobs=2`.

A command may succeed, or refuse in a sentence that starts with "Error:" (exit status 1 or 2). It fails with a
traceback, a signal, more time or memory than it may take, or a file written outside its output folder. Cases depend on
--seed and their number only; --case=N tries one again and prints all of it. The networks are tiny, and everything is
imported once: each case is a fork.
"""

import contextlib
import gc
import multiprocessing
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import click
import torch
import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "stylegan2_ada"), str(ROOT / "tests")]

import fuzz_cases  # noqa: E402 (the commands have to be on the path)

CPU_SECONDS = 20
SECONDS = 60  # by the clock, for what waits instead of computing
MEMORY = 2 * 2**30  # above what the process has when the command starts


class Outcome(NamedTuple):
    case: fuzz_cases.Case
    status: int | None  # exit status; None: it was killed
    failure: str  # '' if it did what it should
    place: str  # where in our code a traceback ends
    memory: int  # bytes
    seconds: float
    output: str


# ---------------------------------------------------------------------------------------------------------------------
# In the fork


def run_in_fork(command, folder):
    """Runs a command line in `folder`, with its output in files beside it; (status, bytes that it took at most)."""
    before = memory_of_this_process("VmRSS")
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            _confine(folder)
            status = _exit_status(command)
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    waiting = os.pidfd_open(pid)
    ended, _, _ = select.select([waiting], [], [], SECONDS)
    os.close(waiting)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has started, and itself if it hangs
    _, status, used = os.wait4(pid, 0)
    return (os.waitstatus_to_exitcode(status) if ended else None), max(used.ru_maxrss * 1024 - before, 0)


def _confine(folder):
    os.setsid()
    os.chdir(folder)
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, "../stdout", 0x241), (2, "../stderr", 0x241)):
        os.dup2(os.open(name, flags), number)
    sys.stdin, sys.stdout = open(0), open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    (folder / "out" / "tmp").mkdir(exist_ok=True)
    tempfile.tempdir = str(folder / "out" / "tmp")
    os.environ["DNNLIB_CACHE_DIR"] = str(folder / "out" / "cache")
    allowed = memory_of_this_process("VmData") + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def memory_of_this_process(kind):
    return int(re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def _exit_status(command):
    try:
        fuzz_cases.run_command(command.split(" "))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# Around it


def listing(*folders):
    """{path: (size, time of change)} of everything below some folders but the locks of runs"""
    found = {}
    for folder in folders:
        for base, names, files in os.walk(folder):
            if os.path.basename(base) == "out":
                names.clear()
                continue
            for path in (os.path.join(base, name) for name in files + names if name != "run.lock"):
                about = os.lstat(path)
                found[path] = (
                    (about.st_mode,) if os.path.isdir(path) else (about.st_mode, about.st_size, about.st_mtime_ns)
                )
    return found


def try_case(seed, number, root):
    """The `Outcome` of one case, tried in root/cases/NUMBER/case"""
    kind = fuzz_cases.pick_kind(fuzz_cases.dice_of(seed, number))
    folder = root / "cases" / f"{number:07d}" / "case"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder.parent / "canary").mkdir()
    (folder.parent / "canary" / "evil.png").write_bytes(b"not to be touched")
    case = fuzz_cases.make_case(seed, number, kind, root / "bases", folder)
    for name in ("stdout", "stderr"):
        (folder.parent / name).touch()
    places = (folder.parent / "canary", folder, root / "bases" / "given")
    before, beside = listing(*places), _beside(root, folder)
    start = time.monotonic()
    status, memory = run_in_fork(case.command, folder)
    seconds = time.monotonic() - start
    changed = sorted(before.items() ^ listing(*places).items()) + sorted(beside ^ _beside(root, folder))
    output = "".join((folder.parent / name).read_text("utf-8", "replace") for name in ("stdout", "stderr"))
    failure = what_failed(status, output, memory, changed)
    place = re.findall(rf'File "{re.escape(str(ROOT))}/(?!tests/fuzz)([^"]+)", line (\d+), in (\S+)', output)
    place = "{}:{} ({})".format(*place[-1]) if place and failure else ""
    return Outcome(case, status, failure, place, memory, seconds, output)


def _beside(root, folder):
    """Names of what lies around the folder of a case, other cases left out"""
    cases = [path for path in folder.parents[1].iterdir() if not path.name.isdigit()]
    return {(str(path),) for path in (*root.iterdir(), *cases, *folder.parent.iterdir())}


def what_failed(status, output, memory, changed):
    """'' or a line that says why this is no way to end."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or [""]
    if changed:
        return f"changed outside of out/: {changed[0]}"
    if status is None:
        return f"no end after {SECONDS} s"
    if status < 0:
        name = signal.Signals(-status).name
        return (
            f"more than {CPU_SECONDS} s of computing"
            if name in ("SIGXCPU", "SIGKILL")
            else f"died of {name}: {lines[-1]}"
        )
    if re.search(r"MemoryError|can't allocate memory|bad_alloc|Unable to allocate", output) or memory > MEMORY:
        return f"more memory than {MEMORY >> 30} GB: {lines[-1]}"
    if "Traceback (most recent call last)" in output:
        return lines[-1]
    if status not in (0, 1, 2) or status and not any(line.startswith("Error:") for line in lines):
        return f"status {status} without a sentence: {lines[-1]}"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Command


@click.command()
@click.option("--count", type=click.IntRange(1), default=2000, show_default=True, help="How many cases")
@click.option("--seed", default=0, show_default=True, help="Of all of them")
@click.option("--kind", metavar="NAME", help=f"Only kinds that start so: {', '.join(fuzz_cases.KINDS)}")
@click.option("--case", "only", type=int, help="Only the case of that number; prints its output and keeps its folder")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cases tried at a time")
def main(count, seed, kind, only, jobs):
    """Try broken files on all commands."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    fuzz_cases.prepare()
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        build_bases(root)
        if only is not None:
            show(try_case(seed, only, root))
            return
        outcomes = list(try_all(seed, numbers(count, seed, kind), root, jobs))
    finally:
        if only is None:
            shutil.rmtree(root, ignore_errors=True)
    summarise(outcomes)
    sys.exit(any(outcome.failure for outcome in outcomes))


def build_bases(root):
    """Makes the sound files in a fork, so that this process stays as it is, and opens one to load all that is lazy."""
    bases = root / "bases"
    bases.mkdir()
    log = root / "build.txt"
    if os.fork() == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(1, 2)
        try:
            os.environ["DNNLIB_CACHE_DIR"] = str(root / "cache")
            fuzz_cases.build(bases)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    if os.wait()[1]:
        raise SystemExit(f"the sound files could not be made:\n{log.read_text()}")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.suppress(SystemExit):
        fuzz_cases.run_command(["generate.py", f"--network={bases}/given/G.pkl", "--seeds=0", f"--outdir={root}/first"])
    gc.collect()
    gc.freeze()  # else every collection in a fork copies all of it


def numbers(count, seed, kind):
    """The first `count` numbers whose cases are of that kind"""
    found, number = [], 0
    while len(found) < count:
        if fuzz_cases.pick_kind(fuzz_cases.dice_of(seed, number)).startswith(kind or ""):
            found.append(number)
        number += 1
    return found


def try_all(seed, chosen, root, jobs):
    """Yields outcomes as they come, and prints those that failed."""
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=50) as pool:
        waiting = pool.imap_unordered(_try_and_clean, [(seed, number, root) for number in chosen])
        for outcome in tqdm.tqdm(waiting, total=len(chosen), unit="case", disable=None):
            if outcome.failure:
                tqdm.tqdm.write(describe(outcome))
            yield outcome


def _try_and_clean(job):
    outcome = try_case(*job)
    shutil.rmtree(job[2] / "cases" / f"{job[1]:07d}", ignore_errors=True)
    return outcome._replace(output="")


def describe(outcome):
    case = outcome.case
    command = re.sub(r"/\S+/bases/given", "GIVEN", case.command)
    return f"case {case.number}, {case.kind} ({'; '.join(case.notes)}): {command}: {outcome.failure} {outcome.place}"


def show(outcome):
    print(outcome.output)
    print(describe(outcome))
    print(f"status {outcome.status}, {outcome.seconds:.2f} s, {outcome.memory >> 20} MB")
    sys.exit(bool(outcome.failure))


def way(outcome):
    """What failures have in common that are probably one"""
    return (
        (outcome.failure.split(": ")[0], outcome.place)
        if outcome.place
        else re.sub(r"\S*/\S*|\d+", "", outcome.failure)[:60]
    )


def summarise(outcomes):
    print(f"\n{'kind':<18s} {'cases':>6s} {'exit 0':>7s} {'refused':>8s} {'failed':>7s} {'s each':>7s} {'MB':>5s}")
    for kind in fuzz_cases.KINDS:
        ours = [outcome for outcome in outcomes if outcome.case.kind == kind]
        failed = sum(bool(outcome.failure) for outcome in ours)
        sound = sum(not outcome.failure and outcome.status == 0 for outcome in ours)
        if ours:
            seconds, memory = sum(o.seconds for o in ours) / len(ours), max(o.memory for o in ours) >> 20
            counts = f"{len(ours):>6d} {sound:>7d} {len(ours) - sound - failed:>8d} {failed:>7d}"
            print(f"{kind:<18s} {counts} {seconds:>7.2f} {memory:>5d}")
    failed = sorted((outcome for outcome in outcomes if outcome.failure), key=lambda outcome: outcome.case.number)
    groups = Counter(map(way, failed))
    first = {way(outcome): outcome for outcome in reversed(failed)}
    for group, count in groups.most_common():
        print(
            f"{count:>5d} × {first[group].failure[:150]} {first[group].place} (first: case {first[group].case.number})"
        )
    print(f"{len(outcomes)} cases, {sum(groups.values())} failed in {len(groups)} ways")


if __name__ == "__main__":
    main()
