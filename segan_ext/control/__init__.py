"""Control: addresses, edits and their files, sweeps over dimensions, traversals."""

from segan_ext import host

host.activate()
