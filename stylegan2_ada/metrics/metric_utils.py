"""What metrics share: options, feature detectors, statistics of features, and the report of progress."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import dnnlib
from metrics import detectors
from runs import processes
from snapshots.atomic import write_atomically
from torch_utils import cached_weights
from training import files

_detectors = {}  # (name, path or URL, device) → module
_digests = {}  # (path, its time) → digest of a data set


class MetricOptions:
    """What a metric is computed of and how; see `metric_main.calc_metric`.

    G: generator, or None. G_kwargs: arguments of its calls. dataset_kwargs: of the data set, with class_name.
    device: None means cuda (of this rank) where there is one. progress: a `ProgressMonitor`, or None for silence.
    cache: keep statistics of the data set in the cache. detectors: names, paths or URLs of detectors to use instead of
    the reference's. num_gen: images or pairs to generate instead of the metric's own number. seed: of all random
    numbers; None goes on with PyTorch's and NumPy's. attributes: data set with known attributes, or classifier file,
    for the metrics that need them.

    A metric notes in `protocol` what its result depends on (detector, num_real, num_gen, data, …), and in `details`
    what is too much for a line.
    """

    def __init__(
        self,
        G: torch.nn.Module | None = None,
        G_kwargs: dict[str, Any] = {},
        dataset_kwargs: dict[str, Any] = {},
        num_gpus: int = 1,
        rank: int = 0,
        device: torch.device | str | None = None,
        progress: ProgressMonitor | None = None,
        cache: bool = True,
        detectors: Sequence[str] = (),
        num_gen: int | None = None,
        seed: int | None = None,
        attributes: str | None = None,
    ) -> None:
        if not 0 <= rank < num_gpus:
            raise ValueError(f"rank must lie between 0 and num_gpus − 1 = {num_gpus - 1}, not {rank}")
        self.G, self.G_kwargs = G, dnnlib.EasyDict(G_kwargs)
        self.dataset_kwargs = dnnlib.EasyDict(dataset_kwargs)
        self.num_gpus, self.rank, self.cache = num_gpus, rank, cache
        default = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
        self.device = torch.device(device) if device is not None else default
        self.progress = progress.sub() if progress is not None and rank == 0 else ProgressMonitor()
        self.detectors, self.num_gen, self.seed = list(detectors), num_gen, seed
        self.attributes = attributes
        self.protocol, self.details = dict(seed=seed), {}

    def count(self, default: int) -> int:
        """How many images or pairs to generate, for a metric that is defined with `default` of them"""
        self.protocol["asked_for"] = self.num_gen
        return self.num_gen or default

    def detector(self, kind: str, default: str) -> str:
        """Name, path or URL of the detector for a `kind` of `metrics.detectors`: `default` unless others were given.

        ValueError if none of those can do it.
        """
        chosen = default if not self.detectors else None
        for detector in self.detectors:
            if chosen is None and kind in get_feature_detector(detector, self.device, self.num_gpus, self.rank).kinds:
                chosen = detector
        if chosen is None:
            able = [name for name, each in detectors.OFFLINE.items() if kind in each.kinds]
            names = ", ".join(map(get_feature_detector_name, self.detectors))
            raise ValueError(f"this metric needs a detector for {kind}, which {names} is not; add {' or '.join(able)}")
        self.protocol["detector"] = get_feature_detector_name(chosen)
        self.protocol["usual_detector"] = chosen == default
        digest = detectors.file_digest(chosen)
        self.protocol |= {} if digest is None else dict(detector_digest=digest)
        return chosen


def get_feature_detector_name(url: str) -> str:
    """The name by which results say what they were computed with: the file's, without folders and ending."""
    return os.path.splitext(url.split("/")[-1])[0]


