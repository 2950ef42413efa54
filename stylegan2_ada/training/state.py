"""Everything a training run has to remember, in one object that is saved whole.

A run that is continued from a saved state goes on exactly where the saved one was: same weights, same random numbers,
same images in the same order.
"""

import contextlib
import dataclasses
import os
import random
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from runs import processes
from training import files

_FILE_NAME = re.compile(r"training-state-(\d{6,})\.pt")


def state_path(run_dir: str, kimg: int) -> str:
    """Where a run keeps the state that it saves after `kimg` thousand images."""
    return os.path.join(run_dir, f"training-state-{kimg:06d}.pt")


def saved_states(run_dir: str) -> list[str]:
    """Paths of the states in a run directory, oldest first."""
    found = [(int(m[1]), name) for name in os.listdir(run_dir) if (m := _FILE_NAME.fullmatch(name))]
    return [os.path.join(run_dir, name) for _, name in sorted(found)]


@dataclasses.dataclass
class TrainingState:
    """The moving parts of a run.

    modules: name → network or augmentation (weights and buffers, EMA and ADA's p among them). optimizers: name → Adam.
    loss: its tensors (the path length mean) are kept. collectors: name → `training_stats.Collector`.
    """

    modules: dict
    optimizers: dict
    loss: object
    collectors: dict
    cur_nimg: int = 0  # images shown to D so far; also the position in the stream of real images
    cur_tick: int = 0
    tick_start_nimg: int = 0
    batch_idx: int = 0
    seconds: float = 0  # spent so far, over all parts of the run
    log_bytes: int = 0  # length of log.txt, and of stats.jsonl, when the state was taken
    stats_bytes: int = 0

    _COUNTERS = ("cur_nimg", "cur_tick", "tick_start_nimg", "batch_idx", "seconds", "log_bytes", "stats_bytes")

    def capture(self) -> dict[str, Any]:
        """The state as tensors and plain values, to be saved with `torch.save`. All processes must call it together."""
        return dict(
            format=1,
            counters={name: getattr(self, name) for name in self._COUNTERS},
            modules={name: module.state_dict() for name, module in self.modules.items()},
            optimizers={name: opt.state_dict() for name, opt in self.optimizers.items()},
            loss=_tensors(self.loss),
            collectors={name: collector.state_dict() for name, collector in self.collectors.items()},
            random=processes.gathered(random_state()),
        )

    def load(self, saved: dict[str, Any]) -> list[dict[str, Any]]:
        """Takes everything but the random numbers from what `read` gives; returns those, of each process that saved."""
        for name, module in self.modules.items():
            module.load_state_dict(saved["modules"][name])
        for name, opt in self.optimizers.items():
            opt.load_state_dict(saved["optimizers"][name])
        for name, tensor in saved["loss"].items():
            getattr(self.loss, name).copy_(tensor)
        for name, collector in self.collectors.items():
            collector.load_state_dict(saved["collectors"][name])
        for name, value in saved["counters"].items():
            setattr(self, name, value)
        return saved["random"] if isinstance(saved["random"], list) else [saved["random"]]  # older ones: of one process


def read(path: str) -> dict[str, Any]:
    """The saved result of `TrainingState.capture`. ValueError for a file that is not one."""
    try:
        files.check_torch_zip(path)
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is damaged; delete it to continue from an older one ({error})") from error
    if not isinstance(saved, dict) or saved.get("format") != 1:
        raise ValueError(f"{path} is not a training state that this version can read")
    counters = saved.get("counters")
    names = TrainingState._COUNTERS
    if not isinstance(counters, dict) or not all(isinstance(counters.get(name), (int, float)) for name in names):
        raise ValueError(f"{path} is damaged; delete it to continue from an older one (it lacks counters)")
    return saved


def _tensors(obj):
    return {name: value for name, value in vars(obj).items() if isinstance(value, torch.Tensor)}


def random_state() -> dict[str, Any]:
    """The state of all random number generators, on CUDA that of the device in use, as tensors and plain values."""
    _, keys, pos, has_gauss, cached = np.random.get_state()
    version, words, gauss = random.getstate()
    return dict(
        torch=torch.get_rng_state(),
        cuda=[torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],  # of the device in use
        numpy=[torch.from_numpy(keys.astype(np.int64)), pos, has_gauss, cached],
        python=[version, list(words), gauss],
    )


def set_random_state(state: dict[str, Any]) -> None:
    """Undoes everything drawn since `random_state()`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_initialized():  # older files hold the states of all GPUs of the machine
        torch.cuda.set_rng_state(state["cuda"][min(torch.cuda.current_device(), len(state["cuda"]) - 1)])
    keys, pos, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), pos, has_gauss, cached))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


@contextlib.contextmanager
def preserved_randomness() -> Iterator[None]:
    """What is drawn inside leaves no trace outside."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
