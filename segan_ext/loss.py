"""The host's loss plus the subspaces' regulariser."""

import math
from typing import Any

import torch

from runs import processes
from segan_ext import labelled, own
from torch_utils import misc, training_stats
from training.loss import StyleGAN2Loss, report_scores

_RAMP = 10_000  # images over which G comes to follow an encoder that learns meanwhile
_EXAMINED = 25  # batches between examinations
_UNNAMED = 0.05  # weight of Q's loss of what is unnamed
_FORGETS = 0.05  # what a batch counts in the moving averages
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
    in InfoGAN (Chen et al. 2016), with the same weight in D; or `seed` of what is drawn from the labelled images of the
    run (`labelled.of_run`; `source` and `count` for one of an older version). Then Q learns names from mixtures of real
    images alone: from generated images it would learn to tell fakes, as long as G ignores e. What is unnamed it learns
    as without labels, with a small weight, so that all of it shows. And G learns names twice:

    - D judges images together with codes, generated ones with their e, real ones with codes drawn from what Q reads off
      them. So G has to match the images of each name with all their variety (as S3GAN does, Lucic et al. 2019).
    - G follows Q itself, more and more at first, and only as far as its images are read worse than real ones are: what
      is read best of all is the most typical image of each name, again and again.

    D must be an `encoder.EncoderDiscriminator`, with a projection for labels.
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
        self.drawn = torch.zeros([], dtype=torch.int64)  # the number of the next such batch
        self._labels, self._labelled = labels, None
        self.real_moments = own.first_moments(groups).to(device)  # moving averages of what Q reads off real images
        self.misses = own.doubts(self.real_moments, groups)  # and of how far it is off G's
        self._batch_moments, self._batch_misses = self.real_moments.clone(), self.misses.clone()
        self._centre = torch.tensor(own.centre(groups), device=device)
        of_names = [float(not group.get("unnamed")) for group in own.of_each_code(groups)]
        self._of_names = torch.tensor(of_names, device=device)  # [codes], 1 or 0
        self._projects = getattr(getattr(self.D, "b4", None), "projection", False)  # runs of before have none
        self._is_named = [i for i, group in enumerate(groups) if not group.get("unnamed")]
        unnamed = [_UNNAMED * bool(group.get("unnamed")) for group in groups]
        self._from_fakes = torch.tensor(unnamed if labels else [float(info)] * len(groups), device=device)  # [groups]

    def open_data(self, training_set: torch.utils.data.Dataset, run_dir: str) -> None:
        """Opens the labelled images of the run. ValueError that names --resume, where its labels cannot be read."""
        if self._labels is None:
            return
        kept = {name: self._labels[name] for name in ("source", "count") if name in self._labels}
        try:
            first = processes.rank() == 0
            groups = own.named(self.groups)
            names, rows = processes.told(labelled.of_run(run_dir, training_set, groups, **kept) if first else None)
            codes = own.of_all(labelled.codes(rows, groups), self.groups)
            seed = self._labels.get("seed", 0)
            self._labelled = labelled.LabelledImages(training_set, names, codes, self.groups, seed)
        except (OSError, ValueError) as error:
            raise ValueError(f"--resume: {run_dir} cannot be continued ({error})") from error

    def inputs(self, phase: str, part: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Those of the loop and, for D, pairs of labelled images with their codes."""
        if self._labelled is None or phase not in ("Dmain", "Dboth"):
            return part
        images, codes = self._labelled.draw(int(self.drawn), len(part["real_c"]))
        self.drawn += 1
        device = part["real_c"].device
        return part | dict(pairs=images.to(device, non_blocking=True), codes=codes.to(device, non_blocking=True))

    def accumulate_gradients(
        self,
        phase: str,
        real_img: torch.Tensor,
        real_c: torch.Tensor,
        gen_z: torch.Tensor,
        gen_c: torch.Tensor,
        sync: bool,
        gain: float,
        pairs: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
    ) -> None:
        """As the host's; see there. pairs: uint8 [N, 2, C, H, W], codes: [N, 2, codes], of labelled images, for D."""
        if pairs is not None:
            self._learn_labels(pairs, codes, real_c, gain)
        super().accumulate_gradients(phase, real_img, real_c, gen_z, gen_c, sync, gain)

    def finished(self, phase: str, part: dict[str, torch.Tensor]) -> None:
        """Takes the batch into the moving averages, and examines Q now and then."""
        if self._labelled is None:
            return
        if phase in ("Gmain", "Gboth"):
            self.misses.lerp_(processes.mean(self._batch_misses), _FORGETS)
        elif phase in ("Dmain", "Dboth"):
            self.real_moments.lerp_(processes.mean(self._batch_moments), _FORGETS)
            if self._labelled.num_held_out and int(self.learned) % _EXAMINED == 0:
                self._examine(part["real_c"])
            self.learned += 1

    def _learn_labels(self, pairs, codes, real_c, gain):
        """Q learns what was said of some real images."""
        images, codes = labelled.mixed(pairs, codes, _NOISE)
        misses = own.code_losses(self._read(images, real_c), codes, self.groups).sum(dim=1)
        training_stats.report("Loss/D/labels", misses)
        misses.mean().mul(gain).backward()

    @torch.no_grad()
    def _examine(self, real_c):
        """How well Q names what it has not learned from: Names/… in the statistics."""
        count, batch = self._labelled.num_held_out, len(real_c)  # of D's own size: it compares the images of a batch
        places, predicted = torch.arange(-(-count // batch) * batch) % count, []
        for part in places.split(batch):
            images = self._labelled.read(part.tolist()).to(real_c.device).float() / 127.5 - 1
            predicted.append(self._read(images, real_c))
        codes = self._labelled.codes[:count].to(real_c.device)
        for name, skill in own.skills(torch.cat(predicted)[:count], codes, self.groups).items():
            training_stats.report(f"Names/{name}", skill)

    def _generator_main(self, gen_z, gen_c, sync, gain):
        """As the host's, and Q should read e off the images."""
        img, ws = self.run_G(gen_z, gen_c, sync=sync)
        e = self._own(ws)
        logits, read = self._judge(img, gen_c, e)
        report_scores("fake", logits)
        adversarial = self.generator_loss(logits)
        training_stats.report("Loss/G/loss", adversarial)
        misses = own.code_losses(read, e, self.groups)
        training_stats.report("Loss/G/codes", misses[:, self._is_named].sum(dim=1))
        self.shown += len(gen_z) * processes.count()
        self._batch_misses.copy_(misses.detach().mean(dim=0))
        loss = adversarial[:, 0] + (misses * self._pull()).sum(dim=1)
        loss.mean().mul(gain).backward()

    def _pull(self):
        """How much G follows Q in each group [groups]: names from not at all, where its images are read as well as real
        ones, to --info, where they are read twice as badly."""
        if not self._labels:
            return self._from_fakes
        worse = (self.misses / own.doubts(self.real_moments, self.groups) - 1).clamp(0, 1) if self._projects else 1
        ramp = (self.shown / _RAMP).clamp(max=1)
        return torch.where(self._from_fakes > 0, self._from_fakes, self.info * ramp * worse)

    def _discriminator_fakes(self, gen_z, gen_c, gain):
        """As the host's; what Q does not learn from labels it learns to read off the images."""
        with torch.no_grad():
            img, ws = self.run_G(gen_z, gen_c, sync=False)
        e = self._own(ws)
        logits, read = self._judge(img, gen_c, e)
        report_scores("fake", logits)
        loss = self.fake_loss(logits)
        misses = (own.code_losses(read, e, self.groups) * self._from_fakes).sum(dim=1)
        training_stats.report("Loss/D/codes", misses)  # times its weight
        (loss[:, 0] + misses).mean().mul(gain).backward()
        return loss.detach()

    def run_D(self, img: torch.Tensor, c: torch.Tensor, sync: bool) -> torch.Tensor:
        """Logits [N, 1] of real images, augmented, which are judged together with what Q reads off them."""
        if not self._projects:
            return super().run_D(img, c, sync)
        with misc.ddp_sync(self.D, sync):
            return self._judge(img, c)[0]

    def _judge(self, img, c, e=None):
        """(logits of augmented images together with their codes e, what Q reads off them as they are)

        e: None for real images, whose codes are drawn.
        """
        logits, read, projection = self.D(img if self.augment_pipe is None else self.augment_pipe(img), c, codes=True)
        if self.augment_pipe is not None:
            with torch.set_grad_enabled(e is not None and torch.is_grad_enabled()):
                read = self._read(img, c)
        if not self._projects:
            return logits, read
        if e is None:
            read = read.detach()
            self._batch_moments.copy_(own.moments(read, self.groups))
            e = own.drawn(read, self.real_moments, self.groups)
        match = projection * (e - self._centre) * self._of_names
        return logits + match.sum(dim=1, keepdim=True) / math.sqrt(len(self._is_named)), read

    def _read(self, img, c):
        return self.D(img, c, codes=True)[1]

    def _own(self, ws):
        return ws[:, 0, -sum(own.widths(self.groups)) :].detach()
