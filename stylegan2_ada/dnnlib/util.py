"""Small general helpers: dotted names, logging, caching, downloads."""

import fnmatch
import hashlib
import importlib
import inspect
import io
import math
import os
import pickle
import re
import shutil
import sys
import time
import types
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np


class EasyDict(dict):
    """A dict whose string keys can also be read, set and deleted as attributes."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)

    __setattr__ = dict.__setitem__

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(name)
        del self[name]


class Logger:
    """Copies everything written to stdout and stderr into a file, until closed. A context manager."""

    def __init__(self, file_name: str | None = None, file_mode: str = "w", should_flush: bool = True) -> None:
        self.file = open(file_name, file_mode, encoding="utf-8") if file_name is not None else None
        self.should_flush = should_flush
        self.stdout, self.stderr = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def write(self, text: str | bytes) -> None:
        """Writes to the file and to the stream that stdout was before; bytes are taken for UTF-8."""
        text = text.decode() if isinstance(text, bytes) else text
        if not text:  # an empty write can confuse notebooks
            return
        for stream in filter(None, (self.file, self.stdout)):
            stream.write(text)
        if self.should_flush:
            self.flush()

    def flush(self) -> None:
        """Flushes the file and the stream."""
        for stream in filter(None, (self.file, self.stdout)):
            stream.flush()

    def isatty(self) -> bool:
        """True if the stream that stdout was before is a terminal."""
        return self.stdout.isatty()

    def close(self) -> None:
        """Restores the streams, unless somebody has replaced them since. Harmless when called twice.

        OSError if what was written last does not fit on the disk; all else is done even so.
        """
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is self:
                setattr(sys, name, getattr(self, name))
        file, self.file = self.file, None
        try:
            self.stdout.flush()
        finally:
            if file is not None:
                file.close()


# ---------------------------------------------------------------------------------------------------------------------
# Cache directory


_cache_dir = None


def set_cache_dir(path: str) -> None:
    """Puts the download cache into `path` for the rest of the process."""
    global _cache_dir
    _cache_dir = path


def make_cache_dir_path(*paths: str) -> str:
    """A path inside the cache: `set_cache_dir`, else `DNNLIB_CACHE_DIR`, else `~/.cache/dnnlib`."""
    root = _cache_dir or os.environ.get("DNNLIB_CACHE_DIR") or os.path.join(os.path.expanduser("~"), ".cache", "dnnlib")
    return os.path.join(root, *paths)


# ---------------------------------------------------------------------------------------------------------------------
# Small conversions


def format_time(seconds: int | float) -> str:
    """`59s`, `1m 00s`, `1h 00m 00s`, `1d 00h 00m`."""
    total = int(np.rint(seconds))
    minutes, s = divmod(total, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02d}h {m:02d}m"
    if hours:
        return f"{h}h {m:02d}m {s:02d}s"
    return f"{m}m {s:02d}s" if minutes else f"{s}s"


def ask_yes_no(question: str) -> bool:
    """Asks on the terminal until the answer reads as yes or no."""
    answers = {"y": True, "yes": True, "true": True, "on": True, "1": True, "t": True}
    answers |= {"n": False, "no": False, "false": False, "off": False, "0": False, "f": False}
    while True:
        print(f"{question} [y/n]")
        answer = input().strip().lower()
        if answer in answers:
            return answers[answer]


def tuple_product(t: tuple) -> Any:
    """Product of the elements; 1 for an empty tuple."""
    return math.prod(t)


def get_dtype_and_ctype(type_obj: Any) -> tuple[np.dtype, Any]:
    """The NumPy dtype and the ctypes type of `uint8`, `float32`, … given by name, as a type, or as a dtype."""
    try:
        name = getattr(type_obj, "__name__", None) or str(type_obj)
        dtype = np.dtype(name.removeprefix("torch."))
        return dtype, np.ctypeslib.as_ctypes_type(dtype)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f"no ctypes type for {type_obj!r}") from error


def is_pickleable(obj: Any) -> bool:
    """True if `pickle` takes the object; pickles all of it to find out."""
    try:
        pickle.dump(obj, io.BytesIO())
    except (pickle.PickleError, AttributeError, TypeError):
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Objects by dotted name


def get_module_from_obj_name(obj_name: str) -> tuple[types.ModuleType, str]:
    """Splits `pkg.module.Class.attr` into the imported module and the rest. ImportError says what is missing."""
    obj_name = re.sub(r"^np\.", "numpy.", obj_name)
    parts = obj_name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name, local_name = ".".join(parts[:cut]), ".".join(parts[cut:])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Only "this prefix is no module" means: try a shorter one. A failing import inside it is the user's answer.
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            continue
        get_obj_from_module(module, local_name)
        return module, local_name
    raise ImportError(f"no module or object is called {obj_name!r}")


def get_obj_from_module(module: types.ModuleType, obj_name: str) -> Any:
    """Follows the dots of `obj_name` from `module`; the module itself for an empty name."""
    obj = module
    for part in filter(None, obj_name.split(".")):
        obj = getattr(obj, part)
    return obj


def get_obj_by_name(name: str) -> Any:
    """The object of that dotted name. ImportError or AttributeError if there is none."""
    return get_obj_from_module(*get_module_from_obj_name(name))


def call_func_by_name(*args: Any, func_name: str | None = None, **kwargs: Any) -> Any:
    """Calls the function or class of that dotted name."""
    if func_name is None:
        raise ValueError("call_func_by_name needs func_name")
    func = get_obj_by_name(func_name)
    return func(*args, **kwargs)


def construct_class_by_name(*args: Any, class_name: str | None = None, **kwargs: Any) -> Any:
    """Makes an object of the class of that dotted name."""
    cls = get_obj_by_name(class_name)
    return cls(*args, **kwargs)


def get_module_dir_by_obj_name(obj_name: str) -> str:
    """The folder of the source file of the module that the dotted name leads into."""
    module, _ = get_module_from_obj_name(obj_name)
    return os.path.dirname(inspect.getfile(module))


def is_top_level_function(obj: Any) -> bool:
    """True for a callable that its module holds under its own name."""
    return callable(obj) and getattr(sys.modules.get(obj.__module__), obj.__name__, None) is obj


def get_top_level_function_name(obj: Any) -> str:
    """`module.function`, which `get_obj_by_name` turns back into the function."""
    if not is_top_level_function(obj):
        raise ValueError(f"{obj!r} is not a function at the top of a module")
    module = obj.__module__
    if module == "__main__":  # the name under which others can import it
        module = Path(sys.modules[module].__file__).stem
    return f"{module}.{obj.__name__}"


# ---------------------------------------------------------------------------------------------------------------------
# Files


def list_dir_recursively_with_ignore(
    dir_path: str, ignores: list[str] | None = None, add_base_to_relative: bool = False
) -> list[tuple[str, str]]:
    """`(path, path relative to dir_path)` of all files below, without names that match a pattern in `ignores`.

    With `add_base_to_relative` the relative paths start with the name of `dir_path`.
    """
    root = Path(dir_path)
    if not root.is_dir():
        raise NotADirectoryError(dir_path)
    ignored = lambda name: any(fnmatch.fnmatch(name, pattern) for pattern in ignores or [])
    base = root.resolve().name if add_base_to_relative else ""
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not ignored(name)]
        paths = [os.path.join(folder, name) for name in files if not ignored(name)]
        found += [(path, os.path.join(base, os.path.relpath(path, root))) for path in paths]
    return found


def copy_files_and_create_dirs(files: list[tuple[str, str]]) -> None:
    """Copies each (source, destination), making the folders on the way."""
    for source, dest in files:
        os.makedirs(os.path.dirname(dest) or ".", exist_ok=True)
        shutil.copyfile(source, dest)


# ---------------------------------------------------------------------------------------------------------------------
# URLs


def is_url(obj: Any, allow_file_urls: bool = False) -> bool:
    """True for http and https addresses with a host, and with `allow_file_urls` for file:///…"""
    if not isinstance(obj, str):
        return False
    try:
        parsed = urlparse(obj)
    except ValueError:
        return False
    if parsed.scheme == "file":
        return allow_file_urls
    return (
        parsed.scheme in ("http", "https")
        and bool(parsed.hostname)
        and ("." in parsed.hostname or parsed.hostname == "localhost")
    )


