"""One report over many runs: reading them, the table, the page."""

from segan_ext import host

host.activate()
