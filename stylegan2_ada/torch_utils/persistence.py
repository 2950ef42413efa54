"""Classes whose pickles carry their own source, so that they open where the class has changed or is missing.

An object of a class decorated with `persistent_class` pickles as a call of `_reconstruct_persistent_obj(meta)`; the
format is the one of host_api ("version 6"). Unlike the reference we never run the source that a pickle carries: the
object is rebuilt as the class of the same name in one of `known_modules`.
"""

import copy
import functools
import importlib
import inspect
import pickle
import sys
from pathlib import Path

import torch

import dnnlib

_VERSION = 6
_import_hooks = []

# Where classes met in a pickle are looked up by name, imported on demand. A plugin adds its module here.
known_modules = ["training.networks", "training.augment", "segan_ext.networks"]
_BESIDE_THE_HOST = str(Path(__file__).resolve().parents[2])  # plugins are found there too


def persistent_class(orig_class):
    """Class decorator: objects remember their constructor's arguments and pickle together with their source.

    The attributes `init_args` and `init_kwargs` return copies of those arguments.
    """
    if is_persistent(orig_class):
        raise ValueError(f"{orig_class.__name__} is persistent already")
    module = sys.modules[orig_class.__module__]
    try:
        source = inspect.getsource(module)
    except OSError as error:
        raise ValueError(f"{orig_class.__name__} cannot be made persistent: its module has no source file") from error

    class Persistent(orig_class):
        _embedded_source = source
        _embedded_name = orig_class.__name__

        @functools.wraps(orig_class.__init__)
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._init_args = copy.deepcopy(args)
            self._init_kwargs = copy.deepcopy(kwargs)

        @property
        def init_args(self):
            return copy.deepcopy(self._init_args)

        @property
        def init_kwargs(self):
            return dnnlib.EasyDict(copy.deepcopy(self._init_kwargs))

        def __deepcopy__(self, memo):
            copied = memo[id(self)] = type(self).__new__(type(self))
            copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
            return copied

        def __reduce__(self):
            reduced = list(super().__reduce__())
            if len(reduced) < 3:
                reduced += [None] * (3 - len(reduced))
            if reduced[0] is not _reconstruct_persistent_obj:
                meta = dict(type="class", version=_VERSION, module_src=self._embedded_source)
                meta |= dict(class_name=self._embedded_name, state=reduced[2])
                reduced[:3] = [_reconstruct_persistent_obj, (meta,), None]
            return tuple(reduced)

    Persistent.__name__ = Persistent.__qualname__ = orig_class.__name__
    Persistent.__module__ = orig_class.__module__
    Persistent.__doc__ = orig_class.__doc__
    if orig_class.__module__ not in known_modules:  # a module of the user's own, imported already
        known_modules.append(orig_class.__module__)
    return Persistent


def is_persistent(obj):
    """True for persistent classes and for objects of them."""
    cls = obj if isinstance(obj, type) else type(obj)
    return "_embedded_name" in vars(cls)  # a subclass has to be decorated too


def import_hook(hook):
    """Registers `hook(meta)`, which may return a changed `meta` before an object is rebuilt from it."""
    _import_hooks.append(hook)


def _reconstruct_persistent_obj(meta):
    meta = dnnlib.EasyDict(meta)
    for hook in _import_hooks:
        meta = hook(meta) or meta
    if meta.get("type") != "class" or meta.get("version") != _VERSION:
        found = f"type {meta.get('type')!r}, version {meta.get('version')!r}"
        raise pickle.UnpicklingError(f"this persistent object has {found}; only classes of version {_VERSION} open")
    obj = _known_class(meta.class_name).__new__(_known_class(meta.class_name))
    if isinstance(obj, torch.nn.Module):
        torch.nn.Module.__init__(obj)  # fields that the pickle's torch did not have yet
    setstate = getattr(obj, "__setstate__", None)
    if setstate is not None:
        setstate(meta.state)
    else:
        obj.__dict__.update(meta.state or {})
    return obj


def _known_class(name):
    if _BESIDE_THE_HOST not in sys.path:
        sys.path.append(_BESIDE_THE_HOST)
    for module_name in known_modules:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != module_name.split(".")[0]:
                raise
            continue  # a plugin that is not on the path
        cls = vars(module).get(name)
        if isinstance(cls, type) and is_persistent(cls):
            return cls
    raise pickle.UnpicklingError(f"the pickle holds a {name!r}, a class that is not among those in {known_modules}")
