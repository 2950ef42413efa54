"""Goes on with a training run exactly where its newest state left off."""

import os
import re
import shlex
from typing import Any

import torch

from runs import launch, processes, recipe
from runs.options import usage_errors
from runs.run_dir import cut_back, hold
from torch_utils import persistence
from training import files
from training.state import read, saved_states

# Options that may change when a run is continued. None has a part in the arithmetic, but for the device and CUDA
# graphs, which are for the user to change knowingly.
_FREE = {
    "outdir",
    "snap",
    "tick",
    "metrics",
    "dry_run",
    "kimg",
    "nobench",
    "cuda_graphs",
    "resume",
    "workers",
    "grid",
    "device",
}
_FREE |= {"data", "gpus", "keep", "save_minutes"}  # with another number of processes the arithmetic is said to change
_HOW_TO_MEASURE = {"detector", "num_gen", "attributes"}
_FREE |= _HOW_TO_MEASURE


def continued(options: dict[str, Any], outdir: str, dry_run: bool) -> bool:
    """True if --resume means a run, which has then been continued to its end; False if there is a run to start.

    A command that torchrun has restarted goes on with the run that it had begun.
    """
    run_dir = processes.remembered()
    if run_dir is None or not saved_states(run_dir):
        run_dir = _run_to_continue(options["resume"], outdir)
    if run_dir is not None:
        continue_run(run_dir, options, dry_run)
    return run_dir is not None


def _run_to_continue(resume, outdir):
    """The run directory that --resume means, or None if it means networks to start from."""
    if resume == "latest":
        runs = [os.path.join(outdir, name) for name in launch.listdir(outdir)]
        states = [state for run_dir in runs if os.path.isdir(run_dir) for state in saved_states(run_dir)]
        if not states:
            raise ValueError(f"--resume: no run in {outdir} has saved a state yet; start one without --resume")
        return os.path.dirname(max(states, key=os.path.getmtime))
    if re.fullmatch(r"training-state-\d+\.pt", os.path.basename(resume or "")):
        raise ValueError(f"--resume: {resume} is the state of a run; give its folder, {os.path.dirname(resume) or '.'}")
    if resume is None or not os.path.isdir(resume):
        return None
    if not saved_states(resume):
        raise ValueError(f"--resume: {resume} holds no training-state-*.pt; give one of its .pkl to start from it")
    return resume


def continue_run(run_dir: str, given: dict[str, Any], dry_run: bool = False) -> None:
    """Goes on with a run exactly where its newest state left off.

    given: the options of this command line, None where not given. ValueError for one that would change the run.
    """
    with usage_errors("--resume"):
        hold(run_dir)
    processes.remember(run_dir)
    args, before = _read_options(run_dir)
    for name, value in given.items():
        if value is not None and name not in _FREE and value != before.get(name, value):
            option, continues = f"--{name.replace('_', '-')}", f"--resume={shlex.quote(run_dir)} continues it exactly"
            raise ValueError(
                f"{option}: the run has {before[name] or 'the default'}, and {continues}; "
                "leave the option out, or start a new run from one of its snapshots (--resume=….pkl)"
            )
    outdir = given.get("outdir")
    if outdir is not None and os.path.realpath(outdir) != os.path.dirname(os.path.realpath(run_dir)):
        print(f"--outdir is ignored: the run goes on in {run_dir}.")
    measured = {name: before.get(name) if given[name] is None else given[name] for name in _HOW_TO_MEASURE}
    args |= recipe.free_arguments(given | measured)
    args.update(run_dir=run_dir, resume_pkl=None, resume_state=saved_states(run_dir)[-1])
    _split_among(args, given)
    if given.get("workers") is not None:
        args["data_loader_kwargs"]["num_workers"] = given["workers"]
    args["device"] = launch.choose_device(given.get("device") or args["device"])
    if torch.device(args["device"]).type != "cuda" and args["G_kwargs"]["synthesis_kwargs"].get("num_fp16_res"):
        print("The run computed in half precision on CUDA; here it goes on in float32.")
    try:
        saved = read(args["resume_state"])
    except ValueError as error:
        raise ValueError(f"--resume: {error}") from error
    if saved["counters"]["cur_nimg"] >= args["total_kimg"] * 1000:
        raise ValueError(f"--resume: {run_dir} has done its {args['total_kimg']} kimg; raise --kimg to train longer")
    if given["data"] is not None:  # the same images may have moved
        args["training_set_kwargs"]["path"] = os.path.abspath(given["data"])
    data = launch.open_training_set(args["training_set_kwargs"])
    if before.get("data_digest") not in (None, data.digest()):
        raise ValueError(
            f"--data: {data.path} does not hold what the run began with; put that back, or begin a new run from its "
            "newest snapshot (--resume=….pkl)"
        )
    _check_kept(run_dir, before.get("kept_digests", {}))
    launch.summarise(args)
    if dry_run:
        print("Dry run; exiting.")
        return
    cut_back(run_dir, saved)
    launch.run(args, training_set=data)


