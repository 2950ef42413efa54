"""`metrics.metric_utils.MetricOptions` takes CUDA where no device is given. Without a GPU it gets `patches.cpu`."""

from .cpu import apply, needed  # noqa: F401

TARGET = "metrics.metric_utils"
