"""Starts a training run in a directory of its own, continues one, and looks after it while it runs."""

import contextlib
import inspect
import json
import os
import pickle
import re
import signal
import sys

import click
import torch
import tqdm
import tqdm.contrib

import dnnlib
import legacy
import recipe
from atomic import write_atomically
from training import training_loop
from training.state import read, saved_states

# Options that may change when a run is continued. None has a part in the arithmetic, but for the device, which is for
# the user to change knowingly.
_FREE = {"outdir", "snap", "tick", "metrics", "dry_run", "kimg", "nobench", "resume", "workers", "grid", "device"}


def choose_device(name):
    """The device to train on: `name`, or cuda where there is one. click.UsageError for one that is not there."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros([], device=torch.device(name))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise click.UsageError(f"--device: {name} cannot be used here ({reason}); try cpu") from error
    return name


def open_training_set(kwargs):
    """The data set of these arguments after a check of every picture in it. click.UsageError if it cannot be used."""
    try:
        data = dnnlib.util.construct_class_by_name(**kwargs)
        data.check_images(progress=sys.stderr.isatty())
        if kwargs["use_labels"] and not data.has_labels:
            raise click.UsageError(
                f"--cond: {kwargs['path']} has no labels in dataset.json; leave --cond out or add them with "
                "dataset_tool.py --labels=folders"
            )
        if not kwargs["use_labels"] and data.has_stored_labels():
            print(f"{kwargs['path']} has labels that are not used; --cond=1 trains a conditional model with them.")
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--data: {error}") from error
    return data


def adopt_networks(args, data):
    """The networks that --resume starts from (None without it); their widths win over the recipe's, and this is said.

    click.UsageError if they cannot be opened, or make images or take labels of another shape than the data's.
    """
    if args.get("resume_pkl") is None:
        return None
    try:
        with dnnlib.util.open_url(args["resume_pkl"]) as file:
            networks = legacy.load_network_pkl(file, trust=args.get("trust_pickle", False))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--resume: {args['resume_pkl']} cannot be used ({error})") from error
    for name, ours in (
        ("img_resolution", data.resolution),
        ("img_channels", data.num_channels),
        ("c_dim", data.label_dim),
    ):
        theirs = getattr(networks["G_ema"], name)
        if theirs != ours:
            raise click.UsageError(
                f"--resume: its networks have {name} {theirs}, the data set has {ours}; make them equal"
            )
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
        parameters = inspect.signature(type(module)).parameters.values()
        made_with = {p.name: p.default for p in parameters if p.default is not p.empty} | module.init_kwargs
        yield from ((part, name, made_with[name]) for name in _SHAPE[part] if name in made_with)


def start(outdir, description, args, options, dry_run=False, networks=None):
    """Trains in a new directory `NNNNN-description` below `outdir`; returns its path (None for a dry run).

    args: of `training_loop`. options: what the user asked for, kept beside them in training_options.json. networks:
    dict of networks to start from instead of those in the pickle; they are kept in the run directory.
    """
    taken = [int(m[1]) for name in _listdir(outdir) if (m := re.match(r"(\d+)-", name))]
    run_dir = os.path.join(outdir, f"{max(taken, default=-1) + 1:05d}-{description}")
    args = dict(args, run_dir=run_dir)
    if networks is not None:
        args["resume_pkl"] = os.path.join(run_dir, "source.pkl")
    text = json.dumps(dict(args, options=options), indent=2)
    print(f"Training options:\n{text}\n")
    _summarise(args)
    if dry_run:
        print("Dry run; exiting.")
        return None
    try:
        os.makedirs(run_dir)
    except OSError as error:
        raise click.UsageError(f"--outdir: {run_dir} cannot be made ({error.strerror})") from error
    with open(os.path.join(run_dir, "training_options.json"), "w", encoding="utf-8") as file:
        file.write(text)
    if networks is not None:
        write_atomically(args["resume_pkl"], lambda file: pickle.dump(networks, file))
    _run(args)
    return run_dir


def continued(options, outdir, dry_run):
    """True if --resume means a run, which has then been continued to its end; False if there is a run to start."""
    run_dir = _run_to_continue(options["resume"], outdir)
    if run_dir is not None:
        continue_run(run_dir, options, dry_run)
    return run_dir is not None


def _run_to_continue(resume, outdir):
    """The run directory that --resume means, or None if it means networks to start from."""
    if resume == "latest":
        runs = [os.path.join(outdir, name) for name in _listdir(outdir)]
        states = [state for run_dir in runs if os.path.isdir(run_dir) for state in saved_states(run_dir)]
        if not states:
            raise click.UsageError(f"--resume: no run in {outdir} has saved a state yet; start one without --resume")
        return os.path.dirname(max(states, key=os.path.getmtime))
    if resume is None or not os.path.isdir(resume):
        return None
    if not saved_states(resume):
        raise click.UsageError(
            f"--resume: {resume} holds no training-state-*.pt; give one of its .pkl to start from it"
        )
    return resume


def continue_run(run_dir, given, dry_run=False):
    """Goes on with a run exactly where its newest state left off.

    given: the options of this command line, None where not given. click.UsageError for one that would change the run.
    """
    args, before = _read_options(run_dir)
    for name, value in given.items():
        if value is not None and name not in _FREE and value != before.get(name, value):
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{option}: the run has {before[name] or 'the default'}, and --resume={run_dir} continues it exactly; "
                "leave the option out, or start a new run from one of its snapshots (--resume=….pkl)"
            )
    args |= recipe.free_arguments(given)
    args.update(run_dir=run_dir, resume_pkl=None, resume_state=saved_states(run_dir)[-1])
    if given.get("workers") is not None:
        args["data_loader_kwargs"]["num_workers"] = given["workers"]
    args["device"] = choose_device(given.get("device") or args["device"])
    if torch.device(args["device"]).type != "cuda" and args["G_kwargs"]["synthesis_kwargs"].get("num_fp16_res"):
        print("The run computed in half precision on CUDA; here it goes on in float32.")
    try:
        counters = read(args["resume_state"])["counters"]
    except ValueError as error:
        raise click.UsageError(f"--resume: {error}") from error
    if counters["cur_nimg"] >= args["total_kimg"] * 1000:
        raise click.UsageError(
            f"--resume: {run_dir} has done its {args['total_kimg']} kimg; raise --kimg to train longer"
        )
    open_training_set(args["training_set_kwargs"])
    _summarise(args)
    if dry_run:
        print("Dry run; exiting.")
        return
    log = os.path.join(run_dir, "log.txt")
    if os.path.exists(log):  # what was logged after the state was saved will happen again
        os.truncate(log, min(counters["log_bytes"], os.path.getsize(log)))
    _run(args)


def _read_options(run_dir):
    """The arguments of the training loop that a run was started with, and the options of its command line."""
    path = os.path.join(run_dir, "training_options.json")
    try:
        with open(path, encoding="utf-8") as file:
            args = json.load(file)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--resume: {path} cannot be read ({error})") from error
    return args, args.pop("options", {})


def _summarise(args):
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


def _run(args):
    """Calls the loop with a log file, a progress bar and a clean way to stop."""
    run_dir = args["run_dir"]
    log = os.path.join(run_dir, "log.txt")
    with _terminal_bar(args["total_kimg"]) as progress, _stoppable() as asked, dnnlib.util.Logger(log, file_mode="a"):
        try:
            training_loop.training_loop(**args, abort_fn=asked, progress_fn=progress)
        except OSError as error:
            kept = "its newest snapshot is whole" if saved_states(run_dir) else "it had saved nothing yet"
            print(f"Error: the run in {run_dir} stopped ({error}); {kept}; --resume={run_dir} continues it.")
            sys.exit(1)


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


@contextlib.contextmanager
def _stoppable():
    """A function that says whether Ctrl-C or SIGTERM has come; a second one stops at once."""
    came = []

    def handler(number, _frame):
        if came:
            sys.exit(128 + number)
        came.append(number)
        print("Stopping after this step; once more stops at once.")

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield lambda: bool(came)
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _listdir(folder):
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
