"""What only a GPU shows: CUDA graphs of training, half precision in both layouts, whole runs. Skipped without one."""

import copy
import json
import subprocess
import sys

import pytest
import torch

from helpers import ROOT
from segan_ext.loss import SEGANLoss
from segan_ext.networks import SEGANGenerator
from torch_utils import training_stats
from training import graphs, networks
from training.augment import AugmentPipe
from training.loss import StyleGAN2Loss

torch.backends.cudnn.allow_tf32 = False
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
SHAPE = dict(c_dim=0, img_resolution=32, img_channels=3)
PHASES = ("Gmain", "Greg", "Dmain", "Dreg")


class Training:
    """Networks, loss and statistics of a run whose state is the same for the same arguments"""

    def __init__(self, recording, half=False, nhwc=False, loss=SEGANLoss):
        torch.manual_seed(1)
        width = dict(channel_base=1024, channel_max=64) | (dict(num_fp16_res=2, conv_clamp=256) if half else {})
        layout = dict(fp16_channels_last=True) if nhwc else {}
        self.G = SEGANGenerator(z_dim=32, w_dim=32, mode=2, synthesis_kwargs=width | layout, **SHAPE).cuda().train()
        self.D = networks.Discriminator(block_kwargs=layout, **width, **SHAPE).cuda().train()
        pipe = AugmentPipe(xflip=1, rotate90=1, xint=1, scale=1, rotate=1, xfrac=1, contrast=1, hue=1, noise=1).cuda()
        pipe.p.fill_(0.5)
        pipe.fixed_margins = True
        modules = self.G.mapping, self.G.synthesis, self.D
        self.loss = loss(torch.device("cuda"), *modules, augment_pipe=pipe)
        self.stats = training_stats.Collector(keep_previous=False)
        self.failures = []
        self.runner = graphs.PhaseRunner(self.loss, recording, self.failures.append)

    def gradients(self, phase, step, parts=2):
        """(parameters, vector, statistics) of a phase; what is drawn depends on the step alone"""
        torch.manual_seed(step)
        net = {"G": self.G, "D": self.D}[phase[0]]
        for other in (self.G, self.D):
            other.requires_grad_(other is net).zero_grad(set_to_none=True)
        none = torch.zeros(4, 0, device="cuda")
        draw = lambda: dict(
            real_img=torch.rand(4, 3, 32, 32, device="cuda") * 2 - 1,
            real_c=none,
            gen_z=torch.randn(4, 32, device="cuda"),
            gen_c=none,
        )
        self.stats.update()
        trained, vector = self.runner.gradients(phase, net, 2.0, [draw() for _ in range(parts)])
        self.stats.update()
        return trained, vector.clone(), {name: (self.stats.num(name), self.stats[name]) for name in self.stats.names()}


@pytest.mark.parametrize("half, nhwc", [(False, False), (True, False), (True, True)])
def test_recorded_phases_do_what_ordinary_ones_do(half, nhwc):
    ordinary, recorded = Training(False, half, nhwc), Training(True, half, nhwc)
    for step in range(5):
        for phase in PHASES:
            (mine, wanted, stats), (theirs, got, recorded_stats) = (
                each.gradients(phase, step) for each in (ordinary, recorded)
            )
            assert (got - wanted).norm() <= (0.02 if half else 1e-4) * wanted.norm(), (phase, step)
            assert recorded_stats.keys() == stats.keys()
            for name, (number, mean) in stats.items():
                assert recorded_stats[name] == (number, pytest.approx(mean, rel=0.05, abs=1e-2, nan_ok=True)), name
            for parameters in (mine, theirs):  # the same step, so that both go on from the same weights
                with torch.no_grad():
                    graphs.set_gradients(parameters, wanted)
                    torch._foreach_add_(parameters, [p.grad.sign() for p in parameters], alpha=-1e-3)
    assert len(recorded.runner._recordings) == len(PHASES) and not recorded.failures
    assert not ordinary.runner._recordings
    for one, other in (
        (ordinary.loss.pl_mean, recorded.loss.pl_mean),
        (ordinary.G.mapping.w_avg, recorded.G.mapping.w_avg),
    ):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)


def why_not_recorded(loss):
    """What is said once of a loss that cannot be recorded, whose gradients are the ordinary ones all the same"""
    ordinary, recorded = (Training(recording, loss=loss) for recording in (False, True))
    for step in range(4):
        for phase in PHASES:
            wanted, got = (each.gradients(phase, step)[1] for each in (ordinary, recorded))
            assert (got - wanted).norm() <= 1e-4 * wanted.norm(), (phase, step)
    (reason,) = recorded.failures
    assert not recorded.runner.recording
    return reason


class Waiting(StyleGAN2Loss):
    """Reads a number in every phase of G"""

    recordable = True

    def generator_loss(self, logits):
        return super().generator_loss(logits) * float(logits.sum() != 0)


def test_what_waits_for_the_device_goes_on_without_graphs():
    reason = why_not_recorded(Waiting)
    assert reason.startswith("Training goes on without CUDA graphs, and slower: Gmain waits for the GPU (test_cuda.py")


@pytest.mark.parametrize("cfg", ["segan-mode2", "segan-eigen", "segan-named", "eigengan"])
def test_cuda_runs_and_goes_on(cfg, tmp_path):
    """The command with the golden images, half precision and augmentation: it records, resumes, and stays finite."""
    labels = ["--labels=factors"] if cfg == "segan-named" else []
    options = [f"--cfg={cfg}", "--data=tests/golden/dataset_rgb.zip", f"--outdir={tmp_path}", *labels, "--batch=8"]
    options += ["--channel-base=512", "--channels=32", "--workers=1", "--grid=2x2", "--snap=1", "--tick=1"]
    for kimg, resume in ((1, []), (2, ["--resume=latest"])):
        command = [sys.executable, "train_segan.py", *options, f"--kimg={kimg}", *resume]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert "without CUDA graphs" not in done.stdout
    (stats,) = tmp_path.glob("*/stats.jsonl")
    lines = [json.loads(line) for line in stats.read_text().splitlines()]
    assert lines[-1]["Progress/kimg"]["mean"] >= 2 and not lines[-1]["Health/nonfinite_steps"]["mean"]


class Late(StyleGAN2Loss):
    """Waits where nothing told of it: while it is recorded"""

    recordable = True

    def generator_loss(self, logits):
        if torch.cuda.is_current_stream_capturing():
            logits.sum().item()
        return super().generator_loss(logits)


def test_a_recording_that_breaks_off_ends_no_training():
    reason = why_not_recorded(Late)
    assert "Gmain cannot be recorded" in reason


class Counting(StyleGAN2Loss):
    """Says that it does the same every time, and does not"""

    recordable, runs = True, 0

    def generator_loss(self, logits):
        self.runs += 1
        return super().generator_loss(logits) * 2**self.runs


def test_a_recording_that_does_something_else_is_not_used():
    training = Training(True, loss=Counting)
    for step in range(3):
        training.gradients("Gmain", step)
    (reason,) = training.failures
    assert "Gmain, recorded, gives other gradients" in reason


def test_images_of_a_gpu_are_those_of_the_cpu():
    G = Training(False).G.eval().requires_grad_(False)
    z, c = torch.randn(3, 32), torch.zeros(3, 0)
    there = G(z.cuda(), c.cuda(), noise_mode="const").cpu()
    here = copy.deepcopy(G).cpu()(z, c, noise_mode="const")
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)
