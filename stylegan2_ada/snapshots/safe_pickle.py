"""Reads pickles of networks without running anything that they ask for.

A pickle is a program: it may name any function and have it called. The reader below only knows the few names in
`_BUILDERS`; what they build are tensors, numbers, containers, and records of networks (`PickledModule`, or `TFNetwork`
for files of the TensorFlow era), which `rebuild` turns into classes of ours. The program's memory and time are bounded
too, by a budget that its builders draw on: what it builds is never much larger than the file.
"""

import collections
import inspect
import io
import itertools
import math
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import torch

import dnnlib
from snapshots import signatures
from torch_utils import misc, persistence

_MAX_PARTS = 20_000  # modules and tensors of one network; the largest published one has about 500
_MAX_ARGUMENTS = 1000  # numbers and words in a constructor's arguments
_MAX_NAME = 100  # letters in the name of a module or tensor
_MAX_KEY = 1000  # letters in a key of a dict
_MAX_COPIES = 4  # times that the networks together may be larger than their file
_MAX_DEPTH = 20  # modules within modules
_SPARE = 2**20  # numbers that a constructor may use besides those of its tensors, twice
_FACTORIES = {torch.randn, torch.empty, torch.zeros, torch.ones, torch.full, torch.eye}
_STYLEGAN3 = {"SynthesisInput", "MultiLayerNetwork"}  # classes that StyleGAN3 and its relatives have


def load(file: BinaryIO) -> Any:
    """What a pickle holds, with `PickledModule` and `TFNetwork` in place of networks.

    file: binary file. pickle.UnpicklingError with the reason for anything but a plain pickle of networks.
    """
    data = file.read()  # at once: no length that the file claims can then exceed what is there
    if not data:
        raise pickle.UnpicklingError("it is empty")
    other = signatures.describe(data)
    if other is not None:
        raise pickle.UnpicklingError(other)
    found = _read(_Reader(data))
    _check_copies(found, len(data))
    return found


def load_arrays(file: BinaryIO) -> dict[Any, Any]:
    """The dict in a pickle of containers, numbers and NumPy arrays; words of Python 2 are bytes.

    file: binary file. pickle.UnpicklingError with the reason for anything else.
    """
    found = _expect(dict, _read(_Reader(file.read(), _ARRAY_BUILDERS, encoding="bytes")), "what it holds")
    return {key: value.array if isinstance(value, _Array) else value for key, value in found.items()}


def _read(reader):
    try:
        return reader.load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # whatever a broken stream of instructions may lead to
        reason = type(error).__name__
        raise pickle.UnpicklingError(f"it is damaged, cut short, or no pickle at all ({reason})") from error


def _check_copies(found, size):
    """Tensors may share what they hold, and each gets memory of its own when a network is made anew."""
    networks = list(found.values()) if isinstance(found, dict) else found if isinstance(found, tuple) else []
    total = 0
    for network in networks:
        if isinstance(network, PickledModule):
            total += sum(4 * part.numel() for _, part in network.walk() if isinstance(part, torch.Tensor))
        elif isinstance(network, TFNetwork):
            total += network.size()
        if total > _MAX_COPIES * size + 1_000_000:
            raise pickle.UnpicklingError("its networks are many times larger than the file that holds them")


class PickledModule:
    """A persistent module as the pickle describes it: class name, constructor's arguments, tensors, parts."""

    def __init__(self, meta: dict[str, Any]) -> None:
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
        for name in (*self.tensors, *self.modules):
            if not (isinstance(name, str) and 0 < len(name) <= _MAX_NAME and "." not in name):
                raise pickle.UnpicklingError("a part of a network has a name that no part can have")

    def walk(self) -> Iterator[tuple[str, Any]]:
        """(dotted name, part) of every module and tensor in this one, itself first."""
        seen = itertools.count(1)
        parts = [("", self)]
        while parts:
            name, part = parts.pop()
            if next(seen) > _MAX_PARTS or name.count(".") > _MAX_DEPTH:
                raise pickle.UnpicklingError("it holds more parts than any network has")
            yield name, part
            if isinstance(part, PickledModule):
                prefix = f"{name}." if name else ""
                parts += [(prefix + key, value) for key, value in {**part.tensors, **part.modules}.items()]


