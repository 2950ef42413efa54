"""The tools: `python -m segan_ext COMMAND`."""

import click

from segan_ext import host

host.activate()

from segan_ext.avatars import avatars  # noqa: E402 (the host has to be on the path)
from segan_ext.explore import explore, samples  # noqa: E402


@click.group()
def main():
    """Tools around SEGAN; training is train_segan.py."""


main.add_command(avatars)
main.add_command(explore)
main.add_command(samples)
