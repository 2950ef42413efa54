"""Pickles that want to run code, to fill the memory, or to be taken for a network: all are refused with one sentence.

Every hostile one would leave a file behind if any of its code ran; the last tests show that it would.
"""

import collections
import contextlib
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

import dnnlib
import legacy
from golden_data import FOLDER
from torch_utils import persistence
from training import networks

CORPUS = {}


def hostile(make):
    """Adds `make(touch)` → bytes to the corpus. touch: Python source that leaves the tell-tale file."""
    CORPUS[make.__name__] = make
    return make


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


# Calls of functions


@hostile
def os_system(touch):
    return b"cos\nsystem\n(Vpython3 -c '" + touch.encode() + b"'\ntR."


@hostile
def posix_system(touch):
    import os

    return snapshot(G=Call(os.system, f"python3 -c '{touch}'"))


@hostile
def builtins_eval(touch):
    return snapshot(G=Call(eval, f"exec({touch!r})"))


@hostile
def builtins_exec(touch):
    return snapshot(augment_pipe=Call(exec, touch))


@hostile
def python2_builtins(touch):
    return b"c__builtin__\neval\n(Vexec(" + repr(touch).encode() + b")\ntR."


@hostile
def getattr_of_an_allowed_function(touch):
    return snapshot(G=Call(getattr, torch._utils._rebuild_parameter, "__globals__"))


@hostile
def nested_reduce(touch):
    return snapshot(G=Call(getattr, Call(__import__, "os"), "system"))


@hostile
def dotted_name_through_an_allowed_module(touch):
    return b"\x80\x04\x8c\x0bcollections\x8c\x17OrderedDict.fromkeys.im\x93."


@hostile
def attribute_of_an_allowed_class(touch):
    return b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93)R."


@hostile
def old_style_instance(touch):
    return b"(V" + touch.encode() + b"\nibuiltins\nexec\n."


@hostile
def old_style_object(touch):
    return b"(cbuiltins\nexec\nV" + touch.encode() + b"\no."


@hostile
def new_object_of_a_foreign_class(touch):
    return b"\x80\x02csubprocess\nPopen\nU\x04trueq\x00\x85\x81."


@hostile
def copyreg_reconstructor(touch):
    return b"ccopyreg\n_reconstructor\n(cbuiltins\ndict\ncbuiltins\nobject\nNtR."


@hostile
def extension_code(touch):
    return b"\x80\x02\x82\x01."


@hostile
def persistent_id(touch):
    return b"\x80\x02U\x06os.envQ."


@hostile
def functools_partial(touch):
    import functools

    return snapshot(G=Call(functools.partial, exec, touch))


@hostile
def network_with_hostile_source(touch):
    return persistent(described(module_src=touch, class_name="NoSuchClass"))


@hostile
def class_of_another_module(touch):
    return persistent(described(class_name="torch.nn.Linear", module_src=touch))


@hostile
def class_name_that_is_a_module(touch):
    return persistent(described(class_name="torch", module_src=touch))


# Tensors and arrays


@hostile
def torch_load_of_a_pickle(touch):
    buffer = io.BytesIO()
    torch.save(Call(exec, touch), buffer, _use_new_zipfile_serialization=False)
    return with_state(_parameters=dict(weight=Call(torch.storage._load_from_bytes, buffer.getvalue())))


@hostile
def torch_load_of_a_zip(touch):
    buffer = io.BytesIO()
    torch.save(Call(exec, touch), buffer)
    return with_state(_parameters=dict(weight=Call(torch.storage._load_from_bytes, buffer.getvalue())))


@hostile
def torch_load_of_no_storage(touch):
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer, _use_new_zipfile_serialization=False)
    return with_state(_parameters=dict(weight=Call(torch.storage._load_from_bytes, buffer.getvalue())))


