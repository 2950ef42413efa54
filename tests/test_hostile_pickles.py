"""Pickles that want to run code, to fill the memory, or to be taken for a network: all are refused with one sentence.

Every hostile one would leave a file behind if any of its code ran; the last tests show that it would.
"""

import collections
import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

import dnnlib
import legacy
from golden_data import FOLDER
from helpers import within_limits
from torch_utils import persistence
from training import networks

CORPUS = {}  # name → (makes the pickle, why it is refused)


def hostile(reason):
    """Decorator: adds `make(touch)` → bytes to the corpus. touch: Python source that leaves the tell-tale file."""

    def add(make):
        CORPUS[make.__name__] = make, reason
        return make

    return add


class Call:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


def snapshot(**replaced):
    net = networks.FullyConnectedLayer(2, 2)
    return pickle.dumps(dict(G=net, D=net, G_ema=net) | replaced)


def persistent(meta):
    """A network that is described by `meta`"""
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta))


def described(**changes):
    """What a proper small network reduces to, with changes"""
    (meta,) = networks.FullyConnectedLayer(2, 2).__reduce__()[1]
    return dict(meta, **changes)


def with_state(**changes):
    return persistent(described(state=described()["state"] | changes))


def golden(name="nvidia_pickle_uncond.pkl"):
    return (FOLDER / name).read_bytes()


def nested_tuples(times=60):
    """A tuple that is small in the file, and takes for ever to hash"""
    key = ()
    for _ in range(times):
        key = (key, key)
    return key


# Calls of functions


@hostile("it names os.system")
def os_system(touch):
    return b"cos\nsystem\n(Vpython3 -c '" + touch.encode() + b"'\ntR."


@hostile("it names posix.system")
def posix_system(touch):
    import os

    return snapshot(G=Call(os.system, f"python3 -c '{touch}'"))


@hostile("it names builtins.eval")
def builtins_eval(touch):
    return snapshot(G=Call(eval, f"exec({touch!r})"))


@hostile("it names builtins.exec")
def builtins_exec(touch):
    return snapshot(augment_pipe=Call(exec, touch))


@hostile("it names __builtin__.eval")
def python2_builtins(touch):
    return b"c__builtin__\neval\n(Vexec(" + repr(touch).encode() + b")\ntR."


@hostile("it names builtins.getattr")
def getattr_of_an_allowed_function(touch):
    return snapshot(G=Call(getattr, torch._utils._rebuild_parameter, "__globals__"))


@hostile("it names builtins.getattr")
def nested_reduce(touch):
    return snapshot(G=Call(getattr, Call(__import__, "os"), "system"))


@hostile("it names collections.OrderedDict.fromkeys.im")
def dotted_name_through_an_allowed_module(touch):
    return b"\x80\x04\x8c\x0bcollections\x8c\x17OrderedDict.fromkeys.im\x93."


@hostile("it names collections.OrderedDict.fromkeys")
def attribute_of_an_allowed_class(touch):
    return b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93)R."


@hostile("it has an instruction that no pickle of its kind has a use for")
def old_style_instance(touch):
    return b"(V" + touch.encode() + b"\nibuiltins\nexec\n."


@hostile("it names builtins.exec")
def old_style_object(touch):
    return b"(cbuiltins\nexec\nV" + touch.encode() + b"\no."


@hostile("it names subprocess.Popen")
def new_object_of_a_foreign_class(touch):
    return b"\x80\x02csubprocess\nPopen\nU\x04trueq\x00\x85\x81."


@hostile("it names copyreg._reconstructor")
def copyreg_reconstructor(touch):
    return b"ccopyreg\n_reconstructor\n(cbuiltins\ndict\ncbuiltins\nobject\nNtR."


@hostile("it has an instruction that no pickle of its kind has a use for")
def extension_code(touch):
    return b"\x80\x02\x82\x01."


@hostile("it refers to something outside of it, which network pickles do not")
def persistent_id(touch):
    return b"\x80\x02U\x06os.envQ."


@hostile("it names functools.partial")
def functools_partial(touch):
    import functools

    return snapshot(G=Call(functools.partial, exec, touch))


