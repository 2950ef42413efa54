"""Starts a training run in a directory of its own and looks after it while it runs.

Also works on a reference checkout whose root comes first on the path: what only our host has is used where it is there.
"""

import contextlib
import hashlib
import inspect
import json
import os
import re
import shlex
import sys
from typing import Any

import torch
import tqdm
import tqdm.contrib

import dnnlib
import legacy
from metrics import metric_main
from runs import distributed, processes
from runs.failures import MACHINE_ERRORS, Diverged, machine_failure
from runs.run_dir import hold
from snapshots.atomic import write_atomically
from snapshots.save import save_snapshot
from training import files, training_loop

OPTIONS_VERSION = 1  # of training_options.json; files of before it said one are of this one too


def choose_device(name: str | None) -> str:
    """The device to work on: `name`, or cuda where there is one. ValueError for one that is not there.

    Every command comes by here, so it also turns TF32 off, which training turns on again where --allow-tf32 asks.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros([], device=torch.device(name))
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # PyTorch may go on for a page
        raise ValueError(f"--device: {name} cannot be used here ({reason}); try cpu") from error
    return name


def num_processes(options: dict[str, Any], device: str) -> int:
    """How many processes train: those that torchrun started, else as many as --gpus asks for.

    ValueError if they cannot have a GPU each, or all work on the CPU.
    """
    asked, started = 1 if options["gpus"] is None else options["gpus"], processes.count()
    if asked < 1:
        raise ValueError(f"--gpus: must be at least 1, not {asked}")
    if started == 1 and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("--gpus: torchrun has to start train_segan.py or train.py itself")
    if started > 1 and options["gpus"] not in (None, started):
        raise ValueError(f"--gpus: torchrun has started {started} processes; leave it out")
    check_gpus(processes.on_this_machine() if started > 1 else asked, device)
    return max(asked, started)


def check_gpus(count: int, device: str) -> None:
    """ValueError unless so many processes on this machine get a GPU each, or all work on the CPU."""
    if count == 1 or not device.startswith("cuda"):
        return
    if device != "cuda":
        raise ValueError(f"--device: {count} processes cannot share {device}; write --device=cuda, or no --gpus")
    if count > torch.cuda.device_count():
        raise ValueError(f"--gpus: {count} are asked for; this machine has {torch.cuda.device_count()}")


def cores_of_each(gpus: int) -> int:
    """CPU cores for each of so many processes, of which those that torchrun started may run elsewhere."""
    return (os.cpu_count() or 1) // (processes.on_this_machine() if processes.count() > 1 else gpus)


def check_outdir(outdir: str, data: str) -> None:
    """ValueError if runs would lie in the folder of their training images, and the next one be trained on samples."""
    if os.path.isdir(data) and files.lies_in(outdir, data):
        raise ValueError(f"--outdir: {outdir} lies in the training data, {data}; name a folder outside of it")


def open_training_set(kwargs: dict[str, Any]) -> torch.utils.data.Dataset:
    """The data set of these arguments after a check of every picture in it. ValueError if it cannot be used."""
    try:
        data = dnnlib.util.construct_class_by_name(**kwargs)
        if hasattr(data, "check_images"):
            data.check_images(progress=sys.stderr.isatty())
        labelled = data.has_labels
        for note in data.notes() if hasattr(data, "notes") else ():
            print(f"{kwargs['path']}: {note}.")
        if not kwargs["use_labels"] and hasattr(data, "has_stored_labels") and data.has_stored_labels():
            print(f"{kwargs['path']} has labels that are not used; --cond=1 trains a conditional model with them.")
    except (OSError, ValueError, TypeError) as error:  # TypeError: arguments from a file that are none of the class's
        raise ValueError(f"--data: {error}") from error
    if kwargs["use_labels"] and not labelled:
        raise ValueError(
            f"--cond: {kwargs['path']} has no labels in dataset.json; leave --cond out or add them with "
            "dataset_tool.py --labels=folders"
        )
    return data


def adopt_networks(args: dict[str, Any], data: torch.utils.data.Dataset) -> dict[str, Any] | None:
    """The networks that --resume starts from (None without it); their widths win over the recipe's, and this is said.

    ValueError if they cannot be opened, or make images or take labels of another shape than the data's.
    """
    if args.get("resume_pkl") is None:
        return None
    try:
        with dnnlib.util.open_url(args["resume_pkl"]) as file:
            trust = _taken_by(legacy.load_network_pkl, trust=args.get("trust_pickle", False))
            networks = legacy.load_network_pkl(file, **trust)
    except (OSError, ValueError) as error:
        raise ValueError(f"--resume: {args['resume_pkl']} cannot be used ({error})") from error
    if not hasattr(networks["G_ema"], "synthesis"):
        raise ValueError(f"--resume: {args['resume_pkl']} holds no generator")
    for name in ("G", "D"):
        if not isinstance(networks[name], torch.nn.Module):
            raise ValueError(f"--resume: {args['resume_pkl']} holds no {name}, which training needs to go on")
    for name, ours in (
        ("img_resolution", data.resolution),
        ("img_channels", data.num_channels),
        ("c_dim", data.label_dim),
    ):
        theirs = getattr(networks["G_ema"], name)
        if theirs != ours:
            raise ValueError(f"--resume: its networks have {name} {theirs}, the data set has {ours}; make them equal")
    said = []
    for net, kwargs in (("G", args["G_kwargs"]), ("D", args["D_kwargs"])):
        for part, name, value in _shape_arguments(networks[net]):
            if name == "conv_clamp" and value is None:
                continue  # our half precision needs a limit
            chosen = kwargs.setdefault(part, {}) if part else kwargs
            if chosen.get(name, value) != value:
                said.append(f"{net} {name} {chosen[name]} to {value}")
            chosen[name] = value
    if said:
        print(f"The networks of --resume decide their own shape: {', '.join(said)}.")
    return networks


# Constructor arguments that decide the shapes of tensors or what is computed with them, by the part they belong to.
_SHAPE = {
    "": ("z_dim", "w_dim", "architecture", "channel_base", "channel_max", "cmap_dim", "conv_clamp"),
    "mapping_kwargs": ("num_layers", "embed_features", "layer_features", "activation", "lr_multiplier"),
    "synthesis_kwargs": (
        *("architecture", "channel_base", "channel_max", "resample_filter", "kernel_size", "use_noise"),
        *("activation", "conv_clamp"),
    ),
    "block_kwargs": ("activation", "resample_filter"),
    "epilogue_kwargs": ("mbstd_num_channels", "activation"),
}


def _shape_arguments(net):
    """(part, name, value) of those arguments that a network was made with, given or by default."""
    attributes = {"mapping_kwargs": "mapping", "synthesis_kwargs": "synthesis"}
    attributes |= {"block_kwargs": f"b{net.img_resolution}", "epilogue_kwargs": "b4"}
    parts = {"": net} | {part: getattr(net, name) for part, name in attributes.items() if hasattr(net, name)}
    for part, module in parts.items():
        made_with = _constructor_arguments(module)
        yield from ((part, name, made_with[name]) for name in _SHAPE[part] if name in made_with)


def _constructor_arguments(module):
    """name → value, given or by default, of everything that a persistent object was constructed with."""
    for cls in type(module).__mro__:  # a decorated class of the reference hides its signature behind *args, **kwargs
        signature = inspect.signature(cls.__init__)
        if len(signature.parameters) > 3:
            break
    bound = signature.bind(module, *module.init_args, **module.init_kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name)
    return arguments


def _taken_by(function, **kwargs):
    """Those of `kwargs` that a host's function takes."""
    taken = inspect.signature(function).parameters
    return {name: value for name, value in kwargs.items() if name in taken}


