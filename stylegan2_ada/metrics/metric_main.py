"""The register of quality metrics: looked up by name, run on a generator, results kept beside its snapshot."""

import glob
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import dnnlib
from metrics import metric_utils
from metrics.frechet_inception_distance import compute_fid
from metrics.inception_score import compute_is
from metrics.kernel_inception_distance import compute_kid
from metrics.perceptual_path_length import compute_ppl
from metrics.precision_recall import compute_pr, compute_prdc
from snapshots.atomic import append_line, write_atomically
from torch_utils import misc
from training import files

_BLOCKS = dict(row_batch_size=100, col_batch_size=10000)  # 20 MB of distances to 50 000 images at a time

Metric = Callable[[metric_utils.MetricOptions], dict[str, float]]

_metrics: dict[str, Metric] = {}  # name → function(opts) returning {result: number}
_ways: dict[str, dict[str, str]] = {}  # name of a metric → {result: higher, lower or neither}


def register_metric(
    fn: Metric | None = None, *, higher: str = "", lower: str = "", neither: str = ""
) -> Metric | Callable[[Metric], Metric]:
    """Decorator: makes `fn(opts)` available under its name. It returns a dict of numbers.

    higher, lower, neither: names of its results, between spaces, of which so is better. `@register_metric` alone, as
    the reference has it, says it of none. TypeError for what is no function.
    """

    def register(fn):
        if not callable(fn):
            raise TypeError(f"a metric is a function, not {fn!r}")
        _metrics[fn.__name__] = fn
        said = dict(higher=higher, lower=lower, neither=neither)
        _ways[fn.__name__] = {result: way for way, results in said.items() for result in results.split()}
        return fn

    return register if fn is None else register(fn)


def better_way(result: str) -> str:
    """higher, lower or neither: which of two values of a result is better; neither where no metric says so.

    result: its name, or one with what it was computed with, such as fid50k_full_vgg-hed_n1000.
    """
    ways = {name: way for known in _ways.values() for name, way in known.items()}
    names = [name for name in ways if f"{result}_".startswith(f"{name}_")]
    return ways[max(names, key=len)] if names else "neither"


def is_valid_metric(metric: str) -> bool:
    """True if a metric of that name is registered."""
    return metric in _metrics


def list_valid_metrics() -> list[str]:
    """Names of all metrics, in the order in which they were registered."""
    return list(_metrics)


def module_of(metric: str) -> str:
    """Name of the module that registers a metric when it is imported"""
    return _metrics[metric].__module__


def calc_metric(metric: str, **kwargs: Any) -> dnnlib.EasyDict:
    """Runs one metric; `kwargs` are those of `metric_utils.MetricOptions`, which it is called with.

    Returns results, metric, total_time, total_time_str, num_gpus, protocol (what the numbers depend on) and details
    (what they are made of, where a metric says). Where a detector other than the reference's or another number of
    images was used, metric and results are named after it.
    """
    if not is_valid_metric(metric):
        raise ValueError(f"no metric is called {metric!r}; known: {', '.join(list_valid_metrics()) or 'none'}")
    opts = metric_utils.MetricOptions(**kwargs)
    if opts.seed is not None:
        torch.manual_seed(opts.seed * opts.num_gpus + opts.rank)
        np.random.seed((opts.seed * opts.num_gpus + opts.rank) % 2**32)
    start = time.time()
    if opts.device.type == "cuda":
        opts.protocol["tf32"] = False  # results without this line were made with it
    with misc.without_tf32():  # in training too, so that the numbers are those of calc_metrics
        results = _metrics[metric](opts)
    seconds = time.time() - start
    if _ways.get(metric) and _ways[metric].keys() != results.keys():
        raise TypeError(f"{metric} is registered with {', '.join(_ways[metric])}, and gives {', '.join(results)}")
    special = _departure(opts)
    opts.protocol["metric"] = metric
    return dnnlib.EasyDict(
        results=dnnlib.EasyDict({name + special: value for name, value in results.items()}),
        metric=metric + special,
        total_time=seconds,
        total_time_str=dnnlib.util.format_time(seconds),
        num_gpus=opts.num_gpus,
        protocol=opts.protocol,
        details=opts.details,
    )


