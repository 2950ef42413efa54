"""The repository itself: equal dependency lists, imports that point one way, every command has help."""

import ast
import importlib
import os
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from helpers import ROOT, run

# What conda-forge calls differently.
CONDA_NAMES = {"pytorch": "torch", "python-lmdb": "lmdb", "python-build": "build"}


def test_conda_and_pip_list_the_same_dependencies():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pip = set(project["dependencies"]) | {f"python{project['requires-python']}"}
    for extra in project["optional-dependencies"].values():
        pip |= set(extra)
    lines = re.findall(r"^\s+- (\S+>=\S+)$", (ROOT / "environment.yml").read_text(), flags=re.M)
    conda = {re.sub(r"^[\w.-]+", lambda m: CONDA_NAMES.get(m[0], m[0]), line) for line in lines}
    assert conda == pip


def modules():
    """{dotted name: file} of the host, whose root is on the path, and of the plugin"""
    found = {}
    for base, prefix in ((ROOT / "segan_ext", ["segan_ext"]), (ROOT / "stylegan2_ada", [])):
        for path in base.rglob("*.py"):
            parts = [*prefix, *path.relative_to(base).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name, files):
    """Names of our modules that one imports, at its head or inside its functions"""
    package = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(files[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= names & files.keys() or {module}
    return found & files.keys() - {name}


ARROWS = {name: imports_of(name, modules()) for name in modules()}


def test_modules_import_in_no_circle():
    left = dict(ARROWS)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        left = {name: others for name, others in left.items() if name not in free}
    assert not left, f"among these is a circle: {', '.join(left)}"


# From the bottom up. What stands in one line does not import each other.
FLOORS = """
training.files runs.failures runs.numbers runs.outputs runs.processes
dnnlib
torch_utils
training.networks training.augment
snapshots
legacy
metrics training.latents training.images runs.run_dir
training
runs
train generate style_mixing projector calc_metrics dataset_tool
segan_ext.host
segan_ext.own
segan_ext.networks segan_ext.encoder segan_ext.presets
segan_ext.generators
segan_ext.latents segan_ext.images segan_ext.layers
segan_ext.data
segan_ext.control segan_ext.onnx_export
segan_ext.metrics segan_ext.semantics
segan_ext.labelled segan_ext.added_names
segan_ext.report segan_ext.atlas segan_ext.directions segan_ext.loss
segan_ext.adversarial
segan_ext.training
segan_ext.web
segan_ext.cli
segan_ext segan_ext.__main__
"""
FLOORS = {name: floor for floor, line in enumerate(FLOORS.strip().splitlines()) for name in line.split()}


def place_of(module):
    """(floor, room) of a module: those of the longest name in FLOORS that it begins with"""
    room = max((name for name in FLOORS if f"{module}.".startswith(f"{name}.")), key=len)
    return FLOORS[room], room


def test_arrows_point_down():
    for name, others in ARROWS.items():
        floor, room = place_of(name)
        for other in others:
            below, elsewhere = place_of(other)
            own_command = (name, other) == ("legacy", "runs.options")  # the reference has its command in that module
            assert below < floor or room == elsewhere or own_command, f"{name} imports {other}, which stands above it"


def test_the_host_does_not_know_the_plugin():
    for path in (ROOT / "stylegan2_ada").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) segan_ext", text, flags=re.M), path


def test_click_lives_in_the_commands():
    allowed = {"train_segan", "runs.options", *SCRIPTS, "train"}
    for name, path in modules().items():
        if re.search(r"^\s*(import|from) click\b", path.read_text(encoding="utf-8"), flags=re.M):
            assert name in allowed or name.startswith("segan_ext.cli"), f"{name} imports click"


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
        if any(part.startswith(".venv") for part in path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"


def public_functions():
    """(where, its definition) of every function and method without an underscore, commands left out"""
    for module, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                found = [node]
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            else:
                continue
            for each in found:
                command = any(re.search("command|click", ast.unparse(each_)) for each_ in each.decorator_list)
                if not each.name.startswith("_") and not command:
                    yield f"{module}.{each.name}", each


def test_what_is_public_has_annotations_and_a_docstring():
    missing = []
    for where, function in public_functions():
        a = function.args
        named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        bare = [each.arg for each in named if each.annotation is None and each.arg not in ("self", "cls")]
        if bare or function.returns is None:
            missing.append(f"{where}({', '.join(bare)})")
        if ast.get_docstring(function) is None and where.rpartition(".")[2] not in ("forward", "main"):
            missing.append(f"{where}: no docstring")
    assert not missing, "\n".join(missing)


LOADED = """
import runpy, sys
script, *args = sys.argv[1:]
sys.argv = [script, *args, "--help"]
sys.path.insert(0, script.rpartition("/")[0] or ".")
try:
    (runpy.run_path if script.endswith(".py") else runpy.run_module)(script, run_name="__main__")
except SystemExit:
    pass
print([name for name in sys.modules if name in ("runs", "torch")], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "script", [*(f"stylegan2_ada/{name}.py" for name in SCRIPTS), "segan_ext explore", "segan_ext web"]
)
def test_commands_set_how_threads_wait_before_pytorch_is_loaded(script):
    done = subprocess.run([sys.executable, "-c", LOADED, *script.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] in ("['runs', 'torch']", "['runs']"), done.stderr


def test_what_the_user_has_set_for_waiting_threads_stays():
    program = "import runs, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    unset = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    for given, found in (({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "passive"}, "None")):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=ROOT / "stylegan2_ada", env=unset | given, capture_output=True, text=True)
        assert done.stdout.strip() == found