@hostile("it holds an object of the class 'NoSuchClass'")
def network_with_hostile_source(touch):
    return persistent(described(module_src=touch, class_name="NoSuchClass"))


@hostile("it holds an object of the class 'torch.nn.Linear'")
def class_of_another_module(touch):
    return persistent(described(class_name="torch.nn.Linear", module_src=touch))


@hostile("it holds an object of the class 'torch'")
def class_name_that_is_a_module(touch):
    return persistent(described(class_name="torch", module_src=touch))


# Tensors and arrays


@hostile("it names __builtin__.exec")
def torch_load_of_a_pickle(touch):
    buffer = io.BytesIO()
    torch.save(Call(exec, touch), buffer, _use_new_zipfile_serialization=False)
    return with_state(_parameters=dict(weight=Call(torch.storage._load_from_bytes, buffer.getvalue())))


@hostile("persistent IDs in protocol 0 must be ASCII strings")
def torch_load_of_a_zip(touch):
    buffer = io.BytesIO()
    torch.save(Call(exec, touch), buffer)
    return with_state(_parameters=dict(weight=Call(torch.storage._load_from_bytes, buffer.getvalue())))


@hostile("it names torch._utils._rebuild_tensor_v2")
def torch_load_of_no_storage(touch):
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer, _use_new_zipfile_serialization=False)
    return with_state(_parameters=dict(weight=Call(torch.storage._load_from_bytes, buffer.getvalue())))


def tensor_of(size, stride):
    function, (storage, *_) = torch.zeros(4).__reduce_ex__(2)
    tensor = Call(function, storage, 0, size, stride, False, collections.OrderedDict())
    return with_state(_parameters=dict(weight=tensor))


@hostile("it holds a tensor that is larger than its content")
def tensor_beyond_its_storage(touch):
    return tensor_of((2**20, 2), (2, 1))


@hostile("it holds a tensor of a shape that none can have")
def tensor_that_repeats_one_number(touch):
    return tensor_of((2**40, 2**20), (0, 0))


@hostile("it holds a NumPy array of type 'O8'; only plain numbers are read")
def object_array(touch):
    return snapshot(G=np.array([Call(exec, touch)], dtype=object))


@hostile("it holds a NumPy array of type 'O8'; only plain numbers are read")
def object_scalar(touch):
    return snapshot(G=Call(np.float64(0).__reduce__()[0], np.dtype("O"), Call(exec, touch)))


@hostile("it is damaged, cut short, or no pickle at all (ValueError)")
def array_of_huge_shape(touch):
    reconstruct, args, (version, _shape, dtype, fortran, data) = np.zeros(3).__reduce__()
    return snapshot(G=Call(reconstruct, *args, state=(version, (2**50,), dtype, fortran, data)))


@hostile("it holds a NumPy array of type '(107374182'; only plain numbers are read")
def type_of_huge_records(touch):
    return snapshot(G=Call(np.dtype, f"({2**30},)f8"))


# State and attributes


@hostile("it names builtins.exec")
def setstate_of_a_dict(touch):
    return b"\x80\x02cdnnlib.util\nEasyDict\n)\x81}X\x0c\x00\x00\x00__setstate__cbuiltins\nexec\nsX\x01\x00\x00\x00xb."


@hostile("it sets attributes of a EasyDict behind its back")
def attributes_of_a_dict(touch):
    return b"\x80\x02cdnnlib.util\nEasyDict\n)\x81}X\x09\x00\x00\x00__class__K\x01sb."


@hostile("it sets attributes of a type behind its back")
def attributes_of_an_allowed_class(touch):
    return b"\x80\x02ccollections\nOrderedDict\n}X\x03\x00\x00\x00popK\x01sb."


@hostile("it sets attributes of a PickledModule behind its back")
def attributes_of_a_network(touch):
    meta = described()
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta, state={"forward": 1}))


@hostile("it names builtins.exec")
def forward_hook_in_the_state(touch):
    return with_state(_forward_hooks=collections.OrderedDict({0: exec}))


@hostile("the state of a network is a list")
def state_that_is_no_dict(touch):
    return persistent(described(state=[1, 2, 3]))


