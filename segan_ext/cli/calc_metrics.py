"""`segan calc_metrics`: the host's command, with the plugin's metrics registered."""

import segan_ext.metrics  # noqa: F401 (registers them)
from calc_metrics import main as calc_metrics  # noqa: F401
