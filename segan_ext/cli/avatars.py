"""`segan avatars`."""

import time

import click

from runs.options import SEED, OneOf, OutputFile, command, refuse_given, usage_errors
from runs.outputs import check_file
from segan_ext.data.avatars import make_avatars, mask_path
from segan_ext.data.drawing import CLASSES, list_styles, style_licence
from segan_ext.data.recipes import RECIPES


@command("avatars")
@click.option("--recipe", type=OneOf(list(RECIPES)), help="A set that results are compared on (docs/data.md).")
@click.option("--style", default="toon-head", show_default=True, help="DiceBear style.")
@click.option("--count", type=click.IntRange(1), default=20000, show_default=True, help="Number of images.")
@click.option("--resolution", type=click.IntRange(1), help="Width and height in pixels; by default the recipe's or 64.")
@click.option("--dest", type=OutputFile(".zip"), default="avatars.zip", show_default=True, help="Archive to write.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Picks the set.")
@click.option("--label", metavar="FACTOR", help="Factor that becomes the class label, such as hairColor.")
@click.option("--masks", is_flag=True, help="Also write <dest>-masks.zip, a class index a pixel.")
@click.option("--zoom", type=float, default=1, show_default=True, help="Enlarge, with the eyes in the middle.")
@click.option("--jitter", type=float, default=1, show_default=True, help="How much tilt, size and place vary, 0 to 1.")
@click.option("--only", multiple=True, metavar="FACTOR=VALUE,…", help="Limit a factor to some values; may be repeated.")
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one a core.")
@click.option("--overwrite", is_flag=True, help="Replace an existing archive.")
@click.option("--list-styles", "show_styles", is_flag=True, help="Print all styles with licence and author.")
@click.pass_context
def avatars(
    ctx, recipe, style, count, resolution, dest, seed, label, masks, zoom, jitter, only, workers, overwrite, show_styles
) -> None:
    """Draw a data set of avatars with known factors, class labels and masks."""
    if show_styles:
        refuse_given(
            [param.opts[0] for param in ctx.command.params if param.name != "show_styles"], "with --list-styles"
        )
        for name in list_styles():
            terms = style_licence(name)
            click.echo(f"{name:20} {terms['licence']:38} {terms['creator']}")
        return
    with usage_errors("--dest"):
        check_file(dest)
    start = time.monotonic()
    if recipe:
        for name in ("style", "zoom", "jitter", "only"):
            if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise ValueError(f"--{name}: --recipe={recipe} sets it; leave one of the two out")
        settings = RECIPES[recipe]
        style = settings["style"]
    else:
        only = {name: values.split(",") for name, _, values in (text.partition("=") for text in only)}
        settings = dict(style=style, zoom=zoom, jitter=jitter, only=only)
    settings = dict(resolution=64) | settings | (dict(resolution=resolution) if resolution else {})
    path = make_avatars(
        dest, count, seed=seed, label=label, masks=masks, workers=workers, overwrite=overwrite, **settings
    )
    resolution = settings["resolution"]
    click.echo(f"{path}: {count} images, {resolution}x{resolution}, {count / (time.monotonic() - start):.0f} images/s")
    if masks:
        click.echo(f"{mask_path(path)}: one class a pixel: {', '.join(CLASSES)}")
    terms = style_licence(style)
    click.echo(f"{terms['title']} by {terms['creator']}, {terms['licence']} ({terms['licence_url']}), with DiceBear")
