"""What commit e37c618 wrote (tests/e37c618) opens and goes on, and its edits replay to the same bytes."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import legacy
from helpers import newest, run

OLD = Path(__file__).parent / "e37c618"
# Where sums are rounded as there: MKL takes other paths on Intel's processors
AMD = Path("/proc/cpuinfo").exists() and "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
EXACT = torch.__version__ == "2.13.0+cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512" and AMD


def assert_same_picture(path, expected):
    found, expected = (np.asarray(PIL.Image.open(each), int) for each in (path, expected))
    assert np.abs(found - expected).max() <= (0 if EXACT else 1), path


def test_a_run_goes_on(tmp_path):
    """As near as the kernels' rounding, which has changed since, lets a thousand images come"""
    shutil.copytree(OLD / "run", tmp_path / "run")
    shutil.copy(OLD / "discs.zip", tmp_path)
    run(str(Path(__file__).parents[1] / "train_segan.py"), "--resume=run", "--kimg=2", cwd=tmp_path)
    found = legacy.load_generator(str(newest(tmp_path / "run"))).state_dict()
    expected = legacy.load_generator(str(OLD / "continued.safetensors")).state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mode", [1, 3])
def test_snapshots_open(mode, tmp_path):
    run("-m segan_ext samples", f"--network={OLD / f'mode{mode}.pkl'}", "--grid=2x2", f"--dest={tmp_path / 'x.png'}")
    assert_same_picture(tmp_path / "x.png", OLD / f"mode{mode}.png")


def test_edits_replay(tmp_path):
    network = OLD / "run" / "network-snapshot-000001.pkl"
    run("-m segan_ext edit", f"--network={network}", f"--replay={OLD / 'edit' / 'edit.json'}", f"--outdir={tmp_path}")
    for path in (OLD / "edit").glob("*.png"):
        assert_same_picture(tmp_path / path.name, path)
        assert not EXACT or (tmp_path / path.name).read_bytes() == path.read_bytes()
