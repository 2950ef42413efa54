"""The package: a wheel that works outside of the checkout, names at its face, the README's snippet."""

import os
import re
import subprocess
import sys
import tarfile
import urllib.request
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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, sdist), the wheel built from the sdist, as an installer does it"""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    build = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, env=without_path())
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = folder.glob("segan-*.whl"), folder.glob("segan-*.tar.gz")
    return wheel, sdist


def without_path():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_tree(built):
    wheel, sdist = built
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    tree = {name for name in listed if name.startswith(("segan_ext/", "stylegan2_ada/", "patches/"))}
    tree.add("train_segan.py")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == {re.sub("^patches/", "segan_ext/patches/", name) for name in tree}
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert tree | {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= inside


@pytest.mark.slow
def test_a_wheel_works_beside_a_project_with_modules_of_the_same_names(built, snapshot, tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    place = tmp_path / "installed"
    env = without_path()
    subprocess.run([*pip, "install", "--no-deps", "--target", str(place), str(built[0])], check=True, env=env)
    project = tmp_path / "project"
    for name in ("training", "metrics", "patches", "runs"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the project was imported')")
    env |= dict(PYTHONPATH=str(place), OMP_NUM_THREADS="1")
    data = make_dataset(tmp_path / "discs.zip", count=8)

    def start(name, *args):
        module = {"segan": "segan_ext.cli", "segan-train": "train_segan"}[name]
        code = f"import sys; sys.argv[0] = {name!r}; from {module} import main; import segan_ext\n"
        code += f"assert segan_ext.__file__.startswith({str(place)!r}); main()"
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return subprocess.Popen([sys.executable, "-c", code, *args], cwd=project, env=env, **pipes)

    def program(name, *args):
        process = start(name, *args)
        out, _ = process.communicate()
        assert process.returncode == 0, out
        return out

    assert "explore" in program("segan", "--help")
    program("segan", "samples", "--network=avatars64", "--grid=2x2", f"--dest={tmp_path / 'samples.png'}")
    small = ["--channels=8", "--channel-base=128", "--batch=8", "--grid=2x2", "--workers=0", "--kimg=1"]
    for cfg in ("segan-mode2", "eigengan", "stylegan1", "traditional"):
        program("segan-train", f"--cfg={cfg}", f"--data={data}", *small, f"--outdir={tmp_path / cfg}")
    network = only_run(tmp_path / "segan-mode2") / "network-snapshot-000001.pkl"
    rows = ["--rows=2", "--steps=3", f"--dest={tmp_path / 'x.png'}"]
    program("segan", "explore", f"--network={network}", *rows)
    program("segan", "explore", "--network=avatars64", *rows)
    page = start("segan", "web", "--port=0")
    try:
        address = next(found[0] for line in page.stdout if (found := re.search(r"http://\S+", line)))
        assert b"<html" in urllib.request.urlopen(address).read()
    finally:
        page.kill()
    run_ = subprocess.run(
        [sys.executable, "-c", snippet()], cwd=snapshot.parent, env=env, capture_output=True, text=True
    )
    assert run_.returncode == 0 and (snapshot.parent / "edited.png").is_file(), run_.stderr
