"""Directions found in a trained generator, one finder a module, listed in FINDERS."""

from segan_ext import host

host.activate()
