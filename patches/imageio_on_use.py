"""`projector` imports imageio even where no video is asked for. Without the package, only using it is an error."""

import importlib.util
import sys
import types

TARGET = None


def needed(_module):
    return importlib.util.find_spec("imageio") is None


def apply(_module):
    stand_in = types.ModuleType("imageio")
    stand_in.get_writer = get_writer
    sys.modules["imageio"] = stand_in


def get_writer(*_args, **_kwargs):
    raise ImportError("a video needs imageio: pip install imageio imageio-ffmpeg, or --save-video=false")
