"""Network pickles: golden snapshots of the reference and of TensorFlow, and what is converted or exported of them."""

import pickle

import pytest
import torch

import legacy
from golden_data import FOLDER, GoldenFile, case_ids
from helpers import run
from snapshots import safe_pickle

GOLDEN = [GoldenFile("nvidia_pickle_expected.npz"), GoldenFile("tf_legacy_expected.npz")]
CASES = [case for file in GOLDEN for case in file.cases]
all_cases = pytest.mark.parametrize("case", CASES, ids=case_ids(CASES))


def load(case):
    with open(FOLDER / case.info["file"], "rb") as file:
        return legacy.load_network_pkl(file)


def check_images(case, networks):
    inputs = case.inputs()
    z, c = inputs["z"], inputs["c"]
    G, D, G_ema = (networks[key] for key in ("G", "D", "G_ema"))
    options = case.info["kwargs"]
    outputs = {
        "G_ema_const": lambda: G_ema(z, c, noise_mode="const", **options),
        "G_ema_psi": lambda: G_ema(z, c, noise_mode="const", truncation_psi=0.7, **options),
        "G_const": lambda: G(z, c, noise_mode="const", **options),
        "D_logits": lambda: D(inputs["img"], inputs["c_img"], **options),
    }
    for label in case.info["outputs"]:
        case.check(label, outputs[label]())


@all_cases
def test_golden_pickles_give_the_golden_images(case):
    networks = load(case)
    check_images(case, networks)
    for key, kwargs in case.info.get("init_kwargs", {}).items():
        if key in networks and networks[key] is not None:
            assert networks[key].init_kwargs == kwargs
    if case.info.get("augment_p") is not None:
        assert networks["augment_pipe"].p.item() == pytest.approx(case.info["augment_p"])
    for key, prefix in case.info.get("state_prefix", {}).items():
        state = networks[key].state_dict()
        want = case.file.tensors(prefix)
        assert list(state) == list(want)
        for name in state:
            torch.testing.assert_close(state[name], want[name], rtol=1e-6, atol=1e-7)


@all_cases
def test_golden_pickles_convert_to_snapshots_of_today(case, tmp_path):
    dest = tmp_path / "converted.pkl"
    run("stylegan2_ada/legacy.py", f"--source={FOLDER / case.info['file']}", f"--dest={dest}")
    with open(dest, "rb") as file:
        check_images(case, legacy.load_network_pkl(file))
    with open(dest, "rb") as file:  # the reference's way of use
        check_images(case, pickle.load(file))


def test_tensorflow_generator_with_one_torgb_for_each_level_of_detail():
    with open(FOLDER / "tf_legacy_cond.pkl", "rb") as file:
        _, _, Gs = safe_pickle.load(file)
    resnet = legacy.convert_tf_generator(Gs)
    variables = Gs.components["synthesis"].variables
    for name in list(variables):
        if "/Skip/" in name:
            del variables[name]
        elif "/ToRGB/" in name:
            variables[f"ToRGB_lod0/{name.split('/')[-1]}"] = variables.pop(name)
    variables["ToRGB_lod1/weight"] = variables["ToRGB_lod0/weight"]  # of a resolution that is no longer drawn
    G = legacy.convert_tf_generator(Gs)
    assert G.synthesis.b16.architecture == "orig"
    expected = {name: value for name, value in resnet.state_dict().items() if ".skip." not in name}
    assert list(G.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in G.state_dict().items())
