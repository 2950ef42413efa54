"""Measures a trained generator: `python calc_metrics.py --network=PKL --metrics=fid50k_full`."""

import importlib
import json
import os
import tempfile
from typing import Any

import runs  # noqa: F401  isort: skip (before PyTorch)
import click
import torch

import dnnlib
from metrics import metric_main, metric_utils
from runs import processes
from runs.failures import METRIC_ERRORS, metric_failure
from runs.launch import check_gpus, choose_device
from runs.options import SEED, command, generator_options, metric_options, usage_errors
from runs.recipe import metric_kwargs, metric_names
from snapshots.load import load_snapshot
from torch_utils import misc


@command()
@generator_options
@click.option("--metrics", default="fid50k_full", show_default=True, metavar="LIST", help="Comma-separated, or none")
@click.option("--data", metavar="PATH", help="Images to compare with  [default: those of the training]")
@click.option("--mirror", type=bool, help="Count mirrored copies of the images too  [default: as in training]")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="Processes, one a GPU")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the random latents")
@click.option("--verbose", type=bool, default=True, show_default=True, help="Show progress")
@metric_options
def main(network, trust_pickle, device, metrics, data, mirror, gpus, seed, verbose, detector, num_gen, attributes):
    """Compute quality metrics of a generator.

    The results are printed, a line of JSON each, and added to metric-NAME.jsonl in the training run's directory if the
    network lies in one. They are named after the detector if it is not the usual one, and state what they depend on.
    """
    kwargs = dict(metric_kwargs(detector, num_gen, attributes), seed=seed)
    kwargs |= dict(num_gpus=gpus, device=choose_device(device))
    check_gpus(gpus, kwargs["device"])
    names = metric_names(metrics)
    if mirror and names and all(name.endswith("_full") for name in names):
        raise click.UsageError(f"--mirror: {names[0]} never counts mirrored copies; {names[0][:-5]} does")
    print(f"Loading network from {network}...")
    measure(network, names, data, mirror, verbose, trust_pickle, **kwargs)


def measure(
    network: str,
    metrics: list[str],
    data: str | None = None,
    mirror: bool | None = None,
    verbose: bool = True,
    trust: bool = False,
    **kwargs: Any,
) -> None:
    """Computes metrics of a network file, prints them and keeps them in the run directory that it lies in, if any.

    data, mirror: as the options. kwargs: of `MetricOptions`, without G, rank and progress. click.UsageError with the
    reason if something cannot be measured.
    """
    with usage_errors("--network"):
        snapshot = load_snapshot(network, trust)
    kwargs |= dict(G=snapshot["G_ema"], dataset_kwargs=_data_of(snapshot, data, mirror))
    if verbose:
        _describe(kwargs["G"], kwargs["dataset_kwargs"])
    in_run = not dnnlib.util.is_url(network) and os.path.isfile(os.path.join(os.path.dirname(network), _OPTIONS))
    run_dir = os.path.dirname(os.path.abspath(network)) if in_run else None
    modules = sorted({metric_main.module_of(name) for name in metrics})
    job = (metrics, kwargs, verbose, run_dir, network, modules)
    if kwargs["num_gpus"] == 1:
        return _measure(0, *job)
    with tempfile.TemporaryDirectory() as folder:
        try:
            meeting = os.path.join(folder, "meeting")
            torch.multiprocessing.spawn(_process, args=(meeting, *job), nprocs=kwargs["num_gpus"])
        except torch.multiprocessing.ProcessRaisedException as error:
            kind, _, sentence = str(error).strip().splitlines()[-1].partition(": ")
            if not kind.endswith("UsageError"):
                raise
            raise click.UsageError(sentence) from None


_OPTIONS = "training_options.json"


def _data_of(snapshot, data, mirror):
    """Arguments of the data set to compare with; empty if there is none. click.UsageError if it does not fit."""
    G, kwargs = snapshot["G_ema"], dict(snapshot["training_set_kwargs"] or {})
    if data is not None:
        kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=data, use_labels=G.c_dim != 0)
    if not kwargs:
        return kwargs
    kwargs |= dict(resolution=G.img_resolution, max_size=None)
    if mirror is not None:
        kwargs["xflip"] = mirror
    if data is None:
        return kwargs  # opened by the metrics that need it
    with usage_errors("--data"):
        found = dnnlib.util.construct_class_by_name(**kwargs)
        found.check_images()
        if (found.num_channels, found.label_dim) != (G.img_channels, G.c_dim):
            raise ValueError(
                f"{found.name} has {found.num_channels} channels and labels of {found.label_dim} numbers, the network "
                f"{G.img_channels} and {G.c_dim}"
            )
    return kwargs


def _describe(G, dataset_kwargs):
    print("Dataset options:")
    print(json.dumps(dataset_kwargs, indent=2))
    with torch.no_grad():
        misc.print_module_summary(G, [torch.zeros([1, G.z_dim]), torch.zeros([1, G.c_dim])])


def _process(rank, meeting, metrics, kwargs, *job):
    """One of several processes; they share the work of each metric."""
    gpus, device = kwargs["num_gpus"], kwargs["device"]
    if device == "cuda":
        device = f"cuda:{rank}"
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(torch.get_num_threads() // gpus, 1))
    processes.join(f"file://{meeting}", rank, gpus)
    try:
        _measure(rank, metrics, dict(kwargs, device=device), *job)
    finally:
        processes.leave()


def _measure(rank, metrics, kwargs, verbose, run_dir, network, modules):
    for module in modules:
        importlib.import_module(module)  # in a new process, a plugin's metrics are not registered yet
    for metric in metrics:
        if rank == 0 and verbose:
            print(f"Calculating {metric}...")
        progress = metric_utils.ProgressMonitor(verbose=verbose and rank == 0)
        try:
            result = metric_main.calc_metric(metric, rank=rank, progress=progress, **kwargs)
        except METRIC_ERRORS as error:
            reason = metric_failure(error)
            if reason is None:
                raise
            path = kwargs["dataset_kwargs"].get("path")
            if path is not None and path in reason and not os.path.exists(path):
                reason = f"the images of the training are not at {path} any more; name them with --data=PATH"
            raise click.UsageError(f"{metric}: {reason}") from error
        if rank == 0:
            metric_main.report_metric(result, run_dir=run_dir, snapshot_pkl=network)


if __name__ == "__main__":
    main()
