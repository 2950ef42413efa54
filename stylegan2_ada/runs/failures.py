"""Tells failures of the machine, for which a user needs a sentence, from faults in the code, which need a traceback."""

import torch

MACHINE_ERRORS = (OSError, MemoryError, RuntimeError)  # the kinds that `machine_failure` has to be asked about


def machine_failure(error: BaseException) -> str | None:
    """What went wrong, in words, if the disk, the network or the memory is to blame; else None."""
    if isinstance(error, OSError):
        return str(error)
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error):
        return "out of memory"
    return None
