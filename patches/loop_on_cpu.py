"""`training.training_loop` wants CUDA: device, events, streams, memory figures. Without a GPU it gets `patches.cpu`."""

from .cpu import apply, needed  # noqa: F401

TARGET = "training.training_loop"
