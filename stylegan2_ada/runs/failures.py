"""Tells failures of the machine, for which a user needs a sentence, from faults in the code, which need a traceback."""

import torch

MACHINE_ERRORS = (OSError, MemoryError, RuntimeError)  # the kinds that `machine_failure` has to be asked about
METRIC_ERRORS = (ValueError, *MACHINE_ERRORS)  # … and `metric_failure`


def machine_failure(error: BaseException) -> str | None:
    """What went wrong, in words, if the disk, the network or the memory is to blame; else None."""
    if isinstance(error, OSError):
        return str(error)
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error):
        return "out of memory"
    return None


def metric_failure(error: BaseException) -> str | None:
    """Why a metric could not be computed: what it refuses, as a ValueError, or the machine's failure; else None."""
    return str(error) if isinstance(error, ValueError) else machine_failure(error)
