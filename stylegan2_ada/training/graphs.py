"""CUDA graphs of training: a phase's part of a batch is launched as one thing instead of as thousands of kernels.

A GPU computes a few images faster than Python can ask for the next kernel. Recorded once, all that a phase does with a
part of a batch is repeated by one call, on the same memory: parameters, moving averages and augmentation strength are
written in place by everybody, images and latents are copied in.
"""

import contextlib
import os
import random
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

from runs import processes
from torch_utils import misc, training_stats
from training.loss import Loss
from training.state import preserved_randomness

_ORDINARY_RUNS = 2  # of every phase and shape before it is recorded: cuDNN chooses, Triton compiles, constants are made

_ROUNDING = 0.1  # share of gradients by which two runs may differ, in half precision, where sums have no fixed order
_NO_ROOM = "there is no memory for them; a smaller --batch-gpu would help"


def is_recordable(loss: Loss) -> bool:
    """Whether the loss's own class says so, since it cannot speak for its subclasses."""
    return vars(type(loss)).get("recordable", False)


class PhaseRunner:
    """Gradients of phases, by CUDA graphs if `recording` and the loss is recordable.

    A phase that waits for the device, too little memory, a recording that does something else than what it recorded,
    or whatever else stands against it, ends that: `on_failure` gets the reason, and all goes on.
    """

    def __init__(self, loss: Loss, recording: bool, on_failure: Callable[[str], None]) -> None:
        self.loss, self.recording, self.on_failure = loss, recording and is_recordable(loss), on_failure
        self._runs, self._recordings, self._idle = Counter(), {}, set()
        self._pool = torch.cuda.graph_pool_handle() if self.recording else None  # memory that all recordings share

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
            return self._run_in_memory_left(phase, module, gain, parts, watched=runs == _ORDINARY_RUNS - 1)
        for key, part in zip(keys, parts):
            self._record(key, module, gain, part)
        if not self.recording:
            return self._run(phase, module, gain, parts)
        return self._replay(phase, [self._recordings[key] for key in keys], parts)

    def _may_record(self, phase):
        alone = processes.count() == 1 or phase not in ("Greg", "Gboth")  # which average path lengths over processes
        return alone and phase not in self._idle

    def _run(self, phase, module, gain, parts, watched=False):
        for i, part in enumerate(parts):
            with self._watch(phase) if watched else contextlib.nullcontext():
                self.loss.accumulate_gradients(phase=phase, sync=i == len(parts) - 1, gain=gain, **part)
            self.loss.finished(phase, part)
        trained, vector = _gathered(module)
        if not trained:
            self._idle.add(phase)
        return trained, vector

    def _run_in_memory_left(self, phase, module, gain, parts, watched):
        """An ordinary run beside recordings of other phases, which give way where there is no room for both."""
        try:
            return self._run(phase, module, gain, parts, watched)
        except torch.cuda.OutOfMemoryError:
            if not self._recordings:
                raise
        self._give_up(_NO_ROOM)
        module.zero_grad(set_to_none=True)
        return self._run(phase, module, gain, parts)

    @contextlib.contextmanager
    def _watch(self, phase):
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
            if "synchronizing CUDA operation" in str(warning.message):
                place = f"{os.path.basename(warning.filename)}, line {warning.lineno}"
                self._give_up(f"{phase} waits for the GPU ({place})")
            elif "debug mode is a prototype" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    def _record(self, key, module, gain, part):
        """Makes the recording of this phase and shape where it is missing and tries it out, or gives up."""
        if key in self._recordings or not self.recording:
            return
        accumulate = lambda **inputs: self.loss.accumulate_gradients(phase=key[0], sync=True, gain=gain, **inputs)
        try:
            wanted = self._wanted(accumulate, module, part)  # first: then there is memory for both, one after the other
            with torch.cuda.stream(torch.cuda.current_stream()):  # comes back to it in any case
                self._recordings[key] = _Recording(accumulate, module, part, self._pool)
            repeats = self._repeats(self._recordings[key], part, wanted)
        except torch.cuda.OutOfMemoryError:
            self._give_up(_NO_ROOM)
        except Exception as error:  # of whatever kind: ordinary runs have shown that nothing else is wrong
            _end_recording(part["gen_z"].device, self._pool)
            cause = str(error.__context__ or error).partition("\n")[0]
            self._give_up(f"{key[0]} cannot be recorded ({cause})")
        else:
            if not repeats:
                self._give_up(f"{key[0]}, recorded, gives other gradients")
        module.zero_grad(set_to_none=True)

    def _wanted(self, accumulate, module, part):
        """The gradients of an ordinary run, which leaves no trace"""
        module.zero_grad(set_to_none=True)
        with _undone(self.loss):
            random.random(), np.random.rand(), torch.rand([])  # what Python draws will be other numbers when recorded
            accumulate(**part)
            wanted = _gathered(module)[1]
        module.zero_grad(set_to_none=True)
        return wanted

    def _repeats(self, recording, part, wanted):
        """Whether it gives those gradients, with the device's same random numbers; it leaves no trace either."""
        with _undone(self.loss):
            got = recording.launch(part)
        known = wanted.isfinite()  # half precision may overflow
        size = lambda vector: torch.where(known, vector, 0).norm()
        return bool(size(got - wanted) <= _ROUNDING * size(wanted))

    def _give_up(self, reason):
        if self.recording:
            self.recording = False
            self._recordings.clear()
            with contextlib.suppress(RuntimeError):  # PyTorch may still take a recording that broke off for one
                torch.cuda.empty_cache()
            self.on_failure(f"Training goes on without CUDA graphs, and slower: {reason}.")

    def _replay(self, phase, recordings, parts):
        total = None
        for recording, part in zip(recordings, parts):
            gradients = recording.launch(part)
            for name, sums in recording.sums:
                training_stats.add(name, sums)
            self.loss.finished(phase, part)
            # Launched once more, a recording writes to the same memory.
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

    def launch(self, part):
        """Returns the gradients; they and `sums` lie in memory that the next launch overwrites."""
        for name, tensor in part.items():
            self.inputs[name].copy_(tensor)
        self.graph.replay()
        return self.gradients