@hostile("weight is no tensor of fractions")
def parameters_that_are_words(touch):
    return with_state(_parameters=dict(weight="heavy", bias=None))


@hostile("conv is no tensor of fractions")
def module_that_is_a_number(touch):
    return with_state(_modules=dict(conv=5))


@hostile("it names builtins.print")
def constructor_argument_that_is_a_function(touch):
    return with_state(_init_kwargs=dict(activation=print))


@hostile("its FullyConnectedLayer was made by a fork with other arguments (FullyConnectedLayer.__ini")
def another_constructor_argument(touch):
    return with_state(_init_kwargs=dict(in_features=2, out_features=2, secret=1), _init_args=())


@hostile("a persistent object is described by a str")
def description_that_is_a_word(touch):
    return persistent("me")


@hostile("it holds a persistent object that is no class of version 6")
def wrong_version(touch):
    return persistent(described(version=7))


@hostile("it holds a persistent object that is no class of version 6")
def wrong_type(touch):
    return persistent(described(type="function"))


# Files that take too much


@hostile("it is damaged, cut short, or no pickle at all (IndexError)")
def huge_memo(touch):
    return b"\x80\x02]r\xff\xff\xff\x7f" + b"r\xff\xff\xff\xff" + b"0."


@hostile("it is damaged, cut short, or no pickle at all (EOFError)")
def huge_string(touch):
    return b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc."


@hostile("holds no generator under the name G_ema")
def huge_frame(touch):
    return b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N."


@hostile("it holds a persistent object that is no class of version 6")
def network_inside_itself(touch):
    state = described()["state"]
    state["_modules"] = {}
    net = Call(persistence._reconstruct_persistent_obj, described(state=state))
    state["_modules"]["again"] = net
    try:
        return pickle.dumps(dict(G=net, D=net, G_ema=net))
    except RecursionError:  # written by hand: the memo holds the state before the network is made
        return b"\x80\x02}q\x00" + b"ctorch_utils.persistence\n_reconstruct_persistent_obj\nh\x00\x85R0h\x00."


@hostile("it holds more parts than any network has")
def modules_that_double(touch):
    net = Call(persistence._reconstruct_persistent_obj, described())
    for _ in range(60):
        state = described()["state"] | dict(_parameters={}, _modules=dict(a=net, b=net))
        net = Call(persistence._reconstruct_persistent_obj, described(state=state))
    return pickle.dumps(dict(G=net, D=net, G_ema=net))


@hostile("there are more arguments than can be")
def arguments_that_double(touch):
    value = [1]
    for _ in range(60):
        value = [value, value]
    return with_state(_init_kwargs=dict(activation=value))


@hostile("it has a key that is neither a short word nor a small number")
def keys_that_take_for_ever_to_hash(touch):
    key = nested_tuples()
    return b"\x80\x02}" + pickle.dumps(key, protocol=2)[2:-1] + b"Ns."


@hostile("it has a key that is neither a short word nor a small number")
def members_that_take_for_ever_to_hash(touch):
    key = nested_tuples()
    return b"\x80\x02cbuiltins\nset\n]" + pickle.dumps(key, protocol=2)[2:-1] + b"a\x85R."


@hostile("its MappingNetwork was made by a fork with other arguments (num_layers must be a whole num")
def mapping_of_a_billion_layers(touch):
    net = networks.MappingNetwork(4, 0, 4, num_ws=2, num_layers=1)
    (meta,) = net.__reduce__()[1]
    meta["state"]["_init_kwargs"] = dict(num_ws=2, num_layers=10**9)
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta))


@hostile("an argument is a int that none can be")
def image_of_two_to_the_thousand(touch):
    G = networks.Generator(4, 0, 4, 8, 3, synthesis_kwargs=dict(channel_base=32))
    (meta,) = G.__reduce__()[1]
    meta["state"]["_init_args"] = (4, 0, 4, 2**1000, 3)
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta))


def doubled(value, times=60):
    """A container that is small in the file, and as large as 2^times when it is walked through"""
    for _ in range(times):
        value = [value, value]
    return value


