"""`torch.cdist` has no half precision on the CPU, which precision and recall use; there it computes in float32."""

import torch

TARGET = "metrics.precision_recall"


def needed(_module):
    try:
        torch.cdist(torch.zeros(1, 2, 2, dtype=torch.float16), torch.zeros(1, 2, 2, dtype=torch.float16))
    except RuntimeError:
        return True
    return False


def apply(precision_recall):
    precision_recall.torch = Torch()


class Torch:
    """The module torch with a cdist for half precision"""

    def __getattr__(self, name):
        return getattr(torch, name)

    def cdist(self, a, b, **kwargs):
        if a.dtype != torch.float16 or a.device.type != "cpu":
            return torch.cdist(a, b, **kwargs)
        return torch.cdist(a.float(), b.float(), **kwargs).to(a.dtype)