@contextlib.contextmanager
def _undone(loss):
    """Random numbers, statistics, the loss's tensors and its modules' buffers stay as they are, whatever is inside."""
    held = vars(loss).values()
    tensors = [each for each in held if isinstance(each, torch.Tensor)]
    tensors += [buffer for each in held if isinstance(each, torch.nn.Module) for buffer in each.buffers()]
    before = [tensor.clone() for tensor in tensors]
    try:
        with preserved_randomness(), training_stats.held_back():
            yield
    finally:
        for tensor, old in zip(tensors, before):
            tensor.copy_(old)


def _end_recording(device, pool):
    """What PyTorch, up to 2.12 at least, leaves undone after a recording that broke off: memory and random numbers."""
    index = torch.cuda.current_device() if device.index is None else device.index
    for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):
        with contextlib.suppress(AttributeError, RuntimeError):  # of other versions; done already
            getattr(torch._C, name)(index, pool)
    default = torch.cuda.default_generators[index]
    with contextlib.suppress(AttributeError):  # not in the oldest versions
        fresh = torch.Generator(device)
        fresh.set_state(default.get_state())
        default.graphsafe_set_state(fresh)


def _gathered(module):
    """The parameters that have a gradient, and those as one vector, where they lie as the parameters do in memory."""
    trained = [p for p in module.parameters() if p.grad is not None]
    grads = [p.grad if p.grad.stride() == p.stride() else torch.empty_like(p).copy_(p.grad) for p in trained]
    vectors = [grad.as_strided([grad.numel()], [1]) for grad in grads]
    return trained, torch.cat(vectors) if vectors else torch.zeros([0])


def set_gradients(parameters: list[torch.nn.Parameter], vector: torch.Tensor) -> None:
    """Makes parts of what `PhaseRunner.gradients` returned the parameters' `grad`, in the layout optimizers want."""
    for p, part in zip(parameters, vector.split([p.numel() for p in parameters])):
        p.grad = part.as_strided(p.shape, p.stride())
