"""How a run is described, started, continued: options → recipe → launch; resume goes on with one.

Every command imports this before PyTorch, and so before OpenMP, which takes up its settings when it is loaded.
"""

import os

# GNU's OpenMP lets threads that wait spin for milliseconds, in which a thread that they wait for gets no core where
# others are busy too. A thousand turns bridge the gaps of a training step as well (benchmarks/speed.py).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
