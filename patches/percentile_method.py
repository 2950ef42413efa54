"""`numpy.percentile(interpolation=…)`, which path lengths use, is `method=` since NumPy 1.22, which 2.4 insists on."""

import inspect

import numpy

TARGET = "metrics.perceptual_path_length"


def needed(_module):
    return "interpolation" not in inspect.signature(numpy.percentile).parameters


def apply(perceptual_path_length):
    perceptual_path_length.np = Numpy()


class Numpy:
    """The module numpy with the older name of that argument"""

    def __getattr__(self, name):
        return getattr(numpy, name)

    def percentile(self, a, q, *args, interpolation="linear", **kwargs):
        return numpy.percentile(a, q, *args, method=interpolation, **kwargs)
