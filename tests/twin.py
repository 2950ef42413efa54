"""One of the processes of test_processes.py: trains 20 steps of 16 images, fed the same however many share the work.

Random numbers for a batch are drawn for all of it, with one generator, and each process takes its own rows; they are
those of the images that the sampler gives it. Weights, gradients of the first step and statistics go to a file.
"""

import sys
from pathlib import Path

import torch

from metrics import metric_main, metric_utils
from runs import processes
from training import training_loop

IMAGES = 16  # a step


def feed(rank, count):
    """Makes PyTorch's functions draw for all processes, and return this one's rows"""
    seed = torch.manual_seed
    torch.manual_seed = lambda _number: seed(0)  # metrics have one for each process
    seed(0)
    for name in ("rand", "randn"):
        draw = getattr(torch, name)

        def rows(*size, device=None, _draw=draw):
            size = list(size[0]) if len(size) == 1 and not isinstance(size[0], int) else list(size)
            return _draw([size[0] * count, *size[1:]])[rank::count] if size else _draw(size)

        setattr(torch, name, rows)
        setattr(torch, f"{name}_like", lambda x, _rows=rows: _rows(*x.shape))


class Observed(training_loop.Trainer):
    """The loop, which keeps what it computed"""

    def _run_phase(self, phase, real, gen):
        super()._run_phase(phase, real, gen)
        if phase.name not in self.gradients:
            named = phase.module.named_parameters()
            self.gradients[phase.name] = {name: p.grad.clone() for name, p in named if p.grad is not None}


@metric_main.register_metric
def fails_in_the_second(opts):
    """A metric for which the second process, in the midst of it, has not enough memory"""
    stats = metric_utils.FeatureStats(capture_all=True, max_items=64)
    while not stats.is_full():
        if opts.rank == 1 and stats.num_items >= 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 90.00 GiB")
        stats.append_torch(torch.rand([4, 2]), opts.num_gpus, opts.rank)
    return dict(fails_in_the_second=float(stats.get_all().mean()))


def main(run_dir, data, rank, count, *metrics):
    """Trains, and saves what is compared"""
    torch.set_num_threads(1)
    if count > 1:
        processes.join(f"file://{run_dir}/meeting", rank, count)
    synthesis = dict(channel_base=128, channel_max=8)
    networks = "segan_ext.networks.SEGANGenerator", "training.networks.Discriminator"
    adam = dict(class_name="torch.optim.Adam", lr=0.002, betas=[0, 0.99], eps=1e-8)
    options = dict(
        run_dir=run_dir,
        training_set_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=data, use_labels=False),
        G_kwargs=dict(class_name=networks[0], mode=2, z_dim=8, w_dim=8, synthesis_kwargs=synthesis),
        D_kwargs=dict(class_name=networks[1], **synthesis),
        **dict.fromkeys(("G_opt_kwargs", "D_opt_kwargs"), adam),
        loss_kwargs=dict(class_name="segan_ext.loss.SEGANLoss"),
        augment_kwargs=dict(class_name="training.augment.AugmentPipe", xflip=1, xfrac=1, contrast=1, hue=1, noise=1),
        metrics=metrics or ["fid50k_full", "kid50k_full"],
        metric_kwargs=dict(detectors=["vgg-hed"], num_gen=64, cache=False, G_kwargs=dict(noise_mode="const")),
        **dict(num_gpus=count, rank=rank, batch_size=IMAGES, batch_gpu=IMAGES // count, device="cpu"),
        **dict(augment_p=0.5, ada_target=0.1, ada_kimg=1, total_kimg=20 * IMAGES / 1000, kimg_per_tick=1),
    )
    defaults = training_loop.training_loop.__defaults__
    names = training_loop.training_loop.__code__.co_varnames[: len(defaults)]
    trainer = Observed(training_loop.dnnlib.EasyDict(dict(zip(names, defaults)) | options))
    trainer.gradients = {}
    feed(rank, count)
    trainer.run()
    if rank == 0:
        saved = dict(
            gradients=trainer.gradients,
            G_ema=dict(trainer.G_ema.named_parameters()) | dict(trainer.G_ema.named_buffers()),
            p=float(trainer.augment_pipe.p),
            stats={
                name: trainer.stats[name] for name in trainer.stats.names() if name.startswith(("Loss", "Progress"))
            },
            pl_mean=float(trainer.loss.pl_mean),
        )
        torch.save(saved, Path(run_dir, "twin.pt"))
    processes.leave()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
