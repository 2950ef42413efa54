"""The host's loss plus the subspaces' regulariser."""

from typing import Any

import torch

from torch_utils import training_stats
from training.loss import StyleGAN2Loss


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
