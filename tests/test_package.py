"""The package: a wheel that works outside of the checkout, names at its face, the README's snippet."""

import os
import re
import subprocess
import sys
import zipfile

import pytest
import torch

import segan_ext
from helpers import ROOT, make_dataset, only_run
from test_segan_networks import build, randomise
from training import networks


@pytest.fixture
def snapshot(tmp_path):
    """A snapshot under the name that the README uses"""
    from snapshots.save import save_snapshot

    torch.manual_seed(0)
    G, D = randomise(build(mode=2)), networks.Discriminator(0, 32, 3, channel_base=512, channel_max=16)
    path = tmp_path / "network-snapshot-000055.pkl"
    save_snapshot(path, dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=None))
    return path


def snippet():
    """The README's lines of Python"""
    (code,) = re.findall(r"```python\n(import segan_ext.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    return code


def test_the_snippet_of_the_readme_runs(snapshot, monkeypatch):
    monkeypatch.chdir(snapshot.parent)
    exec(compile(snippet(), "README.md", "exec"), {})
    assert (snapshot.parent / "edited.png").is_file()


def test_every_name_at_the_face_is_there():
    assert 5 <= len(segan_ext._FACE) <= 8 and re.fullmatch(r"\d+\.\d+\.\d+", segan_ext.__version__)
    for name in segan_ext.__all__:
        assert getattr(segan_ext, name) is not None and name in dir(segan_ext)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(segan_ext, "nothing")  # noqa: B009


def test_importing_costs_nothing():
    code = "import sys, segan_ext; print('torch' in sys.modules, segan_ext.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"False {segan_ext.__version__}\n", done.stderr


def test_modules_of_the_same_names_from_elsewhere_are_said(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import training; sys.path.append({str(ROOT)!r})\n"
    code += "import segan_ext\ntry:\n    segan_ext.load_generator\nexcept ValueError as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "was imported as training, a name of the host's; import segan_ext before it" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_wheel_works_beside_a_project_with_modules_of_the_same_names(snapshot, tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source)], check=True, env=env)
    (wheel,) = tmp_path.glob("segan-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("segan_ext/py.typed", "segan_ext/patches/cpu.py", "train_segan.py", "segan_ext/web/static/index.html"):
        assert name in names
    assert "stylegan2_ada/torch_utils/ops/csrc/conv2d.cpp" in names and not [n for n in names if n.startswith("tests")]
    place = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(place), str(wheel)], check=True, env=env)
    project = tmp_path / "project"
    for name in ("training", "metrics", "patches", "runs"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the project was imported')")
    env |= dict(PYTHONPATH=str(place), OMP_NUM_THREADS="1")
    data = make_dataset(tmp_path / "discs.zip", count=8)

    def program(name, *args):
        module = {"segan": "segan_ext.cli", "segan-train": "train_segan"}[name]
        code = f"import sys; sys.argv[0] = {name!r}; from {module} import main; import segan_ext\n"
        code += f"assert segan_ext.__file__.startswith({str(place)!r}); main()"
        done = subprocess.run([sys.executable, "-c", code, *args], cwd=project, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "explore" in program("segan", "--help")
    program("segan", "samples", "--network=avatars64", "--grid=2x2", f"--dest={tmp_path / 'samples.png'}")
    small = ["--channels=8", "--channel-base=128", "--batch=8", "--grid=2x2", "--workers=0", "--kimg=1"]
    program("segan-train", "--cfg=segan-mode2", f"--data={data}", *small, f"--outdir={tmp_path / 'out'}")
    network = only_run(tmp_path / "out") / "network-snapshot-000001.pkl"
    program("segan", "explore", f"--network={network}", "--rows=2", "--steps=3", f"--dest={tmp_path / 'x.png'}")
    run_ = subprocess.run(
        [sys.executable, "-c", snippet()], cwd=snapshot.parent, env=env, capture_output=True, text=True
    )
    assert run_.returncode == 0 and (snapshot.parent / "edited.png").is_file(), run_.stderr