def get_feature_detector(
    url: str,
    device: torch.device | str = torch.device("cpu"),
    num_gpus: int = 1,
    rank: int = 0,
    verbose: bool = False,
    num_attempts: int = 10,
) -> torch.nn.Module:
    """The detector behind a name, a URL or a path (`metrics.detectors`), on `device`; opened once in a process.

    With several processes the first one downloads and the others wait. OSError or ValueError with one sentence.
    """
    key = (url, torch.device(device))
    missing = key not in _detectors
    if num_gpus > 1:  # the first process may have opened it before there were others
        processes.go_on()
        missing = processes.any_of_all(missing)
    if missing:
        if num_gpus > 1 and rank > 0:
            torch.distributed.barrier()
        try:
            path = None
            if url not in detectors.OFFLINE:
                path = dnnlib.util.open_url(
                    url, verbose=verbose and rank == 0, num_attempts=num_attempts, return_filename=True
                )
            _detectors[key] = detectors.open_detector(url, path, device)
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
        tag: str | None = None,
        num_items: int | None = None,
        flush_interval: int | None = 1000,
        verbose: bool = False,
        progress_fn: Callable[[float, float], None] | None = None,
        pfn_lo: float = 0,
        pfn_hi: float = 1000,
        pfn_total: float = 1000,
    ) -> None:
        self.tag, self.num_items, self.flush_interval, self.verbose = tag, num_items, flush_interval, verbose
        self.progress_fn, self.pfn_lo, self.pfn_hi, self.pfn_total = progress_fn, pfn_lo, pfn_hi, pfn_total
        self.started = self.last_time = time.time()
        self.last_items = 0
        if progress_fn is not None:
            progress_fn(pfn_lo, pfn_total)

    def update(self, cur_items: int) -> None:
        """Says that `cur_items` are done, if enough of them are new or it was the last.

        `processes.Interrupted` in a process that works alone and is asked to stop.
        """
        if processes.count() == 1:
            processes.go_on()
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

    def sub(
        self,
        tag: str | None = None,
        num_items: int | None = None,
        flush_interval: int | None = 1000,
        rel_lo: float = 0,
        rel_hi: float = 1,
    ) -> ProgressMonitor:
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

    def __init__(self, capture_all: bool = False, capture_mean_cov: bool = False, max_items: int | None = None) -> None:
        self.capture_all, self.capture_mean_cov, self.max_items = capture_all, capture_mean_cov, max_items
        self.num_items, self.num_features = 0, None
        self.all_features = None  # [at least num_items, num_features], float32
        self.raw_mean = self.raw_cov = None  # sums of x and of x xᵀ, float64

    def set_num_features(self, num_features: int) -> None:
        """Fixes the width of a row. ValueError if it is another one already."""
        if self.num_features not in (None, num_features):
            raise ValueError(f"features of {self.num_features} and of {num_features} numbers do not mix")
        if self.num_features is None:
            self.num_features = num_features
            self.raw_mean, self.raw_cov = np.zeros(num_features), np.zeros((num_features,) * 2)

    def is_full(self) -> bool:
        """True once max_items rows have come."""
        limit = float("inf") if self.max_items is None else self.max_items
        return self.num_items >= limit

    def append(self, x: np.ndarray) -> None:
        """x: [n, num_features]"""
        x = np.asarray(x, dtype=np.float32)
        if x.ndim != 2:
            raise ValueError(f"features have two dimensions, not the shape {list(x.shape)}")
        if self.max_items is not None:
            x = x[: max(self.max_items - self.num_items, 0)]
        if not len(x):
            return
        if not np.isfinite(x).all():  # one such number would spoil every sum
            raise ValueError("the features of some images are not finite; does the network still make images?")
        self.set_num_features(x.shape[1])
        if self.capture_all:
            self._keep(x)
        self.num_items += len(x)
        if self.capture_mean_cov:
            x = x.astype(np.float64)
            self.raw_mean += x.sum(axis=0)
            self.raw_cov += x.T @ x

    def _keep(self, x):
        """Adds rows to one array that grows, so that all features never lie in memory twice."""
        needed = self.num_items + len(x)
        if self.all_features is None or needed > len(self.all_features):
            rows = needed + needed // 2 if self.max_items is None else self.max_items
            grown = np.empty([rows, self.num_features], dtype=np.float32)
            if self.num_items:
                grown[: self.num_items] = self.all_features[: self.num_items]
            self.all_features = grown
        self.all_features[self.num_items : needed] = x

    def append_torch(self, x: torch.Tensor, num_gpus: int = 1, rank: int = 0) -> None:
        """x: tensor [n, num_features] of this process; those of all processes are appended, row by row in turn."""
        if num_gpus > 1:
            parts = [torch.empty_like(x) for _ in range(num_gpus)]
            processes.go_on()
            torch.distributed.all_gather(parts, x.contiguous())
            x = torch.stack(parts, dim=1).flatten(0, 1)
        self.append(x.cpu().numpy())

    def get_all(self) -> np.ndarray:
        """[num_items, num_features], float32"""
        if not self.capture_all:
            raise ValueError("these statistics were made without capture_all")
        return self.all_features[: self.num_items]

    def get_all_torch(self) -> torch.Tensor:
        """`get_all` as a tensor on the CPU, which shares its memory."""
        return torch.from_numpy(self.get_all())

    def get_mean_cov(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [num_features] and covariance (of the population) [num_features, num_features], float64."""
        if not self.capture_mean_cov:
            raise ValueError("these statistics were made without capture_mean_cov")
        mean = self.raw_mean / self.num_items
        return mean, self.raw_cov / self.num_items - np.outer(mean, mean)

    def save(self, pkl_file: str) -> None:
        """Writes the statistics; NumPy arrays and JSON, no pickled objects."""
        state = {name: value for name, value in vars(self).items() if value is not None}
        if self.capture_all:
            state["all_features"] = self.get_all()
        write_atomically(pkl_file, lambda file: np.savez(file, **state))

    @staticmethod
    def load(pkl_file: str) -> FeatureStats:
        """What `save` wrote. OSError or ValueError if it is something else."""
        stats = FeatureStats()
        with np.load(pkl_file, allow_pickle=False) as state:
            for name in state.files:
                value = state[name]
                vars(stats)[name] = value.item() if value.ndim == 0 else value
        return stats


def compute_feature_stats_for_dataset(
    opts: MetricOptions,
    detector_url: str,
    detector_kwargs: dict[str, Any],
    rel_lo: float = 0,
    rel_hi: float = 1,
    batch_size: int = 64,
    data_loader_kwargs: dict[str, Any] | None = None,
    max_items: int | None = None,
    **stats_kwargs: Any,
) -> FeatureStats:
    """`FeatureStats` of the data set's images, from the cache where they were computed before (opts.cache).

    detector_kwargs: arguments of the detector's calls. max_items: only that many images, in order. stats_kwargs: of
    `FeatureStats`. rel_lo, rel_hi: part of opts.progress.
    """
    dataset = open_dataset(opts)
    num_items = min(len(dataset), max_items or len(dataset))
    opts.protocol |= dict(num_real=num_items, **data_protocol(opts, dataset))
    cached = _cache_path(opts, dataset, detector_url, detector_kwargs, num_items, stats_kwargs) if opts.cache else None
    if cached is not None and _on_all_ranks(os.path.isfile(cached), opts):
        return FeatureStats.load(cached)

    stats = FeatureStats(max_items=num_items, **stats_kwargs)
    add_features = _feature_adder("dataset features", stats, opts, detector_url, detector_kwargs, rel_lo, rel_hi)
    mine = [(i * opts.num_gpus + opts.rank) % num_items for i in range(-(-num_items // opts.num_gpus))]
    own = dict(generator=torch.Generator())  # the generator's latents must not depend on whether there is a cache
    loader = torch.utils.data.DataLoader(
        dataset, sampler=mine, batch_size=batch_size, **(own | (data_loader_kwargs or {}))
    )
    for images, _labels in loader:
        add_features(images)
    if cached is not None and opts.rank == 0:
        os.makedirs(os.path.dirname(cached), exist_ok=True)
        stats.save(cached)
    return stats


def compute_feature_stats_for_generator(
    opts: MetricOptions,
    detector_url: str,
    detector_kwargs: dict[str, Any],
    rel_lo: float = 0,
    rel_hi: float = 1,
    batch_size: int = 64,
    batch_gen: int | None = None,
    jit: bool = False,
    **stats_kwargs: Any,
) -> FeatureStats:
    """`FeatureStats` of images of opts.G, with labels drawn from the data set. ValueError without max_items.

    batch_size: images a call of the detector, batch_gen: of the generator. jit: traces the generator. The rest as
    above.
    """
    if stats_kwargs.get("max_items") is None:
        raise ValueError("compute_feature_stats_for_generator needs max_items: a generator has no end")
    batch_gen = batch_gen or min(batch_size, 8)
    if batch_size % batch_gen:
        raise ValueError(f"batch_size {batch_size} must be a multiple of batch_gen {batch_gen}")
    opts.protocol |= dict(num_gen=stats_kwargs["max_items"], resolution=opts.G.img_resolution)
    G = copy.deepcopy(opts.G).eval().requires_grad_(False).to(opts.device)
    draw_labels = label_sampler(opts, G)

    def images_of(z, c):
        return (G(z=z, c=c, **opts.G_kwargs) * 127.5 + 128).clamp(0, 255).to(torch.uint8)

    if jit:
        example = [torch.zeros([batch_gen, dim], device=opts.device) for dim in (G.z_dim, G.c_dim)]
        images_of = torch.jit.trace(images_of, example, check_trace=False)
    stats = FeatureStats(**stats_kwargs)
    add_features = _feature_adder("generator features", stats, opts, detector_url, detector_kwargs, rel_lo, rel_hi)
    with cached_weights.enabled():
        while not stats.is_full():
            latents = (torch.randn([batch_gen, G.z_dim], device=opts.device) for _ in range(batch_size // batch_gen))
            add_features(torch.cat([images_of(z, draw_labels(batch_gen)) for z in latents]))
    return stats


def features_of_both(
    opts: MetricOptions, detector: str, max_real: int | None, num_gen: int, **stats_kwargs: Any
) -> tuple[FeatureStats, FeatureStats]:
    """`FeatureStats` of the data set's images (max_real at most, None: all) and of num_gen generated ones."""
    shared = dict(opts=opts, detector_url=detector, detector_kwargs=dict(return_features=True), **stats_kwargs)
    real = compute_feature_stats_for_dataset(rel_lo=0, rel_hi=0, max_items=max_real, **shared)
    return real, compute_feature_stats_for_generator(rel_lo=0, rel_hi=1, max_items=num_gen, **shared)


def open_dataset(opts: MetricOptions) -> torch.utils.data.Dataset:
    """The data set that opts.dataset_kwargs describes. ValueError if they are empty."""
    name = opts.dataset_kwargs.get("class_name")
    if not name:
        raise ValueError("real images are needed, and the network does not say which; give --data=PATH")
    try:  # it may come from somebody's pickle, which must not have anything imported
        files.check_class_name(name, ["training.dataset", *sys.modules], torch.utils.data.Dataset)
    except ValueError as error:
        raise ValueError(f"the network's own data set cannot be opened ({error}); give --data=PATH") from error
    return dnnlib.util.construct_class_by_name(**opts.dataset_kwargs)


def label_sampler(opts: MetricOptions, G: torch.nn.Module) -> Callable[[int], torch.Tensor]:
    """A function count → labels [count, c_dim] as often as the data set has them; no data set for unconditional G."""
    if G.c_dim == 0:
        return lambda count: torch.zeros([count, 0], device=opts.device)
    dataset = open_dataset(opts)
    opts.protocol |= data_protocol(opts, dataset)

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
        stats.append_torch(detector(images, **detector_kwargs).to(opts.device), opts.num_gpus, opts.rank)
        progress.update(stats.num_items)

    return add


def data_protocol(opts: MetricOptions, dataset: torch.utils.data.Dataset) -> dict[str, Any]:
    """What a result's protocol says of the data set: name, digest of its files, resolution, mirrored copies."""
    path = getattr(dataset, "path", None)
    key = path and (path, os.stat(path).st_mtime_ns)
    if key is not None and key not in _digests:
        _digests[key] = dataset.digest()
    return dict(
        data=dataset.name,
        data_digest=_digests.get(key),
        resolution=dataset.resolution,
        xflip=bool(opts.dataset_kwargs.get("xflip", False)),
    )


def _cache_path(opts, dataset, detector_url, detector_kwargs, num_items, stats_kwargs):
    version = detectors.file_digest(detector_url)
    what = dict(dataset=opts.dataset_kwargs, data=opts.protocol["data_digest"], num_items=num_items, stats=stats_kwargs)
    what |= dict(detector=detector_url, version=version, detector_kwargs=detector_kwargs)
    digest = hashlib.md5(json.dumps(what, sort_keys=True).encode()).hexdigest()
    name = f"{dataset.name}-{get_feature_detector_name(detector_url)}-{digest}.npz"
    return dnnlib.util.make_cache_dir_path("gan-metrics", name)


def _on_all_ranks(value, opts):
    """What the first process says, so that all take the same way."""
    if opts.num_gpus == 1:
        return value
    value = torch.tensor(float(value), device=opts.device)
    processes.go_on()
    torch.distributed.broadcast(value, src=0)
    return bool(value.item())
