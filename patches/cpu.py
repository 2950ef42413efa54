"""Code that names CUDA runs on the CPU: a stand-in for the name `torch` in one module.

Everything is torch's own but for the device, CUDA events, streams and memory figures. The reference has "cuda" written
into its training loop, metrics and scripts; this has been so since its first version.
"""

import time

import torch


def needed(_module):
    return not torch.cuda.is_available()


def apply(module):
    module.torch = Torch()


class Event:
    """A CUDA event by the wall clock"""

    def __init__(self, **_options):
        self.seconds = 0.0

    def record(self, _stream=None):
        self.seconds = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        """Milliseconds from this event to `end`"""
        return (end.seconds - self.seconds) * 1000


class Cuda:
    """torch.cuda for one process without a GPU"""

    Event = Event

    def __getattr__(self, name):
        return getattr(torch.cuda, name)

    def current_stream(self, _device=None):
        return None

    def max_memory_allocated(self, _device=None):
        return 0

    def reset_peak_memory_stats(self, _device=None):
        pass


class Torch:
    """The module torch, on the CPU"""

    cuda = Cuda()

    def __getattr__(self, name):
        return getattr(torch, name)

    def device(self, name, *index):
        return torch.device("cpu" if str(name).startswith("cuda") else name, *(index if name == "cpu" else ()))