def open_url(
    url: str,
    cache_dir: str | None = None,
    num_attempts: int = 10,
    verbose: bool = True,
    return_filename: bool = False,
    cache: bool = True,
) -> Any:
    """Opens a URL or a local path for reading bytes; a download is kept in the cache.

    Returns a binary file object, or with `return_filename` the path of the cached or local file.
    OSError after `num_attempts` failures; the cache then holds nothing of it.
    """
    if return_filename and not cache:
        raise ValueError("open_url: return_filename needs cache=True")
    if not re.match(r"^[a-z][a-z0-9+.-]+://", url):  # a path; one letter before the colon is a Windows drive
        return url if return_filename else open(url, "rb")
    if url.startswith("file://"):
        path = unquote(urlparse(url).path)
        path = path[1:] if re.match(r"^/[a-zA-Z]:", path) else path
        return path if return_filename else open(path, "rb")
    if not is_url(url):
        raise OSError(f"{url} is not a web address that can be opened")

    cache_dir = cache_dir or make_cache_dir_path("downloads")
    digest = hashlib.md5(url.encode()).hexdigest()
    if cache:
        for name in sorted(os.listdir(cache_dir)) if os.path.isdir(cache_dir) else []:
            if name.startswith(digest + "_"):
                path = os.path.join(cache_dir, name)
                return path if return_filename else open(path, "rb")

    name, data = _download(url, num_attempts, verbose)
    if not cache:
        return io.BytesIO(data)
    os.makedirs(cache_dir, exist_ok=True)
    path = os.path.join(cache_dir, f"{digest}_{re.sub(r'[^0-9a-zA-Z_.-]', '_', name)}")
    temp = os.path.join(cache_dir, f"tmp_{uuid.uuid4().hex}")
    try:
        Path(temp).write_bytes(data)
        os.replace(temp, path)
    finally:
        Path(temp).unlink(missing_ok=True)
    return path if return_filename else io.BytesIO(data)


def _download(url: str, num_attempts: int, verbose: bool) -> tuple[str, bytes]:
    """The file name and the bytes behind `url`, whole or not at all."""
    import requests  # slow

    if verbose:
        print(f"Downloading {url} ...", end="", flush=True)
    for attempt in range(num_attempts):
        try:
            with requests.get(url, timeout=60) as response:
                response.raise_for_status()
                expected = response.headers.get("Content-Length")
                encoded = "Content-Encoding" in response.headers  # then the length is that of the packed bytes
                if expected is not None and not encoded and len(response.content) != int(expected):
                    raise OSError(f"{len(response.content)} of {expected} bytes arrived")
                if not response.content:
                    raise OSError("the answer was empty")
                named = re.search(r'filename="([^"]+)"', response.headers.get("Content-Disposition", ""))
                if verbose:
                    print(" done")
                return named[1] if named else os.path.basename(urlparse(url).path) or "file", response.content
        except OSError as error:  # requests' own among them
            reason = error
            if verbose:
                print(".", end="", flush=True)
            time.sleep(min(0.5 * attempt, 3))
    if verbose:
        print(" failed")
    raise OSError(f"{url} could not be downloaded: {reason}")
