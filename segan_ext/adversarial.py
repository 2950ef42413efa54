"""The adversarial losses of other papers, and training that grows."""

import math
from typing import Any

import torch
from torch.nn.functional import avg_pool2d, interpolate, relu

from runs import processes
from segan_ext.generators.stylegan1 import grow
from segan_ext.loss import SEGANLoss
from torch_utils import training_stats

KINDS = ("logistic", "hinge", "wgan-gp")
_FIRST = 3  # growing starts with images of 2³ pixels
_SLOPE = 10  # weight of WGAN's gradient penalty
_DRIFT = 0.001  # weight of the squares of its logits of real images


class PublishedLoss(SEGANLoss):
    """Losses whose gradient penalty belongs to every step (phases Gboth and Dboth), or to every `penalty_interval`th.

    kind: "logistic" (StyleGAN), "hinge" (EigenGAN) with the zero-centred penalty ½γ‖∇D‖² on real images; "wgan-gp"
    (Gulrajani et al. 2017, as Karras et al. 2018 use it) with (‖∇D‖ − 1)² between real and generated ones. grow_kimg:
    the networks start with 8×8 pixels and double them after so many thousand images, which then fade in over as many
    (Karras et al. 2018); 0: they do not grow. ValueError for an unknown kind.
    """

    def __init__(
        self,
        device: torch.device,
        *modules: torch.nn.Module,
        kind: str = "logistic",
        penalty_interval: int = 1,
        grow_kimg: float = 0,
        r1_gamma: float = 10,
        **loss_kwargs: Any,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        gamma = 0 if kind == "wgan-gp" else r1_gamma * penalty_interval
        super().__init__(device, *modules, r1_gamma=gamma, **loss_kwargs)
        self.kind, self.penalty_interval, self.grow_kimg = kind, penalty_interval, grow_kimg
        self.steps = torch.zeros([])  # of D
        self.shown = torch.zeros([])  # real images that D has seen
        self._generated = ()  # images of the step, for WGAN's penalty

    def accumulate_gradients(
        self,
        phase: str,
        real_img: torch.Tensor,
        real_c: torch.Tensor,
        gen_z: torch.Tensor,
        gen_c: torch.Tensor,
        sync: bool,
        gain: float,
    ) -> None:
        """As the host's; see there."""
        if self.grow_kimg:
            grown = grown_after(float(self.shown) / 1000, self.grow_kimg, real_img.shape[-1])
            for module in (self.G_synthesis, self.D):
                grow(module, grown)
            real_img = faded(real_img, grown)
            training_stats.report("Progress/resolution", 2.0**grown)
        super().accumulate_gradients(phase, real_img, real_c, gen_z, gen_c, sync, gain)
        if phase.startswith("D"):
            self.shown += len(real_img) * processes.count()
            self.steps += int(sync)  # True in the last part of a batch

    def generator_loss(self, logits: torch.Tensor) -> torch.Tensor:
        """As the host's; see there."""
        if self.kind == "logistic":
            return super().generator_loss(logits)
        return relu(1 - logits) if self.kind == "hinge" else -logits

    def fake_loss(self, logits: torch.Tensor) -> torch.Tensor:
        """As the host's; see there."""
        if self.kind == "logistic":
            return super().fake_loss(logits)
        return relu(1 + logits) if self.kind == "hinge" else logits

    def real_loss(self, logits: torch.Tensor) -> torch.Tensor:
        """As the host's; see there."""
        if self.kind == "logistic":
            return super().real_loss(logits)
        return relu(1 - logits) if self.kind == "hinge" else _DRIFT * logits.square() - logits

    def run_G(self, z: torch.Tensor, c: torch.Tensor, sync: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """As the host's; see there."""
        img, ws = super().run_G(z, c, sync)
        if self.kind == "wgan-gp":
            self._generated = (img.detach(),)
        return img, ws

    def _discriminator_reals(self, real_img, real_c, sync, gain, fake_loss, regularise):
        """As the host's, with the penalty of the kind."""
        due = int(self.steps) % self.penalty_interval == 0
        super()._discriminator_reals(real_img, real_c, sync, gain, fake_loss, regularise and due)
        if self.kind == "wgan-gp" and due:
            self._slopes(real_img, real_c, gain)

    def _slopes(self, real_img, real_c, gain):
        share = torch.rand([len(real_img), 1, 1, 1], device=real_img.device)
        between = torch.lerp(*self._generated, real_img, share).requires_grad_()
        logits = self.run_D(between, real_c, sync=False)
        (grads,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
        penalty = (grads.flatten(1).norm(dim=1) - 1).square()
        training_stats.report("Loss/slope_penalty", penalty)
        penalty.mean().mul(_SLOPE * self.penalty_interval * gain).backward()


def grown_after(kimg: float, grow_kimg: float, resolution: int) -> float:
    """Logarithm, to the base 2, of the resolution reached: a half of the way each stands still, the other one fades."""
    stage, rest = divmod(kimg, 2 * grow_kimg)
    return min(_FIRST + stage + max(rest / grow_kimg - 1, 0), math.log2(resolution))


def faded(images: torch.Tensor, grown: float) -> torch.Tensor:
    """Real images [N, C, H, W] with as much detail as generated ones have; their size stays."""
    size = images.shape[-1]
    seen = avg_pool2d(images, size // 2 ** math.ceil(grown))
    if grown % 1:
        seen = torch.lerp(_enlarged(avg_pool2d(seen, 2), seen.shape[-1]), seen, grown % 1)
    return _enlarged(seen, size)


def _enlarged(images, size):
    return interpolate(images, size=[size, size], mode="nearest")
