"""Trains StyleGAN2-ADA: `python train.py --outdir=training-runs --data=images.zip`."""

import click

from runs import distributed, launch, recipe, resume
from runs.options import OneOf, command, train_options


@command()
@click.option("--cfg", type=OneOf(["auto", *recipe.BASE_CONFIGS]), help="Base configuration  [default: auto]")
@train_options
def main(cfg, **options):
    """Train a GAN with StyleGAN2 and adaptive discriminator augmentation (ADA).

    The data set is a folder or a zip of square pictures of equal size; dataset_tool.py makes one of other pictures.
    """
    options = dict(options, cfg=cfg)
    outdir, dry_run = options["outdir"] or "training-runs", options.pop("dry_run")
    if resume.continued(options, outdir, dry_run):
        return
    cfg = options["cfg"] = cfg or "auto"
    if options["data"] is None:
        raise click.UsageError("--data: name the folder or the zip of images to train on")
    launch.check_outdir(outdir, options["data"])
    device = launch.choose_device(options["device"])
    data = launch.open_training_set(recipe.dataset_kwargs(options))
    gpus = launch.num_processes(options, device)
    config = recipe.auto_config(gpus, data.resolution) if cfg == "auto" else recipe.BASE_CONFIGS[cfg]
    description, args = recipe.build(options, cfg, config, data, device, gpus, launch.cores_of_each(gpus))
    networks = launch.adopt_networks(args, data)
    launch.start(outdir, description, args, options, dry_run, data, networks)


if __name__ == "__main__":
    distributed.run(main)