def _departure(opts):
    """What a metric's name is followed by if it was not computed as it is defined, such as _vgg-hed_n1000."""
    parts = [] if opts.protocol.get("usual_detector", True) else [opts.protocol["detector"]]
    parts += [f"n{opts.num_gen}"] if opts.protocol.get("asked_for") else []
    return "".join(f"_{part}" for part in parts)


def known_results(
    run_dir: str, snapshot_pkl: str, metric: str, since: dict[str, int], **kwargs: Any
) -> dict[str, float] | None:
    """The results of a metric of a snapshot, computed with these options, that a run's files hold; None without.

    since: {file: size} before the snapshot was written; what came earlier is of another one of its name. kwargs: those
    of `MetricOptions` that count here, detectors and num_gen.
    """
    for path in sorted(glob.glob(os.path.join(glob.escape(run_dir), f"metric-{metric}*.jsonl"))):
        with open(path, "rb") as file:
            file.seek(since.get(os.path.basename(path), 0))
            lines = [line for line in file if line.endswith(b"\n")]
        for found in (files.parse_json(line, dict) for line in lines):
            same_snapshot = found.get("snapshot_pkl") == os.path.relpath(snapshot_pkl, run_dir)
            if same_snapshot and answers(found.get("protocol", {}), metric, **kwargs):
                return found["results"]
    return None


def answers(
    protocol: dict[str, Any], metric: str, detectors: Sequence[str] = (), num_gen: int | None = None, seed: int = 0
) -> bool:
    """True if a result under this protocol is what a metric would give with these options"""
    names = [metric_utils.get_feature_detector_name(each) for each in detectors]
    return (
        (protocol.get("metric"), protocol.get("seed")) == (metric, seed)
        and num_gen == protocol.get("asked_for", num_gen)
        and (protocol.get("detector", names[0]) in names if names else protocol.get("usual_detector", True))
    )


def report_metric(result_dict: dict[str, Any], run_dir: str | None = None, snapshot_pkl: str | None = None) -> None:
    """Prints one line of JSON, and appends it to `metric-<name>.jsonl` in the run directory.

    Details, where there are some, go to `metric-<name>-details.json` there, which holds those of the newest result.
    """
    line = dict(result_dict)
    details = line.pop("details", None)
    in_run = run_dir is not None and os.path.isdir(run_dir)
    if run_dir is not None and snapshot_pkl is not None:
        snapshot_pkl = os.path.relpath(snapshot_pkl, run_dir)
    line = json.dumps(dict(line, snapshot_pkl=snapshot_pkl, timestamp=time.time()))
    print(line)
    if not in_run:
        return
    start = os.path.join(run_dir, f"metric-{result_dict['metric']}")
    append_line(f"{start}.jsonl", line)
    if details:
        content = json.dumps(dict(details=details, snapshot_pkl=snapshot_pkl), indent=1)
        write_atomically(f"{start}-details.json", lambda file: file.write(content.encode()))


# ---------------------------------------------------------------------------------------------------------------------
# Of StyleGAN2-ADA: all real images, without mirrored copies


