"""Trains a SEGAN: `python train_segan.py --cfg=segan-mode2 --data=images.zip`."""

import dataclasses
import os

import click

from segan_ext import host
from segan_ext.cli.options import host_option
from segan_ext.presets import PRESETS, for_device, recipe

from runs.options import OneOf, command, train_options  # isort: skip (on the path since presets was imported)
from segan_ext.training import (
    MODES,
    add_method,
    begin_with_new_names,
    check_options_for_foreign_host,
    default_data,
)


@command()
@click.option(
    "--cfg",
    type=OneOf([*PRESETS, "auto", *recipe.BASE_CONFIGS]),
    help="Method and recipe; the host's own are mode 0 unless --mode says otherwise  [default: segan-mode2; with "
    "--labels segan-named]",
)
@click.option("--mode", type=OneOf(MODES), help="0: none, 1 feature, 2 style, 3 importance subspaces; eigen, named")
@click.option(
    "--subspace-dim", type=click.IntRange(1), help="Dimensions of a subspace (modes 1 and 2; mode 2 in residual form)"
)
@click.option("--subspace-form", type=OneOf(["full", "residual", "published"]), help="Form of mode 2")
@click.option("--train", type=OneOf(["all", "subspace"]), help="What of G to train  [default: all]")
@click.option(
    "--own-dim",
    type=click.IntRange(1, 4096),
    help="Own coordinates of a block, eigen (4), eigengan (6); without a name, named (32)",
)
@click.option("--map", type=click.IntRange(0, 100), help="Layers of the mapping network; 0: none, --cfg=traditional")
@click.option("--mixing", type=click.FloatRange(0, 1), help="Share of training images that mix two ws")
@click.option("--adv", type=OneOf(["logistic", "hinge", "wgan-gp"]), help="Loss of eigengan, stylegan1, traditional")
@click.option(
    "--grow-kimg",
    type=click.FloatRange(0),
    help="Grow from 8×8, fading in and standing for so many kimg each, stylegan1",
)
@click.option("--prior", type=OneOf(["uniform", "gaussian"]), help="What they follow  [default: uniform]")
@click.option("--bottleneck", type=bool, help="Let w into the first block alone, eigen and named  [default: true]")
@click.option(
    "--info",
    type=click.FloatRange(0),
    help="Weight of the encoder that reads own coordinates off images; 0: none, eigen",
)
@click.option("--labels", metavar="CSV|factors", help="Labels of some images, mode named; factors: the data's own")
@click.option("--num-labels", type=click.IntRange(1), help="Use the first so many labelled images  [default: all]")
@click.option(
    "--ortho", type=click.FloatRange(0), help="Weight of the orthonormality penalty  [default: 1; published form: 0]"
)
@host_option
@train_options
def main(cfg, **options):
    """Train a StyleGAN2 generator with linear subspaces in its style layers.

    For dimensions that mean something label some images and take --cfg=segan-named: with 200 labels a control moves its
    own attribute with 0.75 of its effect on the average, where the best found without has 0.2 (docs/results.md).

    Without --data it draws and uses the built-in avatars. --resume=RUN_DIR continues a run exactly; --resume=PKL starts
    from trained networks, whose images a subspace leaves as they are at first. With --labels of something new it gives
    trained networks more names.
    """
    options = dict(options, cfg=cfg)
    outdir, dry_run = options["outdir"] or "training-runs", options.pop("dry_run")
    if host.is_foreign():
        check_options_for_foreign_host(options)
    else:
        import segan_ext.metrics  # noqa: F401 (registers them)
        from runs import resume

        begin_with_new_names(options)
        if resume.continued(options, outdir, dry_run):
            return
    from runs import launch  # the modules of a host can be imported now that it is chosen

    usual = "segan-mode2" if options["labels"] is None or options["mode"] is not None else "segan-named"
    cfg = options["cfg"] = options["cfg"] or usual
    device = launch.choose_device(options["device"])
    options["data"] = options["data"] or default_data()
    launch.check_outdir(outdir, options["data"])
    data = launch.open_training_set(recipe.dataset_kwargs(options))
    gpus = launch.num_processes(options, device)
    config = PRESETS.get(cfg) or recipe.BASE_CONFIGS.get(cfg) or recipe.auto_config(gpus, data.resolution)
    if options["map"] is not None:
        config = dataclasses.replace(config, map=options["map"])
    if options["mixing"] is not None:
        config = dataclasses.replace(config, style_mixing_prob=options["mixing"])
    config, cores = for_device(config, device), launch.cores_of_each(gpus)
    description, args = recipe.build(options, cfg, config, data, device, gpus, cores)
    networks = launch.adopt_networks(args, data)
    kept = add_method(args, options, config, networks, data)
    if options["train"] == "subspace":
        networks["G"] = networks["G_ema"]  # what stays as it is should be the average, not the last step
    launch.start(outdir, description, args, options, dry_run, data, networks, kept)


def run() -> None:
    """The command; where torchrun has started several processes, the first one calls it."""
    if "WORLD_SIZE" not in os.environ:
        return main()
    from runs import distributed  # slow to import

    distributed.run(main)


if __name__ == "__main__":
    run()
