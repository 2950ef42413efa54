import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "stylegan2_ada"), str(ROOT / "tests")]


torch.set_num_threads(1)  # the tests' tensors are so small that a second thread would only wait


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