@register_metric(lower="fid50k_full")
def fid50k_full(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """FID between 50 000 generated images and all of the data set"""
    return dict(fid50k_full=compute_fid(_plain(opts), max_real=None, num_gen=opts.count(50000)))


@register_metric(lower="kid50k_full")
def kid50k_full(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """KID between 50 000 generated images and all of the data set"""
    return dict(kid50k_full=_kid(_plain(opts), max_real=1000000))


@register_metric(higher="pr50k3_full_precision pr50k3_full_recall")
def pr50k3_full(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Precision and recall, k = 3, of 50 000 generated images against all of the data set (200 000 at most)"""
    precision, recall = _pr(_plain(opts), max_real=200000)
    return dict(pr50k3_full_precision=precision, pr50k3_full_recall=recall)


@register_metric(lower="ppl2_wend")
def ppl2_wend(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Path length in w at the ends of 50 000 paths, whole picture"""
    return dict(ppl2_wend=_ppl(opts, space="w", sampling="end", crop=False))


@register_metric(higher="is50k_mean", neither="is50k_std")
def is50k(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Inception score of 50 000 generated images in ten parts"""
    mean, std = compute_is(_plain(opts), num_gen=opts.count(50000), num_splits=10)
    return dict(is50k_mean=mean, is50k_std=std)


# ---------------------------------------------------------------------------------------------------------------------
# Of StyleGAN and StyleGAN2: at most 50 000 real images, path lengths of the middle of the picture


@register_metric(lower="fid50k")
def fid50k(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """FID between 50 000 generated images and at most 50 000 of the data set"""
    return dict(fid50k=compute_fid(_all_images(opts), max_real=50000, num_gen=opts.count(50000)))


@register_metric(lower="kid50k")
def kid50k(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """KID between 50 000 generated images and at most 50 000 of the data set"""
    return dict(kid50k=_kid(_all_images(opts), max_real=50000))


@register_metric(higher="pr50k3_precision pr50k3_recall")
def pr50k3(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Precision and recall, k = 3, of 50 000 generated images against at most 50 000 of the data set"""
    precision, recall = _pr(_all_images(opts), max_real=50000)
    return dict(pr50k3_precision=precision, pr50k3_recall=recall)


@register_metric(lower="ppl_zfull")
def ppl_zfull(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Path length in z along 50 000 paths, middle of the picture"""
    return dict(ppl_zfull=_ppl(opts, space="z", sampling="full", crop=True))


@register_metric(lower="ppl_wfull")
def ppl_wfull(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Path length in w along 50 000 paths, middle of the picture"""
    return dict(ppl_wfull=_ppl(opts, space="w", sampling="full", crop=True))


@register_metric(lower="ppl_zend")
def ppl_zend(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Path length in z at the ends of 50 000 paths, middle of the picture"""
    return dict(ppl_zend=_ppl(opts, space="z", sampling="end", crop=True))


@register_metric(lower="ppl_wend")
def ppl_wend(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Path length in w at the ends of 50 000 paths, middle of the picture"""
    return dict(ppl_wend=_ppl(opts, space="w", sampling="end", crop=True))


_PRDC = ("precision", "recall", "density", "coverage")
_REALS = " ".join(f"prdc50k5_{name}_of_reals" for name in _PRDC)


@register_metric(higher=" ".join(f"prdc50k5_{name}" for name in _PRDC), neither=_REALS)
def prdc50k5(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Precision, recall, density, coverage, k = 5, of 50 000 images against as many, half of the data set at most; and
    what other real images give"""
    found = compute_prdc(_plain(opts), opts.count(50000), nhood_size=5, **_BLOCKS)
    results = zip(("", "_of_reals"), found)
    return {f"prdc50k5_{name}{of}": value for of, likeness in results for name, value in likeness._asdict().items()}


def _kid(opts, max_real):
    return compute_kid(opts, max_real, opts.count(50000), num_subsets=100, max_subset_size=1000)


def _pr(opts, max_real):
    return compute_pr(opts, max_real, opts.count(50000), nhood_size=3, **_BLOCKS)


def _ppl(opts, **kwargs):
    return compute_ppl(_all_images(opts), num_samples=opts.count(50000), epsilon=1e-4, batch_size=2, **kwargs)


def _all_images(opts):
    """Options for the whole data set, whatever part of it was trained on"""
    opts.dataset_kwargs.update(max_size=None)
    return opts


def _plain(opts):
    """… and without mirrored copies"""
    opts.dataset_kwargs.update(max_size=None, xflip=False)
    return opts
