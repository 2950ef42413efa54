"""The tools: `python -m segan_ext COMMAND`."""

import importlib

import click

from segan_ext import host

host.activate()

# Each is imported only when it is asked for: drawing avatars needs no PyTorch.
COMMANDS = {
    "avatars": "segan_ext.avatars",
    "explore": "segan_ext.explore",
    "export": "segan_ext.export",
    "samples": "segan_ext.explore",
}


class _Tools(click.Group):
    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        return getattr(importlib.import_module(COMMANDS[name]), name) if name in COMMANDS else None


@click.group(cls=_Tools)
def main():
    """Tools around SEGAN; training is train_segan.py."""