def tensor_of(size, stride):
    function, (storage, *_) = torch.zeros(4).__reduce_ex__(2)
    tensor = Call(function, storage, 0, size, stride, False, collections.OrderedDict())
    return with_state(_parameters=dict(weight=tensor))


@hostile
def tensor_beyond_its_storage(touch):
    return tensor_of((2**20, 2), (2, 1))


@hostile
def tensor_that_repeats_one_number(touch):
    return tensor_of((2**40, 2**20), (0, 0))


@hostile
def object_array(touch):
    return snapshot(G=np.array([Call(exec, touch)], dtype=object))


@hostile
def object_scalar(touch):
    return snapshot(G=Call(np.float64(0).__reduce__()[0], np.dtype("O"), Call(exec, touch)))


@hostile
def array_of_huge_shape(touch):
    reconstruct, args, (version, _shape, dtype, fortran, data) = np.zeros(3).__reduce__()
    return snapshot(G=Call(reconstruct, *args, state=(version, (2**50,), dtype, fortran, data)))


@hostile
def type_of_huge_records(touch):
    return snapshot(G=Call(np.dtype, f"({2**30},)f8"))


# State and attributes


@hostile
def setstate_of_a_dict(touch):
    return b"\x80\x02cdnnlib.util\nEasyDict\n)\x81}X\x0c\x00\x00\x00__setstate__cbuiltins\nexec\nsX\x01\x00\x00\x00xb."


@hostile
def attributes_of_a_dict(touch):
    return b"\x80\x02cdnnlib.util\nEasyDict\n)\x81}X\x09\x00\x00\x00__class__K\x01sb."


@hostile
def attributes_of_an_allowed_class(touch):
    return b"\x80\x02ccollections\nOrderedDict\n}X\x03\x00\x00\x00popK\x01sb."


@hostile
def attributes_of_a_network(touch):
    meta = described()
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta, state={"forward": 1}))


@hostile
def forward_hook_in_the_state(touch):
    return with_state(_forward_hooks=collections.OrderedDict({0: exec}))


@hostile
def state_that_is_no_dict(touch):
    return persistent(described(state=[1, 2, 3]))


@hostile
def parameters_that_are_words(touch):
    return with_state(_parameters=dict(weight="heavy", bias=None))


@hostile
def module_that_is_a_number(touch):
    return with_state(_modules=dict(conv=5))


@hostile
def constructor_argument_that_is_a_function(touch):
    return with_state(_init_kwargs=dict(activation=print))


@hostile
def another_constructor_argument(touch):
    return with_state(_init_kwargs=dict(in_features=2, out_features=2, secret=1), _init_args=())


@hostile
def description_that_is_a_word(touch):
    return persistent("me")


@hostile
def wrong_version(touch):
    return persistent(described(version=7))


@hostile
def wrong_type(touch):
    return persistent(described(type="function"))


# Files that take too much


@hostile
def huge_memo(touch):
    return b"\x80\x02]r\xff\xff\xff\x7f" + b"r\xff\xff\xff\xff" + b"0."


@hostile
def huge_string(touch):
    return b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc."


@hostile
def huge_frame(touch):
    return b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N."


@hostile
def network_inside_itself(touch):
    state = described()["state"]
    state["_modules"] = {}
    net = Call(persistence._reconstruct_persistent_obj, described(state=state))
    state["_modules"]["again"] = net
    try:
        return pickle.dumps(dict(G=net, D=net, G_ema=net))
    except RecursionError:  # written by hand: the memo holds the state before the network is made
        return b"\x80\x02}q\x00" + b"ctorch_utils.persistence\n_reconstruct_persistent_obj\nh\x00\x85R0h\x00."


@hostile
def modules_that_double(touch):
    net = Call(persistence._reconstruct_persistent_obj, described())
    for _ in range(60):
        state = described()["state"] | dict(_parameters={}, _modules=dict(a=net, b=net))
        net = Call(persistence._reconstruct_persistent_obj, described(state=state))
    return pickle.dumps(dict(G=net, D=net, G_ema=net))


