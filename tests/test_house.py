"""The repository itself: equal dependency lists, imports that point one way, every command has help."""

import ast
import importlib
import re

import click
import pytest
from click.testing import CliRunner

from helpers import ROOT, run

# What conda-forge calls differently.
CONDA_NAMES = {"pytorch": "torch", "python-lmdb": "lmdb"}


def test_conda_and_pip_list_the_same_dependencies():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
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
    """In another host they find what the reference has; of ours alone only what they can do without."""
    public = {"torch_utils": {"misc", "persistence"}, "training": {"networks"}}
    public["torch_utils.ops"] = {"bias_act", "conv2d_gradfix", "conv2d_resample", "fma", "grid_sample_gradfix"}
    public["torch_utils.ops"] |= {"upfirdn2d"}
    modules = {"math", "contextlib", "contextvars", "numpy", "torch", "torch.nn.functional"}
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    guarded = [node for each in ast.walk(tree) if isinstance(each, ast.Try) for node in ast.walk(each)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= modules, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node not in guarded and node.module not in modules:
            assert {alias.name for alias in node.names} <= public[node.module], ast.unparse(node)


SCRIPTS = ["train", "generate", "style_mixing", "projector", "calc_metrics", "dataset_tool", "legacy"]
SEMANTICS = [f"semantics {name}" for name in ("train", "eval", "sample", "edit")]


def commands():
    """What a user can call: (the function behind it, its name)"""
    from segan_ext import cli

    yield importlib.import_module("train_segan").main, "train_segan.py"
    yield from ((importlib.import_module(name).main, f"{name}.py") for name in SCRIPTS)
    group = cli.main
    for name in group.list_commands(None):
        found = group.get_command(None, name)
        yield found, name
        yield from ((each, f"{name} {each.name}") for each in getattr(found, "commands", {}).values())


def test_every_command_explains_itself_and_each_option():
    known = dict((name, found) for found, name in commands())
    assert set(SEMANTICS) <= set(known) and len(known) >= 22
    for name, found in known.items():
        done = CliRunner().invoke(found, ["--help"], prog_name=name)
        assert done.exit_code == 0 and done.output.startswith(f"Usage: {name}"), (name, done.output)
        silent = [param.opts[0] for param in found.params if isinstance(param, click.Option) and not param.help]
        assert not silent and found.help, (name, silent)


@pytest.mark.parametrize("script", ["train_segan.py", "-m segan_ext", *SCRIPTS])
def test_scripts_start(script):
    assert "Usage" in run(f"stylegan2_ada/{script}.py" if script in SCRIPTS else script, "--help").stdout


def test_functions_fit_a_screen():
    for path in ROOT.rglob("*.py"):
        if ".venv" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"