class TFNetwork:
    """A network of the TensorFlow era: `name`, `version`, `static_kwargs`, `components`, `variables` (name → array)"""

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = _expect(dict, state, "the state of a TensorFlow network")
        self.name = _expect(str, state.get("name"), "a network's name")[:_MAX_NAME]
        self.version = _expect(int, state.get("version"), "a network's version")
        self.static_kwargs = _expect(dict, plain(state.get("static_kwargs")), "static_kwargs")
        self.components = _expect(dict, state.get("components"), "components")
        if not all(isinstance(part, TFNetwork) for part in self.components.values()):
            raise pickle.UnpicklingError("a component of a TensorFlow network is none itself")
        self.variables = {}
        for name, value in _expect(list, state.get("variables"), "variables"):
            name = _expect(str, name, "a variable's name")[:_MAX_NAME]
            self.variables[name] = _expect(_Array, value, "a variable").array

    def size(self, depth: int = _MAX_DEPTH) -> int:
        """Bytes of all its variables, as float32."""
        if not depth:
            raise pickle.UnpicklingError("it holds more parts than any network has")
        own = sum(4 * array.size for array in self.variables.values())
        return own + sum(part.size(depth - 1) for part in self.components.values())


# ---------------------------------------------------------------------------------------------------------------------
# The names that a pickle may call


class _Dtype:
    """A NumPy dtype of plain numbers."""

    def __init__(self, name, *_flags):
        name = _expect(str, _decoded(name), "a number type")
        if len(name) > 10 or np.dtype(name).kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds a NumPy array of type {name[:10]!r}; only plain numbers are read")
        self.dtype = np.dtype(name)

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(_expect(str, _decoded(state[1]), "a byte order"))


def _decoded(word):
    """A word of a pickle of Python 2 is bytes in `load_arrays`."""
    return word.decode("ascii") if isinstance(word, bytes) else word


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
    """The storage that a tensor's content lies in: PyTorch's older format, read here without PyTorch's reader.

    Five pickles (two marks of the format, the system, which storage it is, what storages follow), a length, numbers.
    """
    file = io.BytesIO(_expect(bytes, data, "a tensor's content"))
    reader = _Reader(file.getvalue(), _StorageNames)
    mark, version, _system, root, keys = [reader.load() for _ in range(5)]
    kind, storage_type, key, _location, count, view = root
    if (mark, version, kind, view, keys) != (0x1950A86A20F9469CFC6C, 1001, "storage", None, [key]):
        raise pickle.UnpicklingError("a tensor's content is of a format that no snapshot has")
    dtype = _expect(torch.dtype, storage_type, "a storage's type")
    numbers = data[reader.position() + 8 :]
    if len(numbers) != count * dtype.itemsize:
        raise pickle.UnpicklingError("a tensor's content is not of the length that it should have")
    return torch.frombuffer(bytearray(numbers), dtype=dtype) if numbers else torch.empty(0, dtype=dtype)


def _tensor(storage, offset, size, stride, *_flags):
    """A view of a storage, which `_storage` gives as a tensor of one dimension."""
    _expect(torch.Tensor, storage, "a tensor's content")
    if not len(size) == len(stride) <= 8 or not all(0 <= n < 2**40 for n in (offset, *size, *stride)):
        raise pickle.UnpicklingError("it holds a tensor of a shape that none can have")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if math.prod(size) > len(storage) or (math.prod(size) and last >= len(storage)):
        raise pickle.UnpicklingError("it holds a tensor that is larger than its content")
    return storage.as_strided(size, stride, offset)


def _parameter(data, requires_grad, *_hooks_and_state):
    return torch.nn.Parameter(_expect(torch.Tensor, data, "a parameter"), requires_grad=bool(requires_grad))