def start(
    outdir: str,
    description: str,
    args: dict[str, Any],
    options: dict[str, Any],
    dry_run: bool = False,
    training_set: torch.utils.data.Dataset | None = None,
    networks: dict[str, Any] | None = None,
    kept: dict[str, bytes] = {},
) -> str | None:
    """Trains in a new directory `NNNNN-description` below `outdir`; returns its path (None for a dry run).

    args: of `training_loop`. options: what the user asked for, kept beside them in training_options.json.
    training_set: the open data set. networks: those to start from; a host that cannot take them finds them in a file.
    kept: {name: content} of files that the run needs in its directory, which must be the same when it goes on.
    """
    taken = [int(m[1]) for name in listdir(outdir) if (m := re.match(r"(\d+)-", name))]
    run_dir = os.path.join(outdir, f"{max(taken, default=-1) + 1:05d}-{description}")
    args = dict(args, run_dir=run_dir)
    opened = _taken_by(training_loop.training_loop, training_set=training_set, resume_networks=networks)
    needs_file = networks is not None and "resume_networks" not in opened
    if needs_file:
        args["resume_pkl"] = os.path.join(run_dir, "source.pkl")
    said = dict(version=OPTIONS_VERSION)
    if hasattr(training_set, "digest"):
        said["data_digest"] = training_set.digest()
    if kept:
        said["kept_digests"] = {name: digest_of(content) for name, content in kept.items()}
    text = json.dumps(dict(args, options=options | said), indent=2)
    print(f"Training options:\n{text}\n")
    summarise(args)
    if dry_run:
        print("Dry run; exiting.")
        return None
    try:
        os.makedirs(run_dir)
        hold(run_dir)
        processes.remember(run_dir)
        for name, content in (kept | {"training_options.json": text.encode()}).items():
            write_atomically(os.path.join(run_dir, name), lambda file, content=content: file.write(content))
        if needs_file:
            save_snapshot(args["resume_pkl"], networks)
    except OSError as error:
        raise ValueError(f"--outdir: {run_dir} cannot be made ({error.strerror})") from error
    run(args, **opened)
    return run_dir


