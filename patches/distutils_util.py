"""`dnnlib.util` imports `distutils.util`, which Python 3.12 removed. A module with its one function takes its place."""

import importlib.util
import sys
import types

TARGET = None


def needed(_module):
    return importlib.util.find_spec("distutils") is None


def apply(_module):
    package, util = types.ModuleType("distutils"), types.ModuleType("distutils.util")
    util.strtobool = strtobool
    package.util = util
    sys.modules |= {"distutils": package, "distutils.util": util}


def strtobool(word):
    """1 for yes, y, true, t, on, 1; 0 for no, n, false, f, off, 0; ValueError for other words."""
    answers = dict.fromkeys(("y", "yes", "t", "true", "on", "1"), 1)
    answers |= dict.fromkeys(("n", "no", "f", "false", "off", "0"), 0)
    if word.lower() not in answers:
        raise ValueError(f"{word!r} is neither yes nor no")
    return answers[word.lower()]