@hostile("a tensor's content is of a format that no snapshot has")
def storage_that_is_never_filled(touch):  # its numbers would be whatever lies in the memory of the process
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    root = b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuM\xe8\x03NtQ."
    content = Call(torch.storage._load_from_bytes, head + root + pickle.dumps([], 2))
    function, _ = torch.zeros(4).__reduce_ex__(2)[:2]
    return with_state(_parameters=dict(weight=Call(function, content, 0, (2, 2), (2, 1), False, {})))


@hostile("it names __builtin__.exec")
def storage_with_a_function_in_it(touch):
    return with_state(_parameters=dict(weight=Call(torch.storage._load_from_bytes, pickle.dumps(Call(exec, touch), 2))))


@hostile("it has an instruction that no pickle of its kind has a use for")
def set_made_behind_the_back(touch):
    key = nested_tuples()
    return b"\x80\x02(]" + pickle.dumps(key, protocol=2)[2:-1] + b"aibuiltins\nset\n."


@hostile("it has a key that is neither a short word nor a small number")
def numbers_that_collide(touch):
    return pickle.dumps({i * (2**61 - 1): 0 for i in range(1, 3000)})


@hostile("it builds more than can be in a file of its size")
def sets_made_again_and_again(touch):
    items = pickle.dumps(list(range(5000)), protocol=2)[2:-1]
    return b"\x80\x02" + items + b"r\xff\xff\x00\x000" + b"cbuiltins\nset\nj\xff\xff\x00\x00\x85R0" * 20_000 + b"N."


@hostile("it holds a persistent object that is no class of version 6")
def description_too_long_to_print(touch):
    return persistent(described(type=doubled(1)))


@hostile("there are more arguments than can be")
def layers_too_long_to_print(touch):
    return with_state(_init_kwargs=dict(num_layers=doubled(1)))


@hostile("its MappingNetwork was made by a fork with other arguments (num_layers must be a whole num")
def mapping_of_a_billion_layers_by_position(touch):
    (meta,) = networks.MappingNetwork(4, 0, 4, num_ws=2, num_layers=1).__reduce__()[1]
    meta["state"] |= dict(_init_args=(4, 0, 4, 2, 10**9), _init_kwargs={})
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta))


@hostile("an argument is a int that none can be")
def image_of_two_to_the_hundred_thousand(touch):
    G = networks.SynthesisNetwork(4, 8, 3, channel_base=32)
    (meta,) = G.__reduce__()[1]
    meta["state"] |= dict(_init_args=(4, 2**100_000, 3), _init_kwargs={})
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta))


@hostile("it has a key that is neither a short word nor a small number")
def names_that_grow(touch):
    net, name = networks.FullyConnectedLayer(2, 2), "n" * 50_000
    for _ in range(12):
        state = described()["state"] | dict(_parameters={}, _modules={name: net, name + "2": net})
        net = Call(persistence._reconstruct_persistent_obj, described(state=state))
    return snapshot(G=net)


@hostile("its Generator was built with arguments that none can have (num_layers must be 100 at most,")
def tensorflow_network_of_huge_layers(touch):
    return golden("tf_legacy_uncond.pkl").replace(b"mapping_layersq\x0fK\x08", b"mapping_layersq\x0fK\xff")


@hostile("mapping.fc0 comes from a fork that computes something else")
def layer_that_computes_something_else(touch):  # a fork's, with our names and shapes
    G = networks.Generator(4, 0, 4, 8, 3, dict(num_layers=1), dict(channel_base=32))
    G.mapping.fc0._init_kwargs["activation"] = "relu"
    return pickle.dumps(dict(G=G, D=networks.Discriminator(0, 8, 3, channel_base=32), G_ema=G))


# Small files that take long, or swell


def again_and_again(*values, builder, times):
    """A pickle that has `builder` called with each value so many times; the values are in it once."""
    data = b"\x80\x02"
    for i, value in enumerate(values):
        data += pickle.dumps(value, protocol=2)[2:-1] + b"r" + struct.pack("<I", 1000 + i) + b"0"
    calls = b"".join(builder + b"j" + struct.pack("<I", 1000 + i) + b"\x85R0" for i in range(len(values)))
    return data + calls * times + b"N."


_SET, _ORDERED = b"cbuiltins\nset\n", b"ccollections\nOrderedDict\n"