def digest_of(content: bytes) -> str:
    """16 hex digits that stand for the content of a file"""
    return hashlib.sha256(content).hexdigest()[:16]


def summarise(args: dict[str, Any]) -> None:
    """Prints, a line each, what a user should see of the arguments of `training_loop` before it runs."""
    data, G = args["training_set_kwargs"], args["G_kwargs"]
    rows = [
        ("Output directory", args["run_dir"]),
        ("Training data", data["path"]),
        ("Images, resolution", f"{data['max_size']}, {data['resolution']}×{data['resolution']}"),
        ("Labels, mirrored", f"{data['use_labels']}, {data['xflip']}"),
        ("Generator", G["class_name"].split(".")[-1]),
        ("Duration", f"{args['total_kimg']} kimg in batches of {args['batch_size']}"),
        ("Device", args.get("device")),
    ]
    for label, value in rows:
        print(f"{label + ':':<20s} {value}")
    print()


def run(args: dict[str, Any], **opened: Any) -> None:
    """Calls the loop with a log file, a progress bar and a clean way to stop; opened: what it need not open again."""
    run_dir = args["run_dir"]
    log = os.path.join(run_dir, "log.txt")
    try:
        with (
            _terminal_bar(args["total_kimg"]) as progress,
            distributed.stoppable() as asked,
            dnnlib.util.Logger(log, "a"),
        ):
            known = _taken_by(training_loop.training_loop, **args)
            modules = {metric_main.module_of(name) for name in args["metrics"]} if args["num_gpus"] > 1 else ()
            distributed.lead(known, sorted(modules), **opened, abort_fn=asked, progress_fn=progress)
    except MACHINE_ERRORS as error:
        reason = machine_failure(error)
        if reason is None:
            raise
        reason += "; a smaller --batch-gpu needs less" if reason == "out of memory" else ""
        sentence = f"Error: the run in {run_dir} stopped ({reason}); {_way_on(run_dir, error)}."
        print(sentence, file=sys.stderr)
        with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as file:  # its disk may be what is full
            print(sentence, file=file)
        sys.exit(1)


def _way_on(run_dir, error):
    """What a user whose run has failed can do"""
    saved = [name for name in listdir(run_dir) if re.fullmatch(r"network-snapshot-\d+\.pkl", name)]
    states = [name for name in listdir(run_dir) if re.fullmatch(r"training-state-\d+\.pt", name)]
    if states and not isinstance(error, Diverged):
        return f"--resume={shlex.quote(run_dir)} goes on from {states[-1]}"
    if saved:
        return f"--resume={shlex.quote(os.path.join(run_dir, saved[-1]))} begins a new run from before"
    return "begin anew" if isinstance(error, Diverged) else "it had saved nothing yet"


@contextlib.contextmanager
def _terminal_bar(total_kimg):
    """progress_fn that draws a bar with ETA on a terminal, below the lines that are printed; silent elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    stdout = sys.stdout
    with tqdm.tqdm(total=total_kimg, unit="kimg", file=sys.stderr, smoothing=0.05, dynamic_ncols=True) as bar:
        sys.stdout = tqdm.contrib.DummyTqdmFile(stdout)  # prints above the bar

        def progress(kimg, _total_kimg):
            if bar.initial == bar.n == 0:  # a continued run starts somewhere else
                bar.initial = kimg
            bar.update(min(kimg, bar.total) - bar.n)  # the last batch may go a little beyond

        try:
            yield progress
        finally:
            sys.stdout = stdout


def listdir(folder: str) -> list[str]:
    """Names in a folder, sorted; none if it is not there."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
