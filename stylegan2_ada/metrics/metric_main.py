"""The register of quality metrics: looked up by name, run on a generator, results kept beside its snapshot."""

import json
import os
import time

import dnnlib
from metrics import metric_utils
from metrics.frechet_inception_distance import compute_fid

_metrics = {}  # name → function(opts) returning {result: number}


def register_metric(fn):
    """Decorator: makes `fn(opts)` available under its name. It returns a dict of numbers."""
    if not callable(fn):
        raise TypeError(f"a metric is a function, not {fn!r}")
    _metrics[fn.__name__] = fn
    return fn


def is_valid_metric(metric):
    return metric in _metrics


def list_valid_metrics():
    return list(_metrics)


def calc_metric(metric, **kwargs):
    """Runs one metric; `kwargs` are those of `metric_utils.MetricOptions`, which it is called with.

    Returns results, metric, total_time, total_time_str and num_gpus.
    """
    if not is_valid_metric(metric):
        raise ValueError(f"no metric is called {metric!r}; known: {', '.join(list_valid_metrics()) or 'none'}")
    opts = metric_utils.MetricOptions(**kwargs)
    start = time.time()
    results = _metrics[metric](opts)
    seconds = time.time() - start
    return dnnlib.EasyDict(
        results=dnnlib.EasyDict(results),
        metric=metric,
        total_time=seconds,
        total_time_str=dnnlib.util.format_time(seconds),
        num_gpus=opts.num_gpus,
    )


def report_metric(result_dict, run_dir=None, snapshot_pkl=None):
    """Prints one line of JSON, and appends it to `metric-<name>.jsonl` in the run directory."""
    line = dict(result_dict)
    if run_dir is not None and snapshot_pkl is not None:
        snapshot_pkl = os.path.relpath(snapshot_pkl, run_dir)
    line = json.dumps(dict(line, snapshot_pkl=snapshot_pkl, timestamp=time.time()))
    print(line)
    if run_dir is not None and os.path.isdir(run_dir):
        with open(os.path.join(run_dir, f"metric-{result_dict['metric']}.jsonl"), "a", encoding="utf-8") as file:
            file.write(line + "\n")


@register_metric
def fid50k_full(opts):
    """FID between 50 000 generated images and all of the data set, without mirrored copies"""
    return dict(fid50k_full=compute_fid(_of_all_images(opts, xflip=False), max_real=None, num_gen=50000))


@register_metric
def fid50k(opts):
    """FID between 50 000 generated images and at most 50 000 of the data set"""
    return dict(fid50k=compute_fid(_of_all_images(opts), max_real=50000, num_gen=50000))


def _of_all_images(opts, **changes):
    """Options for the whole data set, whatever part of it was trained on"""
    opts.dataset_kwargs.update(max_size=None, **changes)
    return opts