def _check_kept(run_dir, digests):
    """ValueError unless the files that the run keeps beside its options are what it began with."""
    for name, digest in digests.items():
        path = os.path.join(run_dir, os.path.basename(name))
        try:
            with open(path, "rb") as file:
                same = launch.digest_of(file.read(files.MOST_JSON_BYTES)) == digest
        except OSError as error:
            raise ValueError(f"--resume: {path} cannot be read ({error.strerror}); put it back") from error
        if not same:
            raise ValueError(
                f"--resume: {path} is not what the run began with; put that back, or begin a new run from its newest "
                "snapshot (--resume=….pkl)"
            )


def _split_among(args, given):
    """Makes the arguments those for as many processes as there are now, each with as many parts of a batch as before.

    ValueError if a batch cannot be split so.
    """
    started = given | dict(gpus=given.get("gpus") or (args["num_gpus"] if processes.count() == 1 else None))
    count, batch = launch.num_processes(started, given.get("device") or args["device"]), args["batch_size"]
    parts = batch // (args["num_gpus"] * args["batch_gpu"])
    if count == args["num_gpus"]:
        return
    if batch % (count * parts):
        able = ", ".join(str(n) for n in range(1, batch + 1) if batch % (n * parts) == 0)
        raise ValueError(f"--gpus: batches of {batch} cannot be split between {count} processes; use one of {able}")
    args.update(num_gpus=count, batch_gpu=batch // (count * parts))


def _read_options(run_dir):
    """The arguments of the training loop that a run was started with, and the options of its command line."""
    path = os.path.join(run_dir, "training_options.json")
    try:
        with open(path, "rb") as file:
            args = files.parse_json(file.read(), dict)
        options = args.pop("options", {})
        _check_arguments(args, options)
    except (OSError, ValueError) as error:
        raise ValueError(f"--resume: {path} cannot be read ({error})") from error
    return args, options


_CLASSES = {  # arguments that name a class → modules that it may be in, what it must be
    "training_set_kwargs": (["training.dataset"], torch.utils.data.Dataset),
    "G_kwargs": (persistence.known_modules, torch.nn.Module),
    "D_kwargs": (persistence.known_modules, torch.nn.Module),
    "G_opt_kwargs": (["torch.optim"], torch.optim.Optimizer),
    "D_opt_kwargs": (["torch.optim"], torch.optim.Optimizer),
    "loss_kwargs": (["training.loss", "segan_ext.loss", "segan_ext.adversarial"], object),
    "augment_kwargs": (["training.augment"], torch.nn.Module),
}


def _check_arguments(args, options):
    """ValueError for arguments that no run of ours was started with"""
    if not isinstance(options, dict) or not isinstance(args.get("device"), str):
        raise ValueError("it lacks options or the device")
    if not isinstance(options.get("kept_digests", {}), dict):
        raise ValueError("what it says of files that the run keeps is no table")
    version = options.get("version", launch.OPTIONS_VERSION)
    if version != launch.OPTIONS_VERSION:
        raise ValueError(f"it is of version {version!r}; this version of SEGAN reads {launch.OPTIONS_VERSION}")
    for name in ("total_kimg", "batch_size", "num_gpus", "batch_gpu"):
        if not isinstance(args.get(name), int):
            raise ValueError(f"it lacks {name}")
    if not 1 <= args["num_gpus"] * args["batch_gpu"] <= args["batch_size"] or args["batch_gpu"] < 1:
        raise ValueError(
            f"batches of {args['batch_size']} are not {args['num_gpus']} times some of {args['batch_gpu']}"
        )
    for name, expected in _CLASSES.items():
        kwargs = args.get(name)
        if kwargs is None and name == "augment_kwargs":
            continue
        if not isinstance(kwargs, dict):
            raise ValueError(f"it lacks {name}")
        files.check_class_name(kwargs.get("class_name"), *expected)
    parts = dict(args, synthesis_kwargs=args["G_kwargs"].get("synthesis_kwargs"))
    for name in ("synthesis_kwargs", "data_loader_kwargs"):
        if not isinstance(parts.get(name), dict):
            raise ValueError(f"it lacks {name}")
    missing = {"path", "use_labels", "max_size", "resolution", "xflip"} - set(args["training_set_kwargs"])
    if missing:
        raise ValueError(f"training_set_kwargs lacks {min(missing)}")
