"""Classes whose pickles carry their own source, so that they open where the class has changed or is missing.

An object of a class decorated with `persistent_class` pickles as a call of `_reconstruct_persistent_obj(meta)`; the
format is the one of host_api ("version 6"). Unlike the reference we do not run the source that a pickle carries: the
object is rebuilt as the class of the same name in one of `known_modules`. Only `TrustingUnpickler` runs it.
"""

import copy
import functools
import hashlib
import importlib
import inspect
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import dnnlib

_VERSION = 6
TRUST = "--trust-pickle runs the code that the pickle carries, if you trust its maker"
_import_hooks = []

# Where classes met in a pickle are looked up by name, imported on demand. A plugin adds its module here.
known_modules = ["training.networks", "training.augment", "segan_ext.networks", "segan_ext.encoder"]
known_modules += ["segan_ext.generators.stylegan1", "segan_ext.generators.eigengan"]
_BESIDE_THE_HOST = str(Path(__file__).resolve().parents[2])  # plugins are found there too


def persistent_class(orig_class: type) -> type:
    """Class decorator: objects remember their constructor's arguments and pickle together with their source.

    The attributes `init_args` and `init_kwargs` return copies of those arguments.
    """
    if is_persistent(orig_class):
        raise ValueError(f"{orig_class.__name__} is persistent already")
    module = sys.modules[orig_class.__module__]
    try:
        source = vars(module).get("_embedded_source") or inspect.getsource(module)
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


def is_persistent(obj: Any) -> bool:
    """True for persistent classes and for objects of them."""
    cls = obj if isinstance(obj, type) else type(obj)
    return "_embedded_name" in vars(cls)  # a subclass has to be decorated too


def import_hook(hook: Callable[[dnnlib.EasyDict], dict[str, Any] | None]) -> None:
    """Registers `hook(meta)`, which may return a changed `meta` before an object is rebuilt from it."""
    _import_hooks.append(hook)


def current_meta(meta: dict[str, Any]) -> dnnlib.EasyDict:
    """The description that a pickle gives of a persistent object, after all import hooks.

    pickle.UnpicklingError unless its format is the one we know.
    """
    if not isinstance(meta, dict):
        raise pickle.UnpicklingError(f"a persistent object is described by a {type(meta).__name__}")
    meta = dnnlib.EasyDict(meta)
    for hook in _import_hooks:
        meta = hook(meta) or meta
    if meta.get("type") != "class" or meta.get("version") != _VERSION:
        raise pickle.UnpicklingError(f"it holds a persistent object that is no class of version {_VERSION}")
    return meta


def _reconstruct_persistent_obj(meta):
    meta = current_meta(meta)
    return _with_state(known_class(meta.class_name), meta.state)


def _with_state(cls, state):
    """An object of `cls` that was never constructed, but given this state."""
    obj = cls.__new__(cls)
    if isinstance(obj, torch.nn.Module):
        torch.nn.Module.__init__(obj)  # fields that the pickle's torch did not have yet
    setstate = getattr(obj, "__setstate__", None)
    if setstate is not None:
        setstate(state)
    else:
        obj.__dict__.update(state or {})
    return obj


def known_class(name: str) -> type:
    """Our persistent class of that name. pickle.UnpicklingError if there is none in `known_modules`."""
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
    known = ", ".join(known_modules)
    raise pickle.UnpicklingError(f"it holds an object of the class {name[:100]!r}, which is not in {known}; {TRUST}")


class TrustingUnpickler(pickle.Unpickler):
    """Opens a pickle with the code that it carries, as the reference does. Only for files whose maker you trust."""

    def find_class(self, module: str, name: str) -> Any:
        """Any object of that name, as `pickle` does it; persistent ones are rebuilt by the source they carry."""
        if (module, name) == (__name__, "_reconstruct_persistent_obj"):
            return _reconstruct_with_its_source
        return super().find_class(module, name)


def _reconstruct_with_its_source(meta):
    meta = current_meta(meta)
    return _with_state(vars(_embedded_module(meta.module_src))[meta.class_name], meta.state)


@functools.cache
def _embedded_module(source):
    """The module whose source this is, run once in a process."""
    name = f"_embedded_in_pickle_{hashlib.sha256(source.encode()).hexdigest()}"
    module = types.ModuleType(name)
    module._embedded_source = source  # so that its classes can be pickled again
    sys.modules[name] = module
    try:
        exec(source, vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module