@hostile("what a container is made of is a str")
def set_of_a_long_word(touch):
    return again_and_again("é" * 100_000, builder=_SET, times=3000)


@hostile("what a container is made of is a str")
def mapping_of_a_long_word(touch):
    return again_and_again("é" * 100_000, builder=_ORDERED, times=3000)


@hostile("what a container is made of is a bytes")
def set_of_long_bytes(touch):
    return again_and_again(b"", builder=_SET, times=1).replace(
        pickle.dumps(b"", 2)[2:-1], b"\x8e" + struct.pack("<Q", 100_000) + bytes(100_000)
    )


@hostile("it names builtins.frozenset")
def frozenset_of_a_long_word(touch):
    return again_and_again("é" * 100_000, builder=b"cbuiltins\nfrozenset\n", times=3000)


@hostile("it has an instruction")
def frozenset_of_nested_tuples(touch):
    key = nested_tuples()
    return b"\x80\x04(" + pickle.dumps(key, protocol=2)[2:-1] + b"\x91."


@hostile("it has a key that is neither a short word nor a small number")
def mapping_with_a_nested_tuple_as_key(touch):
    key = nested_tuples()
    return again_and_again([[key, 1]], builder=_ORDERED, times=1)


@hostile("it has a key that is neither a short word nor a small number")
def equal_long_keys(touch):  # each time one takes the other's place, they are compared letter by letter
    words = b"".join(
        pickle.dumps("k" * 1_000_000 + "", protocol=2)[2:-1] + b"r" + struct.pack("<I", 1000 + i) + b"0" for i in (0, 1)
    )
    one, two = (b"j" + struct.pack("<I", 1000 + i) + b"Ns" for i in (0, 1))
    return b"\x80\x02" + words + b"}" + (one + two) * 50_000 + b"."


@hostile("it builds more than can be in a file of its size")
def bytes_encoded_again_and_again(touch):
    call = b"c_codecs\nencode\nj\xe8\x03\x00\x00X\x06\x00\x00\x00latin1\x86R0"
    return b"\x80\x02" + pickle.dumps("x" * 100_000, 2)[2:-1] + b"r\xe8\x03\x00\x000" + call * 3000 + b"N."


def tied(*weights, kind="_parameters", count=60):
    """A mapping network of `count` layers, whose weights are these in turn; `kind` is what they are kept as."""
    net = networks.MappingNetwork(256, 0, 256, num_ws=None, num_layers=count, w_avg_beta=None)
    (meta,) = net.__reduce__()[1]
    for i, layer in enumerate(net.children()):
        (described_layer,) = layer.__reduce__()[1]
        described_layer["state"][kind] = described_layer["state"][kind] | dict(weight=weights[i % len(weights)])
        if kind == "_buffers":
            del described_layer["state"]["_parameters"]["weight"]
        meta["state"]["_modules"][f"fc{i}"] = Call(persistence._reconstruct_persistent_obj, described_layer)
    return Call(persistence._reconstruct_persistent_obj, meta)


_SWELLS = "its networks are many times larger than the file that holds them"


@hostile(_SWELLS)
def tied_weights(touch):
    return snapshot(G=tied(torch.nn.Parameter(torch.zeros(256, 256))))


@hostile(_SWELLS)
def tied_buffers(touch):
    return snapshot(G=tied(torch.zeros(256, 256), kind="_buffers"))


@hostile(_SWELLS)
def tied_across_networks(touch):
    net = tied(torch.nn.Parameter(torch.zeros(256, 256)), count=10)
    return pickle.dumps(dict(G=net, D=net, G_ema=net, augment_pipe=net))


@hostile(_SWELLS)
def views_of_one_storage(touch):
    function, (storage, *_) = torch.zeros(256 * 256 + 64).__reduce_ex__(2)
    view = lambda i: Call(function, storage, i, (256, 256), (256, 1), False, collections.OrderedDict())
    return snapshot(G=tied(*map(view, range(60))))


