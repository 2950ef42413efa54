"""SEGAN's own metrics, beside the host's; importing this registers them."""

from segan_ext import host

host.activate()

from segan_ext.metrics import meaning, path_length, purity, separability, subspaces  # noqa: E402, F401 (registered)
