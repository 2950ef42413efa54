"""What training does on a GPU, as far as a CPU can show it: half precision, channels-last, and what can be recorded."""

import pytest
import torch

import dnnlib
import train_segan
from golden_data import FOLDER
from runs import launch, recipe
from segan_ext.presets import PRESETS
from segan_ext.training import add_method
from torch_utils import training_stats
from training import graphs, networks

RECORDED = {"segan-mode0", "segan-mode1", "segan-mode2", "segan-mode3", "segan-fast", "segan-eigen", "segan-named"}


def on_cuda(cfg):
    """The arguments of the training loop for a preset on a GPU, with small networks; size of the images; data; files"""
    given = [f"--data={FOLDER / 'dataset_rgb.zip'}", "--channels=8", "--channel-base=128", "--batch=8", "--cond=1"]
    options = dict(train_segan.main.make_context("train", given).params)
    if cfg == "segan-named":
        options["labels"] = "factors"
    data = launch.open_training_set(recipe.dataset_kwargs(options))
    options["cond"] = None
    args = recipe.build(options, cfg, PRESETS[cfg], data, "cuda", gpus=1, cores=2)[1]
    kept = add_method(args, options, PRESETS[cfg], None, data)
    return args, dict(c_dim=0, img_resolution=data.resolution, img_channels=data.num_channels), data, kept


def places(*objects):
    """{name: where a tensor lies, or a number itself} of everything that modules and losses hold"""
    found = {}
    for i, each in enumerate(objects):
        if isinstance(each, torch.nn.Module):
            tensors = dict(each.named_parameters()) | dict(each.named_buffers())
        else:
            tensors = {n: v for n, v in vars(each).items() if isinstance(v, (torch.Tensor, int, float, tuple))}
        found |= {(i, n): v.data_ptr() if isinstance(v, torch.Tensor) else v for n, v in tensors.items()}
    return found


def parts(cfg, run_dir):
    """G, D and the loss of a preset on a GPU, and a batch"""
    args, shape, data, kept = on_cuda(cfg)
    for name, content in kept.items():
        (run_dir / name).write_bytes(content)
    make = dnnlib.util.construct_class_by_name
    G, D = (make(**args[f"{name}_kwargs"], **shape).train().requires_grad_(False) for name in "GD")
    pipe = make(**args["augment_kwargs"]) if "augment_kwargs" in args else None
    if pipe is not None:
        pipe.fixed_margins = True
    loss = make(
        device="cpu", G_mapping=G.mapping, G_synthesis=G.synthesis, D=D, augment_pipe=pipe, **args["loss_kwargs"]
    )
    loss.open_data(data, str(run_dir))
    images, none = torch.rand(8, 3, *[shape["img_resolution"]] * 2) * 2 - 1, torch.zeros(8, 0)
    return G, D, loss, dict(real_img=images, real_c=none, gen_z=torch.randn(8, G.z_dim), gen_c=none)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(networks, "_HALF_PRECISION_DEVICES", ("cpu",))
    monkeypatch.setattr(training_stats, "_pending", {})  # other tests look at all that was reported in their process


@pytest.mark.parametrize("cfg", PRESETS)
def test_phases_on_a_gpu(cfg, tmp_path):
    """Gradients are finite and lie as their parameters do; what a recorded phase changes, it changes in place."""
    G, D, loss, part = parts(cfg, tmp_path)
    assert graphs.is_recordable(loss) == (cfg in RECORDED)
    holders = [each for each in (G, D, loss.augment_pipe, loss) if each is not None]
    for phase in ("Gmain", "Greg", "Dmain", "Dreg") if cfg in RECORDED else ("Gboth", "Dboth"):
        net, before = {"G": G, "D": D}[phase[0]], places(*holders)
        net.requires_grad_(True)
        inputs = [loss.inputs(phase, part)]
        trained, vector = graphs.PhaseRunner(loss, False, pytest.fail).gradients(phase, net, 1.0, inputs)
        graphs.set_gradients(trained, vector)
        assert vector.isfinite().all() and (not trained or vector.abs().sum() > 0)
        net.requires_grad_(False).zero_grad(set_to_none=True)
        if cfg in RECORDED:
            assert places(*holders) == before, phase


class Again:
    """Stands for a recording on a GPU: does the phase once more, with `gain` times the gradients, after some draws"""

    def __init__(self, loss, phase, net, gain=1.0, draws=1):
        self.loss, self.phase, self.net, self.gain, self.draws = loss, phase, net, gain, draws

    def launch(self, part):
        self.net.zero_grad(set_to_none=True)
        for _ in range(self.draws):
            torch.rand([])
        self.loss.accumulate_gradients(self.phase, sync=True, gain=self.gain, **part)
        return graphs._gathered(self.net)[1]


@pytest.mark.parametrize("phase", ["Gmain", "Greg", "Dmain", "Dreg"])
def test_a_recording_is_trusted_if_it_repeats_the_phase(phase, tmp_path):
    """Same random numbers, same gradients; and trying that out leaves moving averages and statistics alone.

    On a CPU the phases' random numbers are Python's, of which an ordinary run on trial draws one before.
    """
    G, D, loss, part = parts("segan-mode2", tmp_path)
    loss.augment_pipe.p.fill_(0.5)
    net = {"G": G, "D": D}[phase[0]].requires_grad_(True)
    runner = graphs.PhaseRunner(loss, False, pytest.fail)
    ordinary = lambda **inputs: loss.accumulate_gradients(phase, sync=True, gain=1.0, **inputs)
    state = lambda: [loss.pl_mean, *G.buffers(), *D.buffers(), torch.get_rng_state()]
    before = [tensor.clone() for tensor in state()]
    wanted = runner._wanted(ordinary, net, part)
    assert runner._repeats(Again(loss, phase, net), part, wanted)
    for other in (dict(gain=1.5), dict(gain=float("nan")), dict(draws=0)):
        assert not runner._repeats(Again(loss, phase, net, **other), part, wanted), other
    assert all(torch.equal(*pair) for pair in zip(state(), before))
    assert not any(training_stats._pending.values())