@hostile(_SWELLS)
def tied_arrays_of_a_tensorflow_network(touch):
    class Network:
        def __reduce__(self):
            return (
                copyreg_new,
                (Network,),
                dict(
                    name="G",
                    version=4,
                    static_kwargs={},
                    components={},
                    variables=[(f"v{i}", array) for i in range(60)],
                ),
            )

    array, copyreg_new = np.zeros([256, 256], np.float32), __import__("copyreg").__newobj__
    Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"
    with tensorflow_module(Network):
        return pickle.dumps((Network(),) * 3, protocol=2)


@contextlib.contextmanager
def tensorflow_module(cls):
    """Inside, `cls` can be imported as dnnlib.tflib.network.Network"""
    made = {name: types.ModuleType(name) for name in ("dnnlib.tflib", "dnnlib.tflib.network")}
    made["dnnlib.tflib.network"].Network = cls
    sys.modules |= made
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


# Broken files, and other things


@hostile("it is empty")
def empty(touch):
    return b""


@hostile("it is damaged, cut short, or no pickle at all (EOFError)")
def truncated_in_the_middle(touch):
    return golden()[: len(golden()) // 2]


@hostile("it is damaged, cut short, or no pickle at all (EOFError)")
def truncated_at_the_end(touch):
    return golden()[:-1]


@hostile("it is damaged, cut short, or no pickle at all (KeyError)")
def flipped_bytes(touch):
    data = bytearray(golden())
    data[20:60] = bytes(40)
    return bytes(data)


@hostile("it is a web page: the link leads to a page, not to the file itself")
def text(touch):
    return b"<!DOCTYPE html><html>404 Not Found</html>"


@hostile("it is a zip archive of PyTorch, with weights alone or the state of a run; give a network-snapshot-….pkl")
def zip_archive(touch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Call(exec, touch)))
    return buffer.getvalue()


@hostile("it is a zip archive of PyTorch, with weights alone or the state of a run; give a network-snapshot-….pkl")
def torch_checkpoint(touch):
    buffer = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, buffer)
    return buffer.getvalue()


@hostile("it is damaged, cut short, or no pickle at all (ValueError)")
def unknown_protocol(touch):
    return b"\x80\x63N."


@hostile("holds no generator under the name G_ema")
def only_a_discriminator(touch):
    net = networks.FullyConnectedLayer(2, 2)
    return pickle.dumps(dict(D=net))


@hostile("holds no generator under the name G_ema")
def networks_that_are_numbers(touch):
    return pickle.dumps(dict(G=1, D=2, G_ema=3))


@hostile("holds no generator under the name G_ema")
def a_list(touch):
    return pickle.dumps([1, 2, 3])


@hostile("a network's version is a NoneType")
def tensorflow_network_before_stylegan2(touch):
    return golden("tf_legacy_uncond.pkl").replace(b"versionq", b"versiomq")


@hostile("the TensorFlow network has no variable synthesis/4x4/Conv/weight, which synthesis.b4.conv1")
def tensorflow_network_with_other_layers(touch):
    return golden("tf_legacy_uncond.pkl").replace(b"4x4/Conv/weight", b"4x4/Conv/weighs")


@hostile("G was built with num_tunnels!, which has no counterpart here")
def tensorflow_network_with_other_arguments(touch):
    return golden("tf_legacy_uncond.pkl").replace(b"num_channels", b"num_tunnels!")


@hostile("it looks like StyleGAN3 (SynthesisInput); only StyleGAN2 opens here")
def stylegan3(touch):
    inner = Call(persistence._reconstruct_persistent_obj, described(class_name="SynthesisInput"))
    return with_state(_modules=dict(input=inner))


@hostile("its FullyConnectedLayer comes from a fork with other layers: it has besides attention.bias")
def fork_with_another_layer(touch):
    return with_state(_modules=dict(attention=networks.FullyConnectedLayer(2, 2)))


@hostile("its FullyConnectedLayer comes from a fork with other layers: it has in another shape weigh")
def fork_with_other_shapes(touch):
    return with_state(_init_args=(2, 3))


def telltale(folder):
    path = folder / "it_ran"
    return path, f'open("{path}", "w")'


