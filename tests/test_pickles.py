"""Network pickles: golden snapshots of the reference and of TensorFlow, and what is converted or exported of them."""

import pickle

import pytest
import torch

import legacy
from golden_data import FOLDER, GoldenFile, case_ids
from helpers import make_dataset, run
from snapshots import safe_pickle
from training import networks

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


@pytest.fixture(scope="module")
def snapshot():
    """The networks of a golden pickle"""
    with open(FOLDER / "nvidia_pickle_uncond.pkl", "rb") as file:
        return legacy.load_network_pkl(file)


@pytest.mark.parametrize("form", ["G_ema alone", "D is None", "bare generator"])
def test_files_with_a_generator_alone_open(form, snapshot, tmp_path):
    G = snapshot["G_ema"]
    content = {"G_ema alone": dict(G_ema=G), "D is None": dict(snapshot, D=None), "bare generator": G}[form]
    path = tmp_path / "small.pkl"
    path.write_bytes(pickle.dumps(content))
    opened = legacy.load_snapshot(str(path))
    z = torch.randn(1, G.z_dim)
    assert torch.equal(opened["G_ema"](z, None, noise_mode="const"), G(z, None, noise_mode="const"))
    assert opened["D"] is None and opened["augment_pipe"] is None
    run("stylegan2_ada/legacy.py", f"--source={path}", f"--dest={tmp_path / 'again.pkl'}", "--force-fp16=1")
    assert legacy.load_snapshot(str(tmp_path / "again.pkl"))["G_ema"].synthesis.b16.use_fp16
    data = make_dataset(tmp_path / "data.zip")
    done = run("train_segan.py", "-n", f"--data={data}", f"--resume={path}", "--cfg=auto", check=False)
    lacks = "D" if form == "D is None" else "G"
    assert done.returncode == 2 and f"holds no {lacks}, which training needs" in done.stderr, done.stderr


def test_tensorflow_networks_that_name_both_sides():
    with open(FOLDER / "tf_legacy_uncond.pkl", "rb") as file:
        found = safe_pickle.load(file)
    plain = legacy.convert_tf_generator(found[2])
    for net in found:
        net.static_kwargs |= dict(resolution_w=plain.img_resolution, resolution_h=plain.img_resolution)
    assert legacy.convert_tf_discriminator(found[1]).img_resolution == plain.img_resolution
    state = legacy.convert_tf_generator(found[2]).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    found[2].static_kwargs["resolution_w"] = 2 * plain.img_resolution
    with pytest.raises(ValueError, match=rf"{2 * plain.img_resolution}×{plain.img_resolution}; only square ones"):
        legacy.convert_tf_generator(found[2])


def test_a_network_of_one_class_needs_no_class(tmp_path):
    G = networks.Generator(8, 1, 8, 16, 3, dict(num_layers=1), dict(channel_base=64)).eval().requires_grad_(False)
    path = tmp_path / "one.pkl"
    path.write_bytes(pickle.dumps(dict(G=None, D=None, G_ema=G)))
    run("stylegan2_ada/generate.py", f"--network={path}", "--seeds=0", f"--outdir={tmp_path / 'out'}")
    assert (tmp_path / "out" / "seed0000.png").is_file()