def _encode(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError("it encodes a text as no pickle does")
    return _expect(str, text, "a text").encode(encoding)


_BUILDERS = {
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "_codecs.encode": _encode,  # how bytes are written by protocols before 3
    "dnnlib.util.EasyDict": dnnlib.EasyDict,
    "torch.Size": torch.Size,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
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
_ARRAY_BUILDERS = {name: builder for name, builder in _BUILDERS.items() if builder in (_Array, _Dtype, _encode)}

_StorageNames = {
    f"torch.{name}Storage": dtype
    for name, dtype in dict(
        Float=torch.float32, Double=torch.float64, Half=torch.float16, BFloat16=torch.bfloat16, Long=torch.int64
    ).items()
}


_CONTAINERS = (set, collections.OrderedDict, dnnlib.EasyDict)


class _Reader(pickle._Unpickler):
    """Python's own unpickler (the one in Python: its memo is no array that a pickle can make huge) with limits.

    builders: what the pickle may name. Instructions that no network pickle has are refused, and whatever a builder is
    given is taken off a budget, so that a pickle cannot have one thing built again and again.
    """

    def __init__(self, data, builders=_BUILDERS, encoding="ASCII"):
        self._data = io.BytesIO(data)
        super().__init__(self._data, encoding=encoding)
        self._builders = builders
        self._budget = 4 * len(data) + 100_000

    def position(self):
        """How much of the data has been read."""
        return self._data.tell()

    def find_class(self, module, name):
        named = f"{module}.{name}"[:_MAX_NAME]
        if named not in self._builders:
            raise pickle.UnpicklingError(f"it names {named}, which no pickle of its kind has a use for")
        return self._builders[named]

    def persistent_load(self, pid):
        if self._builders is not _StorageNames:
            raise pickle.UnpicklingError("it refers to something outside of it, which network pickles do not")
        return pid

    def _spend(self, value, depth=4):
        """Takes the size of what a builder is given off the budget."""
        self._budget -= 1
        if isinstance(value, bytes):  # words are not copied: every network refers to the same long source
            self._budget -= len(value)
        elif isinstance(value, (dict, list, tuple, set)) and depth:
            for part in itertools.chain(value.keys(), value.values()) if isinstance(value, dict) else value:
                self._spend(part, depth - 1)
        if self._budget < 0:
            raise pickle.UnpicklingError("it builds more than can be in a file of its size")

    def _refuse(self):
        raise pickle.UnpicklingError("it has an instruction that no pickle of its kind has a use for")

    def load_reduce(self):
        builder, args = self.stack[-2], _expect(tuple, self.stack[-1], "what a builder is given")
        self._spend(args)
        if builder is _encode:
            self._budget -= len(args[0])
        elif builder in _CONTAINERS:
            for items in args:  # a word would be taken apart letter by letter, at no cost to the budget
                _expect(list, items, "what a container is made of")
                _check_keys(items if builder is set else [_expect((list, tuple), item, "an item")[0] for item in items])
        super().load_reduce()

    def load_newobj(self):
        if self.stack[-2] not in (dnnlib.EasyDict, TFNetwork) or self.stack[-1] != ():
            self._refuse()
        super().load_newobj()

    def load_build(self):
        state = self.stack.pop()
        target = self.stack[-1]
        self._spend(state)
        if isinstance(target, (TFNetwork, _Array, _Dtype)):
            target.__setstate__(state)
        elif state:
            raise pickle.UnpicklingError(f"it sets attributes of a {type(target).__name__} behind its back")

    def load_append(self):
        _expect(list, self.stack[-2], "a list")
        super().load_append()

    def load_appends(self):
        _expect(list, self.metastack[-1][-1], "a list")
        super().load_appends()

    def load_additems(self):
        _expect(set, self.metastack[-1][-1], "a set")
        _check_keys(self.stack)
        super().load_additems()

    def load_dict(self):
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_setitem(self):
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self):
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_put(self):
        index = int(self.readline()[:-1])
        if not 0 <= index < 2**32:
            self._refuse()
        self.memo[index] = self.stack[-1]

    dispatch = dict(pickle._Unpickler.dispatch)
    for _code in (
        *("INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"),
        *("FROZENSET", "BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER"),
    ):
        dispatch[getattr(pickle, _code)[0]] = _refuse
    for _code, _method in dict(
        REDUCE=load_reduce,
        NEWOBJ=load_newobj,
        BUILD=load_build,
        APPEND=load_append,
        APPENDS=load_appends,
        ADDITEMS=load_additems,
        DICT=load_dict,
        SETITEM=load_setitem,
        SETITEMS=load_setitems,
        PUT=load_put,
    ).items():
        dispatch[getattr(pickle, _code)[0]] = _method


def _check_keys(keys):
    """Short words and small numbers only.

    Hashing nested tuples takes for ever, huge numbers can be made to collide, and equal long words are compared letter
    by letter each time.
    """
    for key in keys:
        if not (len(key) <= _MAX_KEY if isinstance(key, (str, bytes)) else isinstance(key, int) and abs(key) < 2**32):
            raise pickle.UnpicklingError("it has a key that is neither a short word nor a small number")


def _expect(kind, value, what):
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"{what} is a {type(value).__name__}")
    return value


def plain(value: Any) -> Any:
    """`value` after a look at every part: words, numbers, None, and containers of them; arrays become lists.

    pickle.UnpicklingError for anything else, and for more of it than arguments of a constructor can be.
    """
    left = itertools.count(_MAX_ARGUMENTS, -1)

    def copied(value):
        if next(left) < 0:
            raise pickle.UnpicklingError("there are more arguments than can be")
        if isinstance(value, dict):
            return type(value)({key: copied(part) for key, part in value.items()})
        if isinstance(value, (list, tuple, torch.Size)):
            return type(value)(copied(part) for part in value)
        if isinstance(value, _Array) and value.array.size <= _MAX_ARGUMENTS:
            return value.array.tolist()
        short = len(value) <= 1000 if isinstance(value, str) else True
        small = abs(value) < 2**63 if isinstance(value, int) else True
        if not (value is None or isinstance(value, (str, int, float, np.number, np.bool_))) or not (short and small):
            raise pickle.UnpicklingError(f"an argument is a {type(value).__name__} that none can be")
        return value

    return copied(value)