@pytest.mark.parametrize("name", CORPUS)
def test_refused_with_one_sentence(name, tmp_path):
    make, reason = CORPUS[name]
    path, touch = telltale(tmp_path)
    source = tmp_path / "hostile.pkl"
    source.write_bytes(make(touch))

    def refusal():
        with source.open("rb") as file, pytest.raises(ValueError, match="hostile.pkl") as refused:
            legacy.load_network_pkl(file)
        return str(refused.value)

    sentence = within_limits(refusal, seconds=2, megabytes=200)
    assert not path.exists(), "code of the pickle ran"
    assert "\n" not in sentence and len(sentence) < 600
    assert reason in sentence


def test_the_corpus_is_large_and_its_host_is_sound():
    assert len(CORPUS) >= 90
    assert isinstance(legacy.load_network_pkl(io.BytesIO(snapshot()))["G"], networks.FullyConnectedLayer)


def test_networks_may_share_what_they_hold():
    net = networks.FullyConnectedLayer(200, 200)
    opened = legacy.load_network_pkl(io.BytesIO(pickle.dumps(dict(G=net, D=net, G_ema=net))))
    assert all(torch.equal(opened[key].weight, net.weight) for key in ("G", "D", "G_ema"))


def test_the_limits_of_these_tests_hold():
    for greedy in (lambda: sum(range(10**9)), lambda: len(bytearray(b"x") * 900_000_000)):
        with pytest.raises(AssertionError, match="processor time|memory|died|MemoryError"):
            within_limits(greedy, seconds=2, megabytes=200)


RUNNING = ["os_system", "posix_system", "builtins_eval", "builtins_exec", "old_style_object", "object_array"]


@pytest.mark.parametrize("name", RUNNING)
def test_the_corpus_would_run_in_a_careless_reader(name, tmp_path):
    path, touch = telltale(tmp_path)
    with contextlib.suppress(Exception):
        pickle.loads(CORPUS[name][0](touch))
    assert path.exists()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("nvidia_pickle_*.pkl")), ids=lambda path: path.stem)
def test_embedded_sources_are_not_run_unless_trusted(path):
    with path.open("rb") as file:  # each source raises an error
        legacy.load_network_pkl(file)
    with path.open("rb") as file, pytest.raises(ValueError, match="embedded source must not be executed"):
        legacy.load_network_pkl(file, trust=True)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("tf_legacy_*.pkl")), ids=lambda path: path.stem)
def test_sources_of_tensorflow_networks_are_never_run(path):
    assert b"embedded source must not be executed" in path.read_bytes()
    with path.open("rb") as file:
        legacy.load_network_pkl(file)


def test_trusting_runs_the_source_and_pickles_again(tmp_path):
    net = networks.FullyConnectedLayer(2, 2)
    (meta,) = net.__reduce__()[1]
    source = "import torch\nfrom torch_utils import persistence\n"
    source += "@persistence.persistent_class\nclass Foreign(torch.nn.Linear):\n    pass\n"
    foreign = Call(persistence._reconstruct_persistent_obj, dict(meta, class_name="Foreign", module_src=source))
    data = pickle.dumps(dict(G=foreign, D=foreign, G_ema=foreign))
    with pytest.raises(ValueError, match="'Foreign', which is not in"):
        legacy.load_network_pkl(io.BytesIO(data))
    for _ in range(2):
        loaded = legacy.load_network_pkl(io.BytesIO(data), trust=True)
        assert type(loaded["G"]).__name__ == "Foreign" and torch.equal(loaded["G"].weight, net.weight)
        data = pickle.dumps(loaded)
    broken = pickle.dumps(dict(G=Call(persistence._reconstruct_persistent_obj, dict(meta, module_src="oops("))))
    for _ in range(2):  # no half-made module stays behind
        with pytest.raises(ValueError, match="was never closed|unexpected EOF"):
            legacy.load_network_pkl(io.BytesIO(broken), trust=True)


def test_easydict_arguments_survive():
    net = networks.Discriminator(0, 8, 3, channel_base=32, epilogue_kwargs=dnnlib.EasyDict(mbstd_group_size=2))
    again = legacy.load_network_pkl(io.BytesIO(snapshot(D=net)))["D"]
    assert again.init_kwargs == net.init_kwargs and type(again.init_kwargs.epilogue_kwargs) is dnnlib.EasyDict
