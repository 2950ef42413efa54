"""What metrics share: their options, feature detectors, and the report of progress."""

import os
import time

import torch

import dnnlib

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
            with dnnlib.util.open_url(url, verbose=verbose and rank == 0, num_attempts=num_attempts) as file:
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
