"""Options that the plugin adds to those of the host."""

from collections.abc import Callable

import click

from segan_ext import host


def activate(_context: click.Context, option: click.Option, directory: str | None) -> str | None:
    """Callback of an option --host: activates that host. click.UsageError if it is none."""
    if directory is not None and not directory.strip():
        raise click.UsageError(f"{option.opts[0]}: is empty; is a variable of the shell not set?")
    try:
        host.activate(directory)
    except ValueError as error:
        raise click.UsageError(f"{option.opts[0]}: {error}") from error
    return directory


def host_option(command: Callable) -> Callable:
    """Decorator: --host, in force before any other option is looked at."""
    said = "Reference checkout to use instead of the bundled host  [default: SEGAN_HOST]"
    return click.option("--host", metavar="DIR", is_eager=True, expose_value=False, callback=activate, help=said)(
        command
    )
