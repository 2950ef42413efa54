"""The host's loss plus the subspaces' regulariser."""

from typing import Any

import torch

from runs import processes
from segan_ext import labelled, own
from torch_utils import training_stats
from training.loss import StyleGAN2Loss

_RAMP = 10_000  # images over which G comes to follow an encoder that learns meanwhile
_EXAMINED = 25  # batches between examinations
_NOISE = 0.05  # on labelled images, deviation: there are few of them


class _Fixed(torch.nn.Module):
    """A mapping network that is not trained; path lengths still need gradients with respect to its ws."""

    def __init__(self, mapping):
        super().__init__()
        self.mapping = mapping

    def forward(self, *args, **kwargs):
        ws = self.mapping(*args, **kwargs).requires_grad_(torch.is_grad_enabled())
        return ws.clone()  # no leaf: hosts mix styles in place


class SEGANLoss(StyleGAN2Loss):
    """StyleGAN2's loss with λ·½‖UᵀU − I‖²_F, summed over all subspaces, in the main phase of G (EigenGAN, section 3).

    ortho: λ; 0 turns it off. loss_kwargs: arguments of the host's loss.
    """

    recordable = True

    def __init__(
        self,
        device: torch.device,
        G_mapping: torch.nn.Module,
        G_synthesis: torch.nn.Module,
        D: torch.nn.Module,
        ortho: float = 1,
        **loss_kwargs: Any,
    ) -> None:
        if next(G_mapping.parameters(), None) is None:
            G_mapping = _Fixed(G_mapping)
        super().__init__(device, G_mapping, G_synthesis, D, **loss_kwargs)
        self.ortho = ortho
        self._subspaces = [module for module in G_synthesis.modules() if hasattr(module, "penalty")]

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
        super().accumulate_gradients(phase, real_img, real_c, gen_z, gen_c, sync, gain)
        if phase in ("Gmain", "Gboth") and self.ortho != 0:
            self._regularise(gain)

    def _regularise(self, gain):
        """Adds the penalty's gradient to `grad` by hand, so that data-parallel hooks see one backward pass only."""
        penalties = [p for p in (subspace.penalty() for subspace in self._subspaces) if p is not None]
        if not penalties:
            return
        penalty = torch.stack(penalties).sum()
        training_stats.report("Loss/G/ortho", penalty)
        bases = [subspace.U for subspace in self._subspaces if hasattr(subspace, "U") and subspace.U.requires_grad]
        if not bases:
            return
        for U, grad in zip(bases, torch.autograd.grad(penalty * (self.ortho * gain), bases)):
            U.grad = grad if U.grad is None else U.grad + grad


class CodeLoss(SEGANLoss):
    """SEGANLoss for generators with own coordinates e, which an encoder Q in D reads off the images.

    groups: the generator's `own`. info: weight of Q's loss in G. labels: None, and Q learns e from generated images, as
    in InfoGAN (Chen et al. 2016), with the same weight in D; or `path` of the data, `source` and `count` as in
    `labelled.read`. Then Q learns from mixtures of those real images alone and G, more and more, follows it: from
    generated images it would learn to tell fakes, as long as G ignores e. D must be an `encoder.EncoderDiscriminator`.
    """

    recordable = True

    def __init__(
        self,
        device: torch.device,
        *modules: torch.nn.Module,
        groups: list[dict[str, Any]],
        info: float = 1,
        labels: dict[str, Any] | None = None,
        **loss_kwargs: Any,
    ) -> None:
        super().__init__(device, *modules, **loss_kwargs)
        self.groups, self.info = groups, info
        self.shown = torch.zeros([], device=device)  # images that G made, by which its weight grows
        self.learned = torch.zeros([])  # batches of labelled images, by which Q is examined now and then
        self._labelled = labelled.open_images(**labels, device=device) if labels else None

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
        if phase in ("Dmain", "Dboth") and self._labelled:
            self._learn_labels(real_c, gain)
        super().accumulate_gradients(phase, real_img, real_c, gen_z, gen_c, sync, gain)

    def finished(self, phase: str, part: dict[str, torch.Tensor]) -> None:
        """Examines Q now and then."""
        if phase in ("Dmain", "Dboth") and self._labelled:
            if self._labelled.held_out and int(self.learned) % _EXAMINED == 0:
                self._examine(part["real_c"])
            self.learned += 1

    def _learn_labels(self, real_c, gain):
        """Q learns what was said of some real images."""
        images, codes = self._labelled.draw(len(real_c), _NOISE)
        misses = own.code_loss(self._read(images, real_c), codes, self.groups)
        training_stats.report("Loss/D/labels", misses)
        misses.mean().mul(gain).backward()

    @torch.no_grad()
    def _examine(self, real_c):
        """How well Q names what it has not learned from: Names/… in the statistics."""
        images, codes = self._labelled.kept()
        batch = len(real_c)  # of D's own size: it compares the images of a batch
        rows = torch.arange(-(-len(images) // batch) * batch) % len(images)
        predicted = torch.cat([self._read(images[part], real_c) for part in rows.split(batch)])[: len(images)]
        for name, skill in own.skills(predicted, codes, self.groups).items():
            training_stats.report(f"Names/{name}", skill)

    def _generator_main(self, gen_z, gen_c, sync, gain):
        """As the host's, and Q should read e off the images."""
        img, ws = self.run_G(gen_z, gen_c, sync=sync)
        logits, predicted = self._judge(img, gen_c)
        training_stats.report("Loss/scores/fake", logits)
        training_stats.report("Loss/signs/fake", logits.sign())
        adversarial = self.generator_loss(logits)
        training_stats.report("Loss/G/loss", adversarial)
        misses = own.code_loss(predicted, self._own(ws), self.groups)
        training_stats.report("Loss/G/codes", misses)
        self.shown += len(gen_z) * processes.count()
        weight = self.info * ((self.shown / _RAMP).clamp(max=1) if self._labelled else 1)
        (adversarial[:, 0] + weight * misses).mean().mul(gain).backward()

    def _discriminator_fakes(self, gen_z, gen_c, gain):
        """As the host's; without labels Q learns to read e off the images."""
        if self._labelled:
            return super()._discriminator_fakes(gen_z, gen_c, gain)
        with torch.no_grad():
            img, ws = self.run_G(gen_z, gen_c, sync=False)
        logits, predicted = self._judge(img, gen_c)
        training_stats.report("Loss/scores/fake", logits)
        training_stats.report("Loss/signs/fake", logits.sign())
        loss = self.fake_loss(logits)
        misses = own.code_loss(predicted, self._own(ws), self.groups)
        training_stats.report("Loss/D/codes", misses)
        (loss[:, 0] + self.info * misses).mean().mul(gain).backward()
        return loss.detach()

    def _judge(self, img, c):
        """(logits of the images as they are augmented, what Q reads off them as they are)"""
        if self.augment_pipe is None:
            return self.D(img, c, codes=True)
        return self.run_D(img, c, sync=False), self._read(img, c)

    def _read(self, img, c):
        return self.D(img, c, codes=True)[1]

    def _own(self, ws):
        return ws[:, 0, -sum(own.widths(self.groups)) :].detach()
