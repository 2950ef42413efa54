"""The tools: `python -m segan_ext COMMAND`."""

import importlib

import click

from segan_ext import host
from segan_ext.cli.options import host_option

# Each is imported only when it is asked for: drawing avatars needs no PyTorch.
COMMANDS = {
    "avatars": "segan_ext.cli.avatars",
    "calc_metrics": "segan_ext.cli.calc_metrics",
    "discover": "segan_ext.cli.discover",
    "edit": "segan_ext.cli.edit",
    "explore": "segan_ext.cli.explore",
    "export": "segan_ext.cli.export",
    "project": "segan_ext.cli.project",
    "report": "segan_ext.cli.report",
    "run": "segan_ext.cli.run",
    "samples": "segan_ext.cli.explore",
    "semantics": "segan_ext.cli.semantics",
    "web": "segan_ext.cli.web",
}
_ON_ANY_HOST = {"avatars", "run"}


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
        host.add_tools() if name in _ON_ANY_HOST else host.activate()
        return getattr(importlib.import_module(COMMANDS[name]), name)


@click.group(cls=_Tools)
@host_option
def main():
    """Tools around SEGAN; training is train_segan.py."""
