"""Finds the host, the StyleGAN2-ADA codebase that SEGAN plugs into, and makes it importable.

The bundled one, or a checkout of the reference (`--host DIR`, `SEGAN_HOST`): then its modules come first on the path,
mended at run time by `patches`, and its own training loop, kernels, metrics and scripts are used.
"""

import importlib
import os
import sys
from pathlib import Path

BUNDLED = Path(__file__).resolve().parents[1] / "stylegan2_ada"
_active = None


def add_tools() -> None:
    """Makes `runs`, `snapshots` and what else can use any host importable; the host in use comes before them."""
    if str(BUNDLED) not in sys.path:
        sys.path.insert(0, str(BUNDLED))  # before a project's own modules of these names
    importlib.import_module("runs")  # sets how threads wait, for which PyTorch must not be loaded yet
    if str(BUNDLED.parent) not in sys.path:
        sys.path.append(str(BUNDLED.parent))


def activate(directory: str | None = None) -> Path:
    """Makes a host importable, once in a process, and returns its root.

    directory: of a reference checkout; None: SEGAN_HOST, else the bundled host. ValueError with one sentence for a
    directory that is no host, a second one, or a process that has imported modules of the same names from elsewhere.
    """
    global _active
    if _active is not None and directory is None:
        return _active
    directory = directory or os.environ.get("SEGAN_HOST")
    root = Path(directory).expanduser().resolve() if directory else BUNDLED
    if root == _active:
        return root
    if _active is not None:
        raise ValueError(f"{root} cannot be the host: {_active} is in use already")
    missing = [part for part in ("training/training_loop.py", "legacy.py", "dnnlib") if not (root / part).exists()]
    if missing:
        raise ValueError(f"{root} is no StyleGAN2-ADA checkout: it has no {missing[0]}")
    for name in ("dnnlib", "torch_utils", "training", "metrics"):
        for place in getattr(sys.modules.get(name), "__path__", []):
            if not Path(place).resolve().is_relative_to(root):
                raise ValueError(f"{place} was imported as {name}, a name of the host's; import segan_ext before it")
    sys.path[:] = [str(root), *(path for path in sys.path if path != str(root))]
    add_tools()
    if root != BUNDLED:
        _patches().apply_all()
    _active = root
    return root


def _patches():
    """The package of patches: at the root of a checkout, inside this one where it was installed from a wheel."""
    installed = (Path(__file__).parent / "patches").is_dir()
    return importlib.import_module("segan_ext.patches" if installed else "patches")


def is_foreign() -> bool:
    """True if a reference checkout is the host."""
    return activate() != BUNDLED


def run_script(name: str, args: list[str]) -> None:
    """Runs a command-line script of the host's root, as `python name args…` does there. ValueError if there is none."""
    root = activate()
    module_name = name.removesuffix(".py")
    if not (root / f"{module_name}.py").is_file():
        scripts = sorted(path.name for path in root.glob("*.py") if "__main__" in path.read_text("utf-8"))
        raise ValueError(f"{root} has no script {name}; it has {', '.join(scripts)}")
    module = importlib.import_module(module_name)
    if is_foreign():
        _patches().mend_script(module)
    commands = [value for value in vars(module).values() if hasattr(value, "main") and hasattr(value, "params")]
    commands = [command for command in commands if command.callback.__module__ == module_name]
    if not commands:
        raise ValueError(f"{name} is a module, not a script")
    commands[-1].main(list(args), prog_name=name)
