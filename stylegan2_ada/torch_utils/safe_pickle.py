"""Reads pickles of networks without running anything that they ask for.

A pickle is a program: it may name any function and have it called. The reader below only knows the few names in
`_BUILDERS`; what they build are tensors, numbers, containers, and records of networks (`PickledModule`, or `TFNetwork`
for files of the TensorFlow era), which `rebuild` turns into classes of ours. The program's memory and time are bounded
too: what it builds is never larger than the file, or than a network.
"""

import collections
import io
import itertools
import math
import pickle

import numpy as np
import torch

import dnnlib
from torch_utils import misc, persistence

_MAX_PARTS = 20_000  # modules and tensors of one network; the largest published one has about 500
_MAX_LAYERS = 100  # of a mapping network
_STYLEGAN3 = {"SynthesisInput", "MultiLayerNetwork"}  # classes that StyleGAN3 and its relatives have


def load(file):
    """What a pickle holds, with `PickledModule` and `TFNetwork` in place of networks.

    file: binary file. pickle.UnpicklingError with the reason for anything but a plain pickle of networks.
    """
    data = file.read()  # at once: no length that the file claims can then exceed what is there
    if data[:2] == b"PK":
        raise pickle.UnpicklingError(
            "it is a zip archive, not a pickle; snapshots of PyTorch weights alone do not open"
        )
    if not data:
        raise pickle.UnpicklingError("it is empty")
    try:
        return _Reader(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # whatever a broken stream of instructions may lead to
        reason = type(error).__name__
        raise pickle.UnpicklingError(f"it is damaged, cut short, or no pickle at all ({reason})") from error


class PickledModule:
    """A persistent module as the pickle describes it: class name, constructor's arguments, tensors, parts."""

    def __init__(self, meta):
        meta = persistence.current_meta(meta)
        state = _expect(dict, meta.get("state"), "the state of a network")
        self.class_name = _expect(str, meta.get("class_name"), "a class name")
        self.init_args = _expect(tuple, state.get("_init_args", ()), "the constructor's arguments")
        self.init_kwargs = _expect(dict, state.get("_init_kwargs", {}), "the constructor's arguments")
        self.training = bool(state.get("training", False))
        self.tensors = {}
        for key in ("_parameters", "_buffers"):
            found = _expect(dict, state.get(key, {}), key)
            self.tensors |= {name: tensor for name, tensor in found.items() if tensor is not None}
        modules = _expect(dict, state.get("_modules", {}), "_modules")
        self.modules = {name: module for name, module in modules.items() if module is not None}

    def walk(self):
        """(dotted name, part) of every module and tensor in this one, itself first."""
        seen = itertools.count(1)
        parts = [("", self)]
        while parts:
            name, part = parts.pop()
            if next(seen) > _MAX_PARTS:
                raise pickle.UnpicklingError("it holds more parts than any network has")
            yield name, part
            if isinstance(part, PickledModule):
                prefix = f"{name}." if name else ""
                parts += [(prefix + key, value) for key, value in {**part.tensors, **part.modules}.items()]


class TFNetwork:
    """A network of the TensorFlow era: `name`, `version`, `static_kwargs`, `components`, `variables` (name → array)"""

    def __setstate__(self, state):
        state = _expect(dict, state, "the state of a TensorFlow network")
        self.name, self.version = str(state.get("name")), state.get("version")
        self.static_kwargs = _plain(dict(_expect(dict, state.get("static_kwargs"), "static_kwargs")))
        self.components = dict(_expect(dict, state.get("components"), "components"))
        self.variables = {}
        for name, value in _expect(list, state.get("variables"), "variables"):
            self.variables[_expect(str, name, "a variable's name")] = _expect(_Array, value, name).array


# ---------------------------------------------------------------------------------------------------------------------
# The names that a pickle may call


class _Dtype:
    """A NumPy dtype of plain numbers."""

    def __init__(self, name, *_flags):
        self.dtype = np.dtype(_expect(str, name, "a number type"))
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds a NumPy array of type {name!r}; only plain numbers are read")

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(_expect(str, state[1], "a byte order"))


class _Array:
    """A NumPy array; its content comes with `__setstate__`."""

    def __init__(self, *_placeholder):
        self.array = np.zeros(0)

    def __setstate__(self, state):
        _version, shape, dtype, fortran, data = state
        dtype = _expect(_Dtype, dtype, "an array's type").dtype
        data = np.frombuffer(_expect(bytes, data, "an array's data"), dtype)
        self.array = data.reshape(shape, order="F" if fortran else "C")


def _scalar(dtype, data):
    return np.frombuffer(_expect(bytes, data, "a number"), _expect(_Dtype, dtype, "a number's type").dtype)[0]


def _storage(data):
    """The storage that a tensor's content lies in, by PyTorch's own restricted reader."""
    if data[:2] == b"PK":
        raise pickle.UnpicklingError("a tensor's content is a zip archive, which no snapshot has")
    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError("a tensor's content is a pickle that names other things than numbers") from error
    return _expect((torch.storage.TypedStorage, torch.UntypedStorage), storage, "a tensor's content")


def _tensor(storage, offset, size, stride, *_flags):
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("it holds a tensor without content")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    numbers = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    if min(offset, *size, *stride, 0) < 0 or last >= max(numbers, 1) or math.prod(size) > numbers:
        raise pickle.UnpicklingError("it holds a tensor that is larger than its content")
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, collections.OrderedDict())


def _parameter(data, requires_grad, *_hooks):
    return torch.nn.Parameter(_expect(torch.Tensor, data, "a parameter"), requires_grad=bool(requires_grad))


