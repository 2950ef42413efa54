"""The page: a generator's controls with pictures, and the studio to name sliders, paint, and train extractors."""

import os

# Before OpenMP starts: threads that spin while they wait would take the time of a browser on the same machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from segan_ext import host  # noqa: E402

host.activate()
