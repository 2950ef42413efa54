"""CUDA graphs of training: a phase's part of a batch is launched as one thing instead of as thousands of kernels.

A GPU computes a few images faster than Python can ask for the next kernel. Recorded once, all that a phase does with a
part of a batch is repeated by one call, on the same memory: parameters, moving averages and augmentation strength are
written in place by everybody, images and latents are copied in.
"""

import contextlib
import os
import warnings
from collections import Counter
from collections.abc import Callable

import torch

from runs import processes
from torch_utils import misc, training_stats
from training.loss import Loss

_ORDINARY_RUNS = 2  # of every phase and shape before it is recorded: cuDNN chooses, Triton compiles, constants are made


class PhaseRunner:
    """Gradients of phases, by CUDA graphs if `recording`, for phases that the loss says are `recordable`.

    A phase that waits for the device, too little memory, or whatever else stands against it, ends that: `on_failure`
    gets the reason, and all goes on.
    """

    def __init__(self, loss: Loss, recording: bool, on_failure: Callable[[str], None]) -> None:
        self.loss, self.recording, self.on_failure = loss, recording, on_failure
        self._runs, self._recordings, self._pool = Counter(), {}, None

    def gradients(
        self, phase: str, module: torch.nn.Module, gain: float, parts: list[dict[str, torch.Tensor]]
    ) -> tuple[list[torch.nn.Parameter], torch.Tensor]:
        """The parameters of `module` that the phase trains, and their gradients summed over the parts, as one vector.

        parts: the tensors that `Loss.accumulate_gradients` takes, of all parts of the batch. No `grad` may be set.
        """
        if not (self.recording and self._may_record(phase)):
            return self._run(phase, module, gain, parts)
        keys = [(phase, *(tensor.shape for tensor in part.values())) for part in parts]
        runs = min(self._runs[key] for key in keys)
        self._runs.update(set(keys))
        if runs < _ORDINARY_RUNS:
            with self._watched(phase) if runs == _ORDINARY_RUNS - 1 else contextlib.nullcontext():
                return self._run(phase, module, gain, parts)
        for key, part in zip(keys, parts):
            self._record(key, module, gain, part)
        if not self.recording:
            return self._run(phase, module, gain, parts)
        return self._replay(phase, [self._recordings[key] for key in keys], parts)

    def _may_record(self, phase):
        alone = processes.count() == 1 or phase not in ("Greg", "Gboth")  # which average path lengths over processes
        return alone and self.loss.recordable(phase)

    def _run(self, phase, module, gain, parts):
        for i, part in enumerate(parts):
            self.loss.accumulate_gradients(phase=phase, sync=i == len(parts) - 1, gain=gain, **part)
            self.loss.finished(phase, part)
        return _gathered(module)

    @contextlib.contextmanager
    def _watched(self, phase):
        """Gives up recording if something inside waits for the device, which cannot be recorded."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        for warning in caught:
            if "synchronizing CUDA operation" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            elif self.recording:
                place = f"{os.path.basename(warning.filename)}, line {warning.lineno}"
                self._give_up(f"{phase} waits for the GPU ({place})")

    def _record(self, key, module, gain, part):
        """Makes the recording of this phase and shape where it is missing, or gives up."""
        if key in self._recordings or not self.recording:
            return
        accumulate = lambda **inputs: self.loss.accumulate_gradients(phase=key[0], sync=True, gain=gain, **inputs)
        try:
            self._recordings[key] = _Recording(accumulate, module, part, self._pool)
            self._pool = self._recordings[key].graph.pool()
        except torch.cuda.OutOfMemoryError:
            self._give_up(f"{key[0]} finds no memory for one; a smaller --batch-gpu would help")
        except RuntimeError as error:
            _renew_generator(part["gen_z"].device)
            self._give_up(f"{key[0]} cannot be recorded ({str(error).splitlines()[0]})")
        module.zero_grad(set_to_none=True)

    def _give_up(self, reason):
        self.recording, self._pool = False, None
        self._recordings.clear()
        torch.cuda.empty_cache()
        self.on_failure(f"Training goes on without CUDA graphs, and slower: {reason}.")

    def _replay(self, phase, recordings, parts):
        total = None
        for recording, part in zip(recordings, parts):
            gradients = recording.replay(part)
            self.loss.finished(phase, part)
            # The next recording may write to the same memory.
            total = gradients if len(parts) == 1 else gradients.clone() if total is None else total.add_(gradients)
        return recordings[0].trained, total


class _Recording:
    """What a phase does with a part of a batch, as a CUDA graph. Making one computes nothing."""

    def __init__(self, accumulate, module, part, pool):
        self.inputs = {name: tensor.clone() for name, tensor in part.items()}
        self.graph, self._constants = torch.cuda.CUDAGraph(), misc.known_constants()  # which it reads where they are
        # thread_local: the loader's threads may go on meanwhile
        record = torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local")
        with training_stats.held_back() as self.sums, record:
            accumulate(**self.inputs)
            self.trained, self.gradients = _gathered(module)

    def replay(self, part):
        for name, tensor in part.items():
            self.inputs[name].copy_(tensor)
        self.graph.replay()
        for name, sums in self.sums:
            training_stats.add(name, sums)
        return self.gradients


def _renew_generator(device):
    """After a recording that broke off, PyTorch's random numbers still belong to it: puts others in their place."""
    default = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    if hasattr(default, "graphsafe_set_state"):  # from PyTorch 2.5 on
        fresh = torch.Generator(device)
        fresh.set_state(default.get_state())
        default.graphsafe_set_state(fresh)


def _gathered(module):
    trained = [p for p in module.parameters() if p.grad is not None]
    # As they lie in memory: the optimizer wants gradients in the layout of their parameters.
    vectors = [p.grad.as_strided([p.numel()], [1]) for p in trained]
    return trained, torch.cat(vectors) if vectors else torch.zeros([0])


def set_gradients(parameters: list[torch.nn.Parameter], vector: torch.Tensor) -> None:
    """Makes parts of what `PhaseRunner.gradients` returned the `grad` of its parameters, without a copy."""
    for p, part in zip(parameters, vector.split([p.numel() for p in parameters])):
        p.grad = part.as_strided(p.shape, p.stride())
