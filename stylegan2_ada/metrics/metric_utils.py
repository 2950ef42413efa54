"""What metrics share: options, feature detectors, statistics of features, and the report of progress."""

import copy
import hashlib
import json
import os
import time
import warnings

import numpy as np
import torch

import dnnlib
from atomic import write_atomically

_detectors = {}  # (url, device) → module


class MetricOptions:
    """What a metric is computed of and how; see `metric_main.calc_metric`.

    G: generator, or None. G_kwargs: arguments of its calls. dataset_kwargs: of the data set, with class_name.
    device: None means cuda (of this rank) where there is one. progress: a `ProgressMonitor`, or None for silence.
    cache: keep statistics of the data set in the cache.
    """

    def __init__(
        self, G=None, G_kwargs={}, dataset_kwargs={}, num_gpus=1, rank=0, device=None, progress=None, cache=True
    ):
        if not 0 <= rank < num_gpus:
            raise ValueError(f"rank must lie between 0 and num_gpus − 1 = {num_gpus - 1}, not {rank}")
        self.G, self.G_kwargs = G, dnnlib.EasyDict(G_kwargs)
        self.dataset_kwargs = dnnlib.EasyDict(dataset_kwargs)
        self.num_gpus, self.rank, self.cache = num_gpus, rank, cache
        default = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
        self.device = torch.device(device) if device is not None else default
        self.progress = progress.sub() if progress is not None and rank == 0 else ProgressMonitor()


def get_feature_detector_name(url):
    """The name by which results say what they were computed with: the file's, without folders and ending."""
    return os.path.splitext(url.split("/")[-1])[0]


