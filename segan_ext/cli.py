"""The tools: `python -m segan_ext COMMAND`."""

import importlib

import click

from segan_ext import host

# Each is imported only when it is asked for: drawing avatars needs no PyTorch.
COMMANDS = {
    "avatars": "segan_ext.avatars",
    "calc_metrics": "segan_ext.metrics",
    "discover": "segan_ext.discover",
    "edit": "segan_ext.edit",
    "explore": "segan_ext.explore",
    "export": "segan_ext.export",
    "report": "segan_ext.report",
    "run": "segan_ext.run",
    "samples": "segan_ext.explore",
    "semantics": "segan_ext.semantics.commands",
    "web": "segan_ext.web.app",
}
_ON_ANY_HOST = {"avatars", "run"}


def activate(_context, option, directory):
    """Callback of an option --host: activates that host. click.UsageError if it is none."""
    try:
        host.activate(directory)
    except ValueError as error:
        raise click.UsageError(f"{option.opts[0]}: {error}") from error
    return directory


def host_option(command):
    """Decorator: --host, in force before any other option is looked at."""
    said = "Reference checkout to use instead of the bundled host  [default: SEGAN_HOST]"
    return click.option("--host", metavar="DIR", is_eager=True, expose_value=False, callback=activate, help=said)(
        command
    )


class _Tools(click.Group):
    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        if host.is_foreign() and name not in _ON_ANY_HOST:
            raise click.UsageError(
                f"--host: {name} works on the bundled host, which opens the same pickles; leave it and SEGAN_HOST out"
            )
        return getattr(importlib.import_module(COMMANDS[name]), name)


@click.group(cls=_Tools)
@host_option
def main():
    """Tools around SEGAN; training is train_segan.py."""
