"""Generators on the Hugging Face hub: `hub:OWNER/NAME`, or `hub:OWNER/NAME@REVISION` for a branch, tag or commit.

A repository holds an export (`snapshots.safetensors`) under names that are fixed, so that no pickle is ever fetched.
Tokens, endpoint and cache are huggingface_hub's own: `hf auth login`, HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from types import ModuleType

from snapshots import box

PREFIX = "hub:"
GENERATOR, CONFIG, EXTRACTOR = box.GENERATOR, "generator.json", box.EXTRACTOR
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"


def is_address(path: object) -> bool:
    """True for what names a repository of the hub, rightly or not, rather than a file"""
    return isinstance(path, str) and path.startswith(PREFIX)


def is_export(network: str) -> bool:
    """True for what names a generator alone, without a discriminator: an export, on the hub, in the box or a file"""
    return network.endswith(".safetensors") or is_address(network) or box.find(network) is not None


def parse(address: str) -> tuple[str, str | None]:
    """'hub:OWNER/NAME@REVISION' → ('OWNER/NAME', 'REVISION' or None). ValueError for anything else."""
    found = re.fullmatch(rf"{PREFIX}({_WORD}/{_WORD})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,99}}))?", address)
    if found is None or ".." in address or "--" in found[1]:
        raise ValueError(f"{address[:200]} names nothing on the hub; write hub:OWNER/NAME, or hub:OWNER/NAME@REVISION")
    return found[1], found[2]


def local_path(path: str | os.PathLike, name: str = GENERATOR) -> str | os.PathLike:
    """The path itself; of an address of the hub, that of the file `name` of its repository, downloaded unless cached;
    of a name of a generator in the box (`snapshots.box`), that of its file.

    Without a network it is what the cache has. OSError or ValueError with one sentence.
    """
    if not is_address(path):
        found = box.find(path, name)
        is_word = name == GENERATOR and re.fullmatch(r"[\w-]+", str(path))
        if found is None and is_word and not os.path.exists(path):
            raise ValueError(f"{path} is no file, and in the box there are {', '.join(box.names())}")
        return found or path
    repository, revision = parse(path)
    wanted = [GENERATOR, CONFIG] if name == GENERATOR else [name]
    with _sentences(path) as hub:
        folder = hub.snapshot_download(repository, revision=revision, allow_patterns=wanted)
    for each in wanted:
        if not os.path.isfile(os.path.join(folder, each)):
            raise ValueError(f"{path} has no {each}; `python -m segan_ext export --to=…` makes such repositories")
    return os.path.join(folder, name)


def check_destination(address: str) -> str:
    """OWNER/NAME of an address that something can be uploaded to. ValueError for another."""
    repository, revision = parse(address)
    if revision is not None:
        raise ValueError(f"{address}: a revision is what an upload makes; write hub:{repository}")
    return repository


def upload(folder: str | os.PathLike, address: str, public: bool = False) -> str:
    """Makes the files of a folder a commit of the repository, which is created if need be; returns its address, pinned.

    public: whether a repository that is created is seen by everybody. OSError or ValueError with one sentence.
    """
    repository = check_destination(address)
    with _sentences(address) as hub:
        api = hub.HfApi(library_name="segan")
        api.create_repo(repository, private=not public, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="A generator of SEGAN")
    return f"{PREFIX}{repository}@{commit.oid}"


@contextlib.contextmanager
def _sentences(address: str) -> Iterator[ModuleType]:
    """huggingface_hub, whose errors become an OSError or ValueError of one sentence."""
    try:
        import huggingface_hub
        from huggingface_hub import errors, utils
    except ImportError as error:
        raise ValueError(f"{address}: the hub needs huggingface_hub; pip install 'segan[hub]' adds it") from error
    utils.logging.set_verbosity_error()  # what it warns of becomes a sentence here
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    try:
        yield huggingface_hub
    except errors.RepositoryNotFoundError as error:
        said = "there is no such repository, or it is private; `hf auth login`, or HF_TOKEN, says who you are"
        raise ValueError(f"{address}: {said}") from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{address}: that repository has no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        said = "the hub cannot be reached, and the cache does not hold it whole"
        raise OSError(f"{address}: {said}") from error
    except errors.HfHubHTTPError as error:
        said = _first_line(getattr(error, "server_message", None) or error)
        cure = "; `hf auth login`, or HF_TOKEN, says who you are" if error.response.status_code in (401, 403) else ""
        raise OSError(f"{address}: the hub refuses ({said}){cure}") from error
    except Exception as error:  # of whichever HTTP library is below
        raise OSError(f"{address}: this went wrong with the hub: {_first_line(error)}") from error


def _first_line(error):
    """What an error says first, printable and short"""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(lines[:2]))[:300]
