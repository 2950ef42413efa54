"""StyleGAN2's losses: non-saturating logistic loss, R1 and path length regularisation, style mixing."""

import math

import torch
from torch.nn.functional import softplus

from runs import processes
from torch_utils import misc, training_stats
from torch_utils.ops import conv2d_gradfix


class Loss:
    """What a training run makes small: called once a phase and part of a batch.

    recordable: True if every phase does the same with every batch, on the device alone, whatever `sync` is: a CUDA
    graph may then repeat it. It counts for the very class that says it: a subclass may add what Python decides.
    """

    recordable = False

    def open_data(self, training_set: torch.utils.data.Dataset, run_dir: str) -> None:
        """Called once, before a run begins or goes on, for losses that need more of its data than batches."""

    def inputs(self, phase: str, part: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors that `accumulate_gradients` takes for a part of a batch: those of the loop, and any others."""
        return part

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
        """Adds the gradients of one phase to the parameters' `grad`. To be overridden."""
        raise NotImplementedError

    def finished(self, phase: str, part: dict[str, torch.Tensor]) -> None:
        """Called after a phase has run on a part of a batch, as `accumulate_gradients` got it, recorded or not."""


class StyleGAN2Loss(Loss):
    """Losses of Karras et al. 2020, with the regularisers apart from the main losses ("lazily").

    style_mixing_prob: share of images whose finer layers take the w of another z. r1_gamma: weight of R1 (Mescheder et
    al. 2018). pl_weight, pl_decay: weight of the path length penalty, and how fast its target follows the mean;
    pl_batch_shrink: it runs on a batch that much smaller.
    """

    recordable = True

    def __init__(
        self,
        device: torch.device | str,
        G_mapping: torch.nn.Module,
        G_synthesis: torch.nn.Module,
        D: torch.nn.Module,
        augment_pipe: torch.nn.Module | None = None,
        style_mixing_prob: float = 0.9,
        r1_gamma: float = 10,
        pl_batch_shrink: int = 2,
        pl_decay: float = 0.01,
        pl_weight: float = 2,
    ) -> None:
        self.device = device
        self.G_mapping, self.G_synthesis, self.D = G_mapping, G_synthesis, D
        self.augment_pipe = augment_pipe
        self.style_mixing_prob, self.r1_gamma = style_mixing_prob, r1_gamma
        self.pl_batch_shrink, self.pl_decay, self.pl_weight = pl_batch_shrink, pl_decay, pl_weight
        self.pl_mean = torch.tensor(0.0, device=device)  # moving average of the path lengths

    def run_G(self, z: torch.Tensor, c: torch.Tensor, sync: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """z [N, z_dim], c → images, ws [N, num_ws, w_dim]"""
        with misc.ddp_sync(self.G_mapping, sync):
            ws = self.G_mapping(z, c)
            if self.style_mixing_prob > 0:
                ws = self._mix_styles(ws, z, c)
        with misc.ddp_sync(self.G_synthesis, sync):
            return self.G_synthesis(ws), ws

    def _mix_styles(self, ws, z, c):
        """From a random layer on, ws of other latents; with probability 1 − style_mixing_prob, ws as they are."""
        num_ws = ws.shape[1]
        crossover = torch.randint(1, num_ws, [], device=ws.device)
        mixes = torch.rand([], device=ws.device) < self.style_mixing_prob
        crossover = torch.where(mixes, crossover, num_ws)
        other = self.G_mapping(torch.randn_like(z), c, skip_w_avg_update=True)
        from_other = torch.arange(num_ws, device=ws.device) >= crossover
        return torch.where(from_other[None, :, None], other, ws)

    def run_D(self, img: torch.Tensor, c: torch.Tensor, sync: bool) -> torch.Tensor:
        """Augmented images → logits [N, 1]"""
        if self.augment_pipe is not None:
            img = self.augment_pipe(img)
        with misc.ddp_sync(self.D, sync):
            return self.D(img, c)

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
        """Adds the gradients of `phase` to the parameters' `grad`.

        phase: Gmain, Greg, Gboth, Dmain, Dreg or Dboth. real_img [N, C, H, W] in [−1, 1], real_c [N, c_dim], gen_z
        [N, z_dim], gen_c [N, c_dim]. sync: whether processes exchange gradients. gain: factor of the gradients.
        """
        if phase not in ("Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth"):
            raise ValueError(f"unknown phase {phase!r}")
        network, part = phase[0], phase[1:]
        main = part in ("main", "both")
        if network == "G":
            regularise = part in ("reg", "both") and self.pl_weight != 0
            if main:
                self._generator_main(gen_z, gen_c, sync and not regularise, gain)
            if regularise:
                self._path_length(gen_z, gen_c, sync, gain)
        else:
            regularise = part in ("reg", "both") and self.r1_gamma != 0
            fake_loss = self._discriminator_fakes(gen_z, gen_c, gain) if main else None
            if main or regularise:
                self._discriminator_reals(real_img, real_c, sync, gain, fake_loss, regularise)

    def generator_loss(self, logits: torch.Tensor) -> torch.Tensor:
        """G's loss [N, 1] for D's logits of generated images [N, 1] (Goodfellow et al. 2014, non-saturating)"""
        return softplus(-logits)

    def fake_loss(self, logits: torch.Tensor) -> torch.Tensor:
        """D's loss [N, 1] for its logits of generated images [N, 1]"""
        return softplus(logits)

    def real_loss(self, logits: torch.Tensor) -> torch.Tensor:
        """D's loss [N, 1] for its logits of real images [N, 1]"""
        return softplus(-logits)

    def _generator_main(self, gen_z, gen_c, sync, gain):
        """G wants its images taken for real ones."""
        img, _ws = self.run_G(gen_z, gen_c, sync=sync)
        logits = self.run_D(img, gen_c, sync=False)
        report_scores("fake", logits)
        loss = self.generator_loss(logits)
        training_stats.report("Loss/G/loss", loss)
        loss.mean().mul(gain).backward()

    def _path_length(self, gen_z, gen_c, sync, gain):
        """A step of fixed length in w should change the image by a fixed length."""
        batch = max(gen_z.shape[0] // self.pl_batch_shrink, 1)
        img, ws = self.run_G(gen_z[:batch], gen_c[:batch], sync=sync)
        noise = torch.randn_like(img) / math.sqrt(img.shape[2] * img.shape[3])
        with conv2d_gradfix.no_weight_gradients():
            (grads,) = torch.autograd.grad((img * noise).sum(), ws, create_graph=True)
        lengths = grads.square().sum(dim=2).mean(dim=1).sqrt()  # [batch]
        mean = processes.mean(lengths.mean())
        target = self.pl_mean.lerp(mean, self.pl_decay)  # the reference lets gradients through it
        self.pl_mean.copy_(torch.where(target.isfinite(), target, self.pl_mean).detach())  # NaN would stay for ever
        penalty = (lengths - target).square()
        training_stats.report("Loss/pl_penalty", penalty)
        loss = penalty * self.pl_weight
        training_stats.report("Loss/G/reg", loss)
        # Adding 0·img lets data-parallel hooks see every parameter in this backward pass.
        (img[:, 0, 0, 0] * 0 + loss).mean().mul(gain).backward()

    def _discriminator_fakes(self, gen_z, gen_c, gain):
        """D wants a low score for generated images; returns the loss [N, 1]."""
        with torch.no_grad():
            img, _ws = self.run_G(gen_z, gen_c, sync=False)
        logits = self.run_D(img, gen_c, sync=False)  # the reals that follow are the ones to synchronise
        report_scores("fake", logits)
        loss = self.fake_loss(logits)
        loss.mean().mul(gain).backward()
        return loss.detach()

    def _discriminator_reals(self, real_img, real_c, sync, gain, fake_loss, regularise):
        """D wants a high score for real images (unless fake_loss is None), and a flat one around them (R1)."""
        img = real_img.detach().requires_grad_(regularise)
        logits = self.run_D(img, real_c, sync=sync)
        report_scores("real", logits)
        loss = 0
        if fake_loss is not None:
            loss = self.real_loss(logits)
            training_stats.report("Loss/D/loss", fake_loss + loss)
        if regularise:
            with conv2d_gradfix.no_weight_gradients():
                (grads,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
            penalty = grads.square().sum(dim=[1, 2, 3])  # [N]
            reg = penalty * (self.r1_gamma / 2)
            training_stats.report("Loss/r1_penalty", penalty)
            training_stats.report("Loss/D/reg", reg)
            loss = loss + logits * 0 + reg[:, None]  # 0·logits: as above
        loss.mean().mul(gain).backward()


def report_scores(kind: str, logits: torch.Tensor) -> None:
    """D's scores of images of a kind, real or fake, in the statistics"""
    training_stats.report(f"Loss/scores/{kind}", logits)
    training_stats.report(f"Loss/signs/{kind}", logits.sign())
