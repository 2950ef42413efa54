"""The repository itself: equal dependency lists, imports that point one way, every command has help."""

import ast
import re

import pytest

from helpers import ROOT, run

tomllib = pytest.importorskip("tomllib")  # Python 3.11

# What conda-forge calls differently.
CONDA_NAMES = {"pytorch": "torch", "python-lmdb": "lmdb"}


def test_conda_and_pip_list_the_same_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pip = set(project["dependencies"]) | {f"python{project['requires-python']}"}
    for extra in project["optional-dependencies"].values():
        pip |= set(extra)
    lines = re.findall(r"^\s+- (\S+>=\S+)$", (ROOT / "environment.yml").read_text(), flags=re.M)
    conda = {re.sub(r"^[\w.-]+", lambda m: CONDA_NAMES.get(m[0], m[0]), line) for line in lines}
    assert conda == pip


def imported(path):
    """Dotted names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_the_host_does_not_know_the_plugin():
    for path in (ROOT / "stylegan2_ada").rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith("segan_ext")], path


@pytest.mark.parametrize(
    "path", ["stylegan2_ada/training/networks.py", "stylegan2_ada/training/augment.py", "segan_ext/networks.py"]
)
def test_modules_that_travel_in_pickles_import_only_public_names(path):
    allowed = {"math", "contextlib", "contextvars", "numpy", "torch", "torch.nn.functional"}
    allowed |= {"torch_utils", "torch_utils.ops", "training"}
    assert set(imported(ROOT / path)) <= allowed


@pytest.mark.parametrize(
    "script",
    ["train_segan.py", "-m segan_ext", "-m segan_ext avatars"]
    + [f"stylegan2_ada/{name}.py" for name in ("train", "generate", "style_mixing", "dataset_tool")],
)
def test_every_command_explains_itself(script):
    assert "Usage" in run(script, "--help").stdout


def test_functions_fit_a_screen():
    for path in ROOT.rglob("*.py"):
        if ".venv" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"
