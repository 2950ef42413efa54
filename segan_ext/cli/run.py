"""Runs the host's own scripts; on a reference checkout with what current PyTorch needs mended."""

import click

from runs.options import command
from segan_ext import host

_OPTIONS_OF_PICKLES = ("--network", "--resume", "--source")


@command(context_settings=dict(ignore_unknown_options=True, allow_interspersed_args=False))
@click.option("--trust-pickle", is_flag=True, help="A checkout's loader runs the code in pickles; let it")
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(trust_pickle, script, args):
    """Run a script of the host: run generate.py --network=… --seeds=0-5 --outdir=out"""
    names_pickle = any(arg.startswith(_OPTIONS_OF_PICKLES) for arg in args) and script != "dataset_tool.py"
    if host.is_foreign() and names_pickle and not trust_pickle:
        raise click.UsageError(
            f"--trust-pickle: the checkout's own loader runs the code in pickles; if you trust this one, put "
            f"--trust-pickle before {script}"
        )
    try:
        host.run_script(script, args)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