@hostile
def arguments_that_double(touch):
    value = [1]
    for _ in range(60):
        value = [value, value]
    return with_state(_init_kwargs=dict(activation=value))


@hostile
def keys_that_take_for_ever_to_hash(touch):
    key = ()
    for _ in range(60):
        key = (key, key)
    return b"\x80\x02}" + pickle.dumps(key, protocol=2)[2:-1] + b"Ns."


@hostile
def members_that_take_for_ever_to_hash(touch):
    key = ()
    for _ in range(60):
        key = (key, key)
    return b"\x80\x02cbuiltins\nset\n]" + pickle.dumps(key, protocol=2)[2:-1] + b"a\x85R."


@hostile
def mapping_of_a_billion_layers(touch):
    net = networks.MappingNetwork(4, 0, 4, num_ws=2, num_layers=1)
    (meta,) = net.__reduce__()[1]
    meta["state"]["_init_kwargs"] = dict(num_ws=2, num_layers=10**9)
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta))


@hostile
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


@hostile
def storage_that_is_never_filled(touch):  # its numbers would be whatever lies in the memory of the process
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    root = b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuM\xe8\x03NtQ."
    content = Call(torch.storage._load_from_bytes, head + root + pickle.dumps([], 2))
    function, _ = torch.zeros(4).__reduce_ex__(2)[:2]
    return with_state(_parameters=dict(weight=Call(function, content, 0, (2, 2), (2, 1), False, {})))


@hostile
def storage_with_a_function_in_it(touch):
    return with_state(_parameters=dict(weight=Call(torch.storage._load_from_bytes, pickle.dumps(Call(exec, touch), 2))))


@hostile
def set_made_behind_the_back(touch):
    key = ()
    for _ in range(60):
        key = (key, key)
    return b"\x80\x02(]" + pickle.dumps(key, protocol=2)[2:-1] + b"aibuiltins\nset\n."


@hostile
def numbers_that_collide(touch):
    return pickle.dumps({i * (2**61 - 1): 0 for i in range(1, 3000)})


@hostile
def sets_made_again_and_again(touch):
    items = pickle.dumps(list(range(5000)), protocol=2)[2:-1]
    return b"\x80\x02" + items + b"r\xff\xff\x00\x000" + b"cbuiltins\nset\nj\xff\xff\x00\x00\x85R0" * 20_000 + b"N."


@hostile
def description_too_long_to_print(touch):
    return persistent(described(type=doubled(1)))


@hostile
def layers_too_long_to_print(touch):
    return with_state(_init_kwargs=dict(num_layers=doubled(1)))


@hostile
def mapping_of_a_billion_layers_by_position(touch):
    (meta,) = networks.MappingNetwork(4, 0, 4, num_ws=2, num_layers=1).__reduce__()[1]
    meta["state"] |= dict(_init_args=(4, 0, 4, 2, 10**9), _init_kwargs={})
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta))


@hostile
def image_of_two_to_the_hundred_thousand(touch):
    G = networks.SynthesisNetwork(4, 8, 3, channel_base=32)
    (meta,) = G.__reduce__()[1]
    meta["state"] |= dict(_init_args=(4, 2**100_000, 3), _init_kwargs={})
    return snapshot(G=Call(persistence._reconstruct_persistent_obj, meta))


@hostile
def names_that_grow(touch):
    net, name = networks.FullyConnectedLayer(2, 2), "n" * 50_000
    for _ in range(12):
        state = described()["state"] | dict(_parameters={}, _modules={name: net, name + "2": net})
        net = Call(persistence._reconstruct_persistent_obj, described(state=state))
    return snapshot(G=net)


@hostile
def tensorflow_network_of_huge_layers(touch):
    return golden("tf_legacy_uncond.pkl").replace(b"mapping_layersq\x0fK\x08", b"mapping_layersq\x0fK\xff")


