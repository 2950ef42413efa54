"""`scipy.linalg.sqrtm(disp=False)` returned a pair; SciPy 1.18 has no `disp`. FID gets the pair that it expects."""

import warnings

import scipy
import scipy.linalg

TARGET = "metrics.frechet_inception_distance"


def needed(_module):
    return True  # SciPy 1.17 warns, 1.18 fails


def apply(frechet_inception_distance):
    frechet_inception_distance.scipy = Scipy()


class Linalg:
    def __getattr__(self, name):
        return getattr(scipy.linalg, name)

    def sqrtm(self, a, disp=True):
        """The root; with disp=False (root, estimate of its error), where the estimate is not looked at."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root = scipy.linalg.sqrtm(a)
        return root if disp else (root, 0.0)


class Scipy:
    """The module scipy with that linalg"""

    linalg = Linalg()

    def __getattr__(self, name):
        return getattr(scipy, name)
