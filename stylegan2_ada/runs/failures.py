"""Tells failures of the machine, for which a user needs a sentence, from faults in the code, which need a traceback."""

import re

import torch

MACHINE_ERRORS = (OSError, MemoryError, RuntimeError)  # the kinds that `machine_failure` has to be asked about
METRIC_ERRORS = (ValueError, *MACHINE_ERRORS)  # … and `metric_failure`
LOST = "another process of the run has ended"


class Diverged(RuntimeError):
    """Training has come to numbers that are not finite; the message says where, and what to change."""


def machine_failure(error: BaseException) -> str | None:
    """What went wrong, in words, if disk, network, memory, another process or the numbers are to blame; else None."""
    if isinstance(error, Diverged):
        return str(error)
    if isinstance(error, OSError):
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return lines[0] if len(lines) == 1 else lines[-1].partition(": ")[2]  # a loader process adds its traceback
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error):
        return "out of memory"
    if "DataLoader worker" in str(error):
        return f"{str(error).splitlines()[0]}; with fewer --workers less memory is needed"
    if isinstance(error, torch.distributed.DistError) or re.search(
        "gloo|NCCL|[Cc]onnection (closed|reset)", str(error)
    ):
        return LOST
    return None


def metric_failure(error: BaseException) -> str | None:
    """Why a metric could not be computed: what it refuses, as a ValueError, or the machine's failure; else None."""
    return str(error) if isinstance(error, ValueError) else machine_failure(error)