_BUILDERS = {
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "dnnlib.util.EasyDict": dnnlib.EasyDict,
    "torch.Size": torch.Size,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "torch_utils.persistence._reconstruct_persistent_obj": PickledModule,
    "dnnlib.tflib.network.Network": TFNetwork,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
}
for _numpy in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _BUILDERS[f"{_numpy}.multiarray.scalar"] = _scalar
    _BUILDERS[f"{_numpy}.multiarray._reconstruct"] = _Array


class _Reader(pickle._Unpickler):
    """Python's own unpickler (the one in Python: its memo is no array that a pickle can make huge) with limits."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module, name):
        try:
            return _BUILDERS[f"{module}.{name}"]
        except KeyError:
            named = f"{module}.{name}"[:100]
            raise pickle.UnpicklingError(f"it names {named}, which network pickles have no use for") from None

    def get_extension(self, code):
        raise pickle.UnpicklingError("it uses extension codes, which network pickles have no use for")

    def load_build(self):
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, (TFNetwork, _Array, _Dtype)):
            target.__setstate__(state)
        elif state:
            raise pickle.UnpicklingError(f"it sets attributes of a {type(target).__name__} behind its back")

    def load_reduce(self):
        builder, args = self.stack[-2], self.stack[-1]
        if builder is set:
            _check_keys(*args)
        elif builder in (collections.OrderedDict, dnnlib.EasyDict):
            _check_keys(key for items in args for key, _value in items)
        super().load_reduce()

    def load_dict(self):
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_setitem(self):
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self):
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_additems(self):
        _check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self):
        raise pickle.UnpicklingError("it holds a frozenset, which network pickles have no use for")

    for _code, _method in (
        (pickle.BUILD, load_build),
        (pickle.REDUCE, load_reduce),
        (pickle.DICT, load_dict),
        (pickle.FROZENSET, load_frozenset),
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.ADDITEMS, load_additems),
    ):
        dispatch[_code[0]] = _method


def _check_keys(keys=()):
    if not all(isinstance(key, (str, int)) for key in keys):  # hashing nested tuples can take for ever
        raise pickle.UnpicklingError("it has a key that is neither a word nor a number")


def _expect(kind, value, what):
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"{what} is a {type(value).__name__}")
    return value


def _plain(value):
    """Constructor arguments, after a look at every one: words, numbers, None and containers of them only."""
    parts, seen = [value], 0
    while parts:
        part = parts.pop()
        seen += 1
        if seen > _MAX_PARTS:
            raise pickle.UnpicklingError("a network has more constructor arguments than can be")
        if isinstance(part, dict):
            if part.get("num_layers", 0) not in range(_MAX_LAYERS + 1):
                raise pickle.UnpicklingError(f"a network asks for {str(part['num_layers'])[:20]} mapping layers")
            parts += part.values()
        elif isinstance(part, (list, tuple)):
            parts += part
        elif not (part is None or isinstance(part, (str, int, float, np.generic))):
            raise pickle.UnpicklingError(f"a constructor argument is a {type(part).__name__}")
    return value


# ---------------------------------------------------------------------------------------------------------------------
# From records to networks


def rebuild(record):
    """The module that a `PickledModule` describes, made anew as our class of the same name and given its tensors.

    pickle.UnpicklingError unless names and shapes of the tensors are those of our class, exactly.
    """
    parts = dict(record.walk())
    foreign = {part.class_name for part in parts.values() if isinstance(part, PickledModule)} & _STYLEGAN3
    if foreign:
        raise pickle.UnpicklingError(
            f"it looks like StyleGAN3 ({', '.join(foreign)}); only StyleGAN2 networks open here"
        )
    for name, part in parts.items():
        if isinstance(part, PickledModule):
            persistence.known_class(part.class_name)  # refuses foreign ones
        elif not isinstance(part, torch.Tensor):
            raise pickle.UnpicklingError(f"{name} is a {type(part).__name__}, neither a module nor a tensor")
    tensors = {name: part for name, part in parts.items() if isinstance(part, torch.Tensor)}
    module = build_module(record.class_name, record.init_args, record.init_kwargs, tensors).train(record.training)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(tensors[name].requires_grad)
    return module


def build_module(class_name, init_args, init_kwargs, tensors):
    """Our class of that name with these constructor's arguments and tensors (dotted name → tensor).

    pickle.UnpicklingError unless names and shapes of the tensors are those of our class, exactly.
    """
    cls = persistence.known_class(class_name)
    try:
        with torch.device("meta"):  # shapes alone; the values are given
            module = cls(*_plain(init_args), **_plain(init_kwargs))
    except (TypeError, ValueError, RuntimeError, ArithmeticError, AttributeError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise pickle.UnpicklingError(
            f"its {cls.__name__} was made by a fork with other arguments ({reason}); {persistence.TRUST}"
        ) from error
    ours = dict(misc.named_params_and_buffers(module))
    _compare(cls.__name__, {n: t.shape for n, t in ours.items()}, {n: t.shape for n, t in tensors.items()})
    module = module.to_empty(device="cpu")
    for name, tensor in misc.named_params_and_buffers(module):
        tensor.data.copy_(tensors[name])
    return module


def _compare(class_name, ours, theirs):
    missing, extra = [n for n in ours if n not in theirs], [n for n in theirs if n not in ours]
    other = [n for n in ours if n in theirs and ours[n] != theirs[n]]
    for names, what in ((missing, "lacks"), (extra, "has besides"), (other, "has in another shape")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise pickle.UnpicklingError(
                f"its {class_name} comes from a fork with other layers: it {what} {names[0][:100]}{more}; "
                f"{persistence.TRUST}"
            )