# ---------------------------------------------------------------------------------------------------------------------
# From records to networks


def rebuild(record: PickledModule) -> torch.nn.Module:
    """The module that a `PickledModule` describes, made anew as our class of the same name and given its tensors.

    pickle.UnpicklingError unless names and shapes of the tensors, and what decides the computation, are our class's.
    """
    parts = dict(record.walk())
    records = {name: part for name, part in parts.items() if isinstance(part, PickledModule)}
    foreign = {part.class_name for part in records.values()} & _STYLEGAN3
    if foreign:
        raise pickle.UnpicklingError(f"it looks like StyleGAN3 ({', '.join(foreign)}); only StyleGAN2 opens here")
    for part in records.values():
        persistence.known_class(part.class_name)  # refuses foreign ones
    tensors = {name: part for name, part in parts.items() if name not in records}
    module = build_module(record.class_name, record.init_args, record.init_kwargs, tensors).train(record.training)
    for name, part in records.items():
        _compare_parts(name, part, module.get_submodule(name))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(tensors[name].requires_grad)
    return module


def build_module(
    class_name: str, init_args: Sequence[Any], init_kwargs: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> torch.nn.Module:
    """Our class of that name with these constructor's arguments and tensors (dotted name → tensor).

    pickle.UnpicklingError unless names and shapes of the tensors are those of our class, exactly.
    """
    cls = persistence.known_class(_expect(str, class_name, "a class name"))
    args, kwargs = plain(_expect((tuple, list), init_args, "arguments")), plain(_expect(dict, init_kwargs, "arguments"))
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            raise pickle.UnpicklingError(f"{name[:_MAX_NAME]} is no tensor of fractions")
    try:
        with _EmptyTensors(sum(tensor.numel() for tensor in tensors.values())):
            module = cls(*args, **kwargs)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise pickle.UnpicklingError(
            f"its {cls.__name__} was made by a fork with other arguments ({reason}); {persistence.TRUST}"
        ) from error
    ours = dict(misc.named_params_and_buffers(module))
    _compare(cls.__name__, {n: t.shape for n, t in ours.items()}, {n: t.shape for n, t in tensors.items()})
    for name, tensor in misc.named_params_and_buffers(module):
        tensor.data.copy_(tensors[name])
    return module


class _EmptyTensors(torch.overrides.TorchFunctionMode):
    """Inside, constructors get tensors without values, which are copied into them later, and not many more numbers
    than those have. (The device "meta" would do as well, but loads PyTorch's compiler, for a second.)
    """

    def __init__(self, numbers):
        super().__init__()
        self.left = 2 * numbers + _SPARE

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func not in _FACTORIES:
            return func(*args, **(kwargs or {}))
        size = args[:1] if func is torch.full else (args * 2)[:2] if func is torch.eye else args
        size = torch.empty(*size, device="meta").shape
        self.left -= size.numel()
        if self.left < 0:
            raise ValueError("its layers are larger than what the file holds")
        return torch.empty(size)


def _compare(class_name, ours, theirs):
    missing, extra = [n for n in ours if n not in theirs], [n for n in theirs if n not in ours]
    other = [n for n in ours if n in theirs and ours[n] != theirs[n]]
    for names, what in ((missing, "lacks"), (extra, "has besides"), (other, "has in another shape")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise pickle.UnpicklingError(
                f"its {class_name} comes from a fork with other layers: it {what} {names[0][:_MAX_NAME]}{more}; "
                f"{persistence.TRUST}"
            )


# Arguments of layers that decide what they compute, and show in no tensor's shape.
_DECISIVE = {"activation", "lr_multiplier", "up", "down", "architecture", "use_noise", "group_size", "conv_clamp"}


def _compare_parts(name, record, module):
    """A layer of a fork may have our shapes and yet compute something else."""
    theirs = _decisive_arguments(type(module), record.init_args, record.init_kwargs)
    ours = _decisive_arguments(type(module), module.init_args, module.init_kwargs)
    if record.class_name != type(module).__name__ or theirs != ours:
        raise pickle.UnpicklingError(
            f"{name or 'the network'} comes from a fork that computes something else; {persistence.TRUST}"
        )


def _decisive_arguments(cls, args, kwargs):
    try:
        bound = inspect.signature(cls).bind(*args, **kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    return {key: value for key, value in bound.arguments.items() if key in _DECISIVE}