@hostile
def layer_that_computes_something_else(touch):  # a fork's, with our names and shapes
    G = networks.Generator(4, 0, 4, 8, 3, dict(num_layers=1), dict(channel_base=32))
    G.mapping.fc0._init_kwargs["activation"] = "relu"
    return pickle.dumps(dict(G=G, D=networks.Discriminator(0, 8, 3, channel_base=32), G_ema=G))


# Broken files, and other things


@hostile
def empty(touch):
    return b""


@hostile
def truncated_in_the_middle(touch):
    return golden()[: len(golden()) // 2]


@hostile
def truncated_at_the_end(touch):
    return golden()[:-1]


@hostile
def flipped_bytes(touch):
    data = bytearray(golden())
    data[20:60] = bytes(40)
    return bytes(data)


@hostile
def text(touch):
    return b"<!DOCTYPE html><html>404 Not Found</html>"


@hostile
def zip_archive(touch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Call(exec, touch)))
    return buffer.getvalue()


@hostile
def torch_checkpoint(touch):
    buffer = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, buffer)
    return buffer.getvalue()


@hostile
def unknown_protocol(touch):
    return b"\x80\x63N."


@hostile
def only_a_generator(touch):
    net = networks.FullyConnectedLayer(2, 2)
    return pickle.dumps(dict(G_ema=net))


@hostile
def networks_that_are_numbers(touch):
    return pickle.dumps(dict(G=1, D=2, G_ema=3))


@hostile
def a_list(touch):
    return pickle.dumps([1, 2, 3])


@hostile
def tensorflow_network_before_stylegan2(touch):
    return golden("tf_legacy_uncond.pkl").replace(b"versionq", b"versiomq")


@hostile
def tensorflow_network_with_other_layers(touch):
    return golden("tf_legacy_uncond.pkl").replace(b"4x4/Conv/weight", b"4x4/Conv/weighs")


@hostile
def tensorflow_network_with_other_arguments(touch):
    return golden("tf_legacy_uncond.pkl").replace(b"num_channels", b"num_tunnels!")


@hostile
def stylegan3(touch):
    inner = Call(persistence._reconstruct_persistent_obj, described(class_name="SynthesisInput"))
    return with_state(_modules=dict(input=inner))


@hostile
def fork_with_another_layer(touch):
    return with_state(_modules=dict(attention=networks.FullyConnectedLayer(2, 2)))


@hostile
def fork_with_other_shapes(touch):
    return with_state(_init_args=(2, 3))


def telltale(folder):
    path = folder / "it_ran"
    return path, f'open("{path}", "w")'


@pytest.mark.parametrize("name", CORPUS)
def test_refused_with_one_sentence(name, tmp_path):
    path, touch = telltale(tmp_path)
    source = tmp_path / "hostile.pkl"
    source.write_bytes(CORPUS[name](touch))
    with source.open("rb") as file, pytest.raises(ValueError, match="hostile.pkl") as refused:
        legacy.load_network_pkl(file)
    sentence = str(refused.value)
    assert not path.exists(), "code of the pickle ran"
    assert "\n" not in sentence and len(sentence) < 600
    assert "holds no networks" in sentence or "cannot be opened" in sentence or "that can be opened: " in sentence


def test_the_corpus_is_large_and_its_host_is_sound():
    assert len(CORPUS) >= 30
    assert isinstance(legacy.load_network_pkl(io.BytesIO(snapshot()))["G"], networks.FullyConnectedLayer)


RUNNING = ["os_system", "posix_system", "builtins_eval", "builtins_exec", "old_style_object", "object_array"]


@pytest.mark.parametrize("name", RUNNING)
def test_the_corpus_would_run_in_a_careless_reader(name, tmp_path):
    path, touch = telltale(tmp_path)
    with contextlib.suppress(Exception):
        pickle.loads(CORPUS[name](touch))
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