def get_feature_detector(url, device=torch.device("cpu"), num_gpus=1, rank=0, verbose=False, num_attempts=10):
    """The TorchScript module behind a URL or a path, in eval mode on `device`; opened once in a process.

    With several processes the first one downloads and the others wait. OSError or ValueError with one sentence.
    """
    key = (url, torch.device(device))
    if key not in _detectors:
        if num_gpus > 1 and rank > 0:
            torch.distributed.barrier()
        try:
            path = dnnlib.util.open_url(
                url, verbose=verbose and rank == 0, num_attempts=num_attempts, return_filename=True
            )
            with open(path, "rb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
                _detectors[key] = torch.jit.load(file, map_location="cpu").eval().to(device)
        except RuntimeError as error:
            raise ValueError(f"{url} is no TorchScript file ({str(error).splitlines()[0]})") from error
        finally:
            if num_gpus > 1 and rank == 0:
                torch.distributed.barrier()
    return _detectors[key]


class ProgressMonitor:
    """Prints how far a computation is (verbose), and tells progress_fn(current, total) on a scale of its own.

    tag: what is computed. num_items: how many there will be, or None. flush_interval: items between two lines.
    pfn_lo, pfn_hi: part of the scale 0 … pfn_total that this computation covers.
    """

    def __init__(
        self,
        tag=None,
        num_items=None,
        flush_interval=1000,
        verbose=False,
        progress_fn=None,
        pfn_lo=0,
        pfn_hi=1000,
        pfn_total=1000,
    ):
        self.tag, self.num_items, self.flush_interval, self.verbose = tag, num_items, flush_interval, verbose
        self.progress_fn, self.pfn_lo, self.pfn_hi, self.pfn_total = progress_fn, pfn_lo, pfn_hi, pfn_total
        self.started = self.last_time = time.time()
        self.last_items = 0
        if progress_fn is not None:
            progress_fn(pfn_lo, pfn_total)

    def update(self, cur_items):
        """Says that `cur_items` are done, if enough of them are new or it was the last."""
        finished = self.num_items is not None and cur_items >= self.num_items
        new = cur_items - self.last_items
        if not finished and new < (self.flush_interval or float("inf")):
            return
        now = time.time()
        if self.verbose and self.tag is not None:
            each = 1000 * (now - self.last_time) / max(new, 1)
            so_far = dnnlib.util.format_time(now - self.started)
            print(f"{self.tag:<19s} items {cur_items:<7d} {so_far:<12s} {each:.2f} ms each")
        self.last_time, self.last_items = now, cur_items
        if self.progress_fn is not None and self.num_items is not None:
            share = min(cur_items / self.num_items, 1) if self.num_items else 1
            self.progress_fn(self.pfn_lo + (self.pfn_hi - self.pfn_lo) * share, self.pfn_total)

    def sub(self, tag=None, num_items=None, flush_interval=1000, rel_lo=0, rel_hi=1):
        """The monitor of a part that covers rel_lo … rel_hi of this one's range."""
        width = self.pfn_hi - self.pfn_lo
        return ProgressMonitor(
            tag=tag,
            num_items=num_items,
            flush_interval=flush_interval,
            verbose=self.verbose,
            progress_fn=self.progress_fn,
            pfn_lo=self.pfn_lo + width * rel_lo,
            pfn_hi=self.pfn_lo + width * rel_hi,
            pfn_total=self.pfn_total,
        )


class FeatureStats:
    """Features of many images, one row each: all of them, or their mean and covariance, or both.

    capture_all: keep the rows. capture_mean_cov: keep float64 sums. max_items: what comes after that many is ignored.
    """

    def __init__(self, capture_all=False, capture_mean_cov=False, max_items=None):
        self.capture_all, self.capture_mean_cov, self.max_items = capture_all, capture_mean_cov, max_items
        self.num_items, self.num_features = 0, None
        self.all_features = []  # chunks [n, num_features], float32
        self.raw_mean = self.raw_cov = None  # sums of x and of x xᵀ, float64

    def set_num_features(self, num_features):
        """Fixes the width of a row. ValueError if it is another one already."""
        if self.num_features not in (None, num_features):
            raise ValueError(f"features of {self.num_features} and of {num_features} numbers do not mix")
        if self.num_features is None:
            self.num_features = num_features
            self.raw_mean, self.raw_cov = np.zeros(num_features), np.zeros((num_features,) * 2)

    def is_full(self):
        limit = float("inf") if self.max_items is None else self.max_items
        return self.num_items >= limit

    def append(self, x):
        """x: [n, num_features]"""
        x = np.asarray(x, dtype=np.float32)
        if x.ndim != 2:
            raise ValueError(f"features have two dimensions, not the shape {list(x.shape)}")
        if self.max_items is not None:
            x = x[: max(self.max_items - self.num_items, 0)]
        if not len(x):
            return
        self.set_num_features(x.shape[1])
        self.num_items += len(x)
        if self.capture_all:
            self.all_features.append(x)
        if self.capture_mean_cov:
            x = x.astype(np.float64)
            self.raw_mean += x.sum(axis=0)
            self.raw_cov += x.T @ x

    def append_torch(self, x, num_gpus=1, rank=0):
        """x: tensor [n, num_features] of this process; those of all processes are appended, row by row in turn."""
        if num_gpus > 1:
            parts = [torch.empty_like(x) for _ in range(num_gpus)]
            torch.distributed.all_gather(parts, x.contiguous())
            x = torch.stack(parts, dim=1).flatten(0, 1)
        self.append(x.cpu().numpy())

    def get_all(self):
        """[num_items, num_features], float32"""
        if not self.capture_all:
            raise ValueError("these statistics were made without capture_all")
        return np.concatenate(self.all_features, axis=0)

    def get_all_torch(self):
        return torch.from_numpy(self.get_all())

    def get_mean_cov(self):
        """Mean [num_features] and covariance (of the population) [num_features, num_features], float64."""
        if not self.capture_mean_cov:
            raise ValueError("these statistics were made without capture_mean_cov")
        mean = self.raw_mean / self.num_items
        return mean, self.raw_cov / self.num_items - np.outer(mean, mean)

    def save(self, pkl_file):
        """Writes the statistics; NumPy arrays and JSON, no pickled objects."""
        state = {name: value for name, value in vars(self).items() if value is not None}
        if self.all_features:
            state["all_features"] = self.get_all()
        else:
            del state["all_features"]
        write_atomically(pkl_file, lambda file: np.savez(file, **state))

    @staticmethod
    def load(pkl_file):
        """What `save` wrote. OSError or ValueError if it is something else."""
        stats = FeatureStats()
        with np.load(pkl_file, allow_pickle=False) as state:
            for name in state.files:
                value = state[name]
                vars(stats)[name] = value.item() if value.ndim == 0 else value
        if not isinstance(stats.all_features, list):
            stats.all_features = [stats.all_features]
        return stats


def compute_feature_stats_for_dataset(
    opts,
    detector_url,
    detector_kwargs,
    rel_lo=0,
    rel_hi=1,
    batch_size=64,
    data_loader_kwargs=None,
    max_items=None,
    **stats_kwargs,
):
    """`FeatureStats` of the data set's images, from the cache where they were computed before (opts.cache).

    detector_kwargs: arguments of the detector's calls. max_items: only that many images, in order. stats_kwargs: of
    `FeatureStats`. rel_lo, rel_hi: part of opts.progress.
    """
    dataset = dnnlib.util.construct_class_by_name(**opts.dataset_kwargs)
    num_items = min(len(dataset), max_items or len(dataset))
    cached = _cache_path(opts, dataset, detector_url, detector_kwargs, num_items, stats_kwargs) if opts.cache else None
    if cached is not None and _on_all_ranks(os.path.isfile(cached), opts):
        return FeatureStats.load(cached)

    stats = FeatureStats(max_items=num_items, **stats_kwargs)
    add_features = _feature_adder("dataset features", stats, opts, detector_url, detector_kwargs, rel_lo, rel_hi)
    mine = [(i * opts.num_gpus + opts.rank) % num_items for i in range(-(-num_items // opts.num_gpus))]
    loader = torch.utils.data.DataLoader(dataset, sampler=mine, batch_size=batch_size, **(data_loader_kwargs or {}))
    for images, _labels in loader:
        add_features(images)
    if cached is not None and opts.rank == 0:
        os.makedirs(os.path.dirname(cached), exist_ok=True)
        stats.save(cached)
    return stats


def compute_feature_stats_for_generator(
    opts, detector_url, detector_kwargs, rel_lo=0, rel_hi=1, batch_size=64, batch_gen=None, jit=False, **stats_kwargs
):
    """`FeatureStats` of images of opts.G, with labels drawn from the data set. ValueError without max_items.

    batch_size: images a call of the detector, batch_gen: of the generator. jit: traces the generator. The rest as
    above.
    """
    if stats_kwargs.get("max_items") is None:
        raise ValueError("compute_feature_stats_for_generator needs max_items: a generator has no end")
    batch_gen = batch_gen or min(batch_size, 4)
    if batch_size % batch_gen:
        raise ValueError(f"batch_size {batch_size} must be a multiple of batch_gen {batch_gen}")
    G = copy.deepcopy(opts.G).eval().requires_grad_(False).to(opts.device)
    draw_labels = label_sampler(opts, G)

    def images_of(z, c):
        return (G(z=z, c=c, **opts.G_kwargs) * 127.5 + 128).clamp(0, 255).to(torch.uint8)

    if jit:
        example = [torch.zeros([batch_gen, dim], device=opts.device) for dim in (G.z_dim, G.c_dim)]
        images_of = torch.jit.trace(images_of, example, check_trace=False)
    stats = FeatureStats(**stats_kwargs)
    add_features = _feature_adder("generator features", stats, opts, detector_url, detector_kwargs, rel_lo, rel_hi)
    while not stats.is_full():
        latents = (torch.randn([batch_gen, G.z_dim], device=opts.device) for _ in range(batch_size // batch_gen))
        add_features(torch.cat([images_of(z, draw_labels(batch_gen)) for z in latents]))
    return stats


def label_sampler(opts, G):
    """A function count → labels [count, c_dim] as often as the data set has them; no data set for unconditional G."""
    if G.c_dim == 0:
        return lambda count: torch.zeros([count, 0], device=opts.device)
    dataset = dnnlib.util.construct_class_by_name(**opts.dataset_kwargs)

    def draw(count):
        labels = [dataset.get_label(np.random.randint(len(dataset))) for _ in range(count)]
        return torch.from_numpy(np.stack(labels)).to(opts.device)

    return draw


def _feature_adder(tag, stats, opts, detector_url, detector_kwargs, rel_lo, rel_hi):
    """A function that adds the features of uint8 images [n, C, H, W] to `stats` and reports progress."""
    progress = opts.progress.sub(tag, stats.max_items, rel_lo=rel_lo, rel_hi=rel_hi)
    detector = get_feature_detector(detector_url, opts.device, opts.num_gpus, opts.rank, progress.verbose)

    @torch.no_grad()
    def add(images):
        images = images.expand(-1, 3, -1, -1).to(opts.device)  # detectors take colour pictures
        stats.append_torch(detector(images, **detector_kwargs), opts.num_gpus, opts.rank)
        progress.update(stats.num_items)

    return add


def _cache_path(opts, dataset, detector_url, detector_kwargs, num_items, stats_kwargs):
    path = opts.dataset_kwargs.get("path")
    version = [os.stat(path).st_size, os.stat(path).st_mtime_ns] if path and os.path.exists(path) else None
    what = dict(dataset=opts.dataset_kwargs, version=version, num_items=num_items, stats=stats_kwargs)
    what |= dict(detector=detector_url, detector_kwargs=detector_kwargs)
    digest = hashlib.md5(json.dumps(what, sort_keys=True).encode()).hexdigest()
    name = f"{dataset.name}-{get_feature_detector_name(detector_url)}-{digest}.npz"
    return dnnlib.util.make_cache_dir_path("gan-metrics", name)


def _on_all_ranks(value, opts):
    """What the first process says, so that all take the same way."""
    if opts.num_gpus == 1:
        return value
    value = torch.tensor(float(value), device=opts.device)
    torch.distributed.broadcast(value, src=0)
    return bool(value.item())
