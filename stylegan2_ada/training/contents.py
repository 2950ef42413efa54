"""The files of a data set, in a folder, a zip or tar shards: their names, in order, and how to read one.

What takes long the first time, the directory of a large archive and a look at every file, is remembered in the cache,
for as long as size and time of the archive, or of every file, stay the same.
"""

import bisect
import contextlib
import hashlib
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dnnlib.util import make_cache_dir_path
from snapshots.atomic import write_atomically
from training import files

_VERSION = 2  # of what is in the cache
_WORTH_IT = 1000  # files; fewer are soon looked at again


def open_contents(path: str) -> "Contents":
    """The files in a folder or zip, or in the tar files of a folder. OSError with one sentence for anything else."""
    if os.path.isdir(path):
        shards = sorted(name for name in os.listdir(path) if name.endswith(".tar") and files.is_visible(name))
        return ShardContents(path, shards) if shards else FolderContents(path)
    if not os.path.exists(path):
        raise OSError(f"{path} does not exist; give a folder or a zip of images")
    return ZipContents(path)


class Contents(Sequence):
    """The names of all visible files (`files.is_visible`), sorted, with forward slashes. `signature` changes where a
    file does.
    """

    path: str
    signature: str

    def read(self, i: int, most: int = files.MOST_BYTES) -> bytes:
        """The bytes of file i. OSError, or ValueError for an entry that is damaged, encrypted or longer than `most`."""
        raise NotImplementedError

    def crc(self, i: int) -> int:
        """The CRC-32 of file i"""
        return zlib.crc32(self.read(i))

    def close(self) -> None:
        """Closes what is open; the next `read` opens it again."""

    def find(self, name: str) -> int | None:
        """The number of the file of that name, or None"""
        i = bisect.bisect_left(self, name)
        return i if i < len(self) and self[i] == name else None

    def digest(self) -> str:
        """16 hex digits that stand for names and contents of all files; the same for a folder and a zip of them."""
        digest = self.recall("digest")
        if digest is None:
            known = hashlib.sha256()
            for i, name in enumerate(self):
                known.update(f"{name} {self.crc(i)}\n".encode())
            digest = known.hexdigest()[:16]
            self.remember(digest=digest)
        return digest

    def recall(self, name: str) -> Any:
        """What was remembered under a name of these very files, or None"""
        return self._remembered().get(name)

    def remember(self, **values: Any) -> None:
        """Keeps plain values for `recall`, where there is a cache to write to and the files are many."""
        if len(self) < _WORTH_IT:
            return
        text = json.dumps(self._remembered() | values | dict(signature=self.signature))
        self._keep(".json", lambda file: file.write(text.encode()))

    def _remembered(self):
        """All that `remember` has kept of these very files"""
        with contextlib.suppress(OSError, ValueError), open(self._cached(".json"), "rb") as file:
            known = files.parse_json(file.read(), dict)
            return known if known.get("signature") == self.signature else {}
        return {}

    def _keep(self, ending, write):
        """Writes a file of the cache, where there is one to write to"""
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._cached("")), exist_ok=True)
            write_atomically(self._cached(ending), write)

    def _cached(self, ending):
        name = hashlib.md5(os.path.abspath(self.path).encode()).hexdigest()
        return make_cache_dir_path("data", f"{name}-v{_VERSION}{ending}")


class FolderContents(Contents):
    """All files below a folder, and in the folders that links below it lead to. OSError for one that cannot be read."""

    def __init__(self, path: str) -> None:
        self.path, self._names, self._signature = path, sorted(_files_below(path)), None

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, i: int) -> str:
        return self._names[i]

    @property
    def signature(self) -> str:
        """Of names, sizes and times of all files; looked up at first use."""
        if self._signature is None:
            known = hashlib.sha256()
            for name in self._names:
                status = os.stat(os.path.join(self.path, name))
                known.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
            self._signature = known.hexdigest()
        return self._signature

    def crc(self, i: int) -> int:
        """See `Contents`; of a file of any size, and 0 of what is no file."""
        path, known = os.path.join(self.path, self._names[i]), 0
        if os.path.isfile(path):
            with open(path, "rb") as file:
                while part := file.read(2**20):
                    known = zlib.crc32(part, known)
        return known

    def read(self, i: int, most: int = files.MOST_BYTES) -> bytes:
        """See `Contents`."""
        path = os.path.join(self.path, self._names[i])
        if not os.path.isfile(path):  # a pipe would wait for ever
            raise ValueError("it is no file")
        return files.read_file(path, most)


def _files_below(path):
    """Names of the visible files below a folder. Each folder is met once, links to folders come last: so a file is
    called by where it lies, if it lies here, and links that lead in a circle end.
    """
    found, met, starts = [], set(), [path]
    while starts:
        links = []
        for base, folders, names in (each for start in starts for each in os.walk(start, onerror=_raise)):
            about = os.stat(base)
            if (about.st_dev, about.st_ino) in met:
                folders.clear()
                continue
            met.add((about.st_dev, about.st_ino))
            folders[:] = sorted(filter(files.is_visible, folders))
            inside = "" if base == path else os.path.relpath(base, path).replace(os.sep, "/") + "/"
            found += [inside + name for name in names if files.is_visible(name)]
            joined = (os.path.join(base, folder) for folder in folders)
            links += [each for each in joined if os.path.islink(each) and not _leads_up(each, path, base)]
        starts = links
    return found


def _leads_up(link, *places):
    return any(files.lies_in(place, link) for place in places)


def _raise(error):
    raise error


class _Arrays(Contents):
    """Files whose names and places are arrays, which are made by `_scan` once, and kept in the cache.

    A directory of zipfile's or tarfile's takes a kilobyte an entry in every loader process, and seconds; these arrays
    take a tenth, and processes share them.
    """

    def _load_or_scan(self):
        try:
            with np.load(self._cached(".npz"), allow_pickle=False) as saved:
                self._blob, self._ends, self._entries = (saved[name] for name in ("names", "ends", "entries"))
                if str(saved["signature"]) == self.signature:
                    return
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            pass
        names, self._entries = self._scan()
        names = [name.encode("utf-8", "surrogateescape") for name in names]
        self._blob = np.frombuffer(b"".join(names), dtype=np.uint8)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        if len(names) >= _WORTH_IT:
            arrays = dict(names=self._blob, ends=self._ends, entries=self._entries, signature=self.signature)
            self._keep(".npz", lambda file: np.savez(file, **arrays))

    def _scan(self):
        """Names, sorted, and a structured array of what `read` has to know of each"""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> str:
        if not 0 <= i < len(self._ends):
            raise IndexError(i)
        start = self._ends[i - 1] if i else 0
        return self._blob[start : self._ends[i]].tobytes().decode("utf-8", "surrogateescape")


class ShardContents(_Arrays):
    """All files in the tar files of a folder, as webdataset writes them, and what else lies in it. They are called
    shard.tar/name. OSError for a damaged one.
    """

    def __init__(self, path: str, shards: list[str]) -> None:
        self.path, self._shards, self._folder = path, shards, FolderContents(path)
        self.signature = self._folder.signature
        self._load_or_scan()

    def _scan(self):
        found = []
        for number, shard in enumerate(self._shards):
            try:
                with tarfile.open(os.path.join(self.path, shard), "r:") as archive:
                    files_in = [entry for entry in archive if entry.isreg() and not entry.issparse()]
            except (tarfile.TarError, ValueError, EOFError) as error:
                raise OSError(f"{self.path}: {shard} is a damaged tar ({error}); get it again") from error
            found += [(f"{shard}/{entry.name}", number, entry.offset_data, entry.size) for entry in files_in]
        others = [(name, -1, i, 0) for i, name in enumerate(self._folder) if name not in self._shards]
        found = sorted({entry[0]: entry for entry in found + others if files.is_visible(entry[0])}.values())
        rows = np.array([entry[1:] for entry in found], dtype="i8").reshape(-1, 3)
        return [entry[0] for entry in found], rows

    def read(self, i: int, most: int = files.MOST_BYTES) -> bytes:
        """See `Contents`."""
        shard, start, size = map(int, self._entries[i])
        if shard < 0:
            return self._folder.read(start, most)
        if size > most:
            raise ValueError(f"its {size} bytes are more than the {most} that are read")
        with open(os.path.join(self.path, self._shards[shard]), "rb") as file:
            file.seek(start)
            return file.read(size)


class _Reader(zipfile.ZipFile):
    """A zip whose directory is not read: what is known of an entry is handed to `open`."""

    def _RealGetContents(self):
        pass


_FIELDS = {"header_offset": "u8", "compress_size": "u8", "file_size": "u8", "CRC": "u4", "compress_type": "u2"}
_FIELDS |= {"flag_bits": "u2"}
_ENCODINGS = ["", "utf-8", "gbk"]  # that names are in, though the zip does not say so; "": as zipfile has them


def _encoding(entries):
    """The encoding of the names of those entries that do not say which theirs is

    Chinese Windows writes GBK. European names could be read as that too, but as characters that nobody uses: so half
    of them have to be among those of GB2312.
    """
    raw = b"/".join(entry.orig_filename.encode("cp437") for entry in entries if not entry.flag_bits & 0x800)
    for encoding in () if raw.isascii() else _ENCODINGS[1:]:
        with contextlib.suppress(UnicodeDecodeError):
            text = raw.decode(encoding)
            letters = "".join(letter for letter in text if not letter.isascii())
            usual = encoding == "utf-8" or len(letters.encode("gb2312", "ignore")) >= len(letters)  # two bytes each
            if usual and text.encode(encoding) == raw:
                return encoding
    return ""


class ZipContents(_Arrays):
    """All files in a zip. OSError for a damaged one, or a file that is none."""

    def __init__(self, path: str) -> None:
        self.path, self._open = path, None  # (process, zip): a handle must not be shared with a forked process
        status = os.stat(path)
        self.signature = f"{status.st_size} {status.st_mtime_ns}"
        self._load_or_scan()

    def _scan(self):
        with open(self.path, "rb") as file, self._damage():
            if not zipfile.is_zipfile(file):
                raise OSError(f"{self.path} is neither a folder nor a zip; make a data set of it with dataset_tool.py")
            with zipfile.ZipFile(file) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        encoding, found = _encoding(entries), {}
        for entry in entries:
            used = "" if entry.flag_bits & 0x800 or entry.orig_filename.isascii() else encoding
            name = entry.orig_filename.encode("cp437").decode(used) if used else entry.filename
            if files.is_visible(name):  # of equal names the last one counts
                found[name] = (*(getattr(entry, field) for field in _FIELDS), _ENCODINGS.index(used))
        names = sorted(found)
        rows = np.array([found[name] for name in names], dtype=[*_FIELDS.items(), ("encoding", "u1")])
        return names, rows

    def crc(self, i: int) -> int:
        """See `Contents`; nothing is read."""
        return int(self._entries[i]["CRC"])

    def read(self, i: int, most: int = files.MOST_BYTES) -> bytes:
        """See `Contents`."""
        entry = zipfile.ZipInfo(self[i])
        for name in _FIELDS:
            setattr(entry, name, int(self._entries[i][name]))
        if used := _ENCODINGS[self._entries[i]["encoding"]]:
            entry.orig_filename = entry.filename.encode(used).decode("cp437")  # as it stands before the data
        return files.read_entry(self._archive(), entry, most)

    def _archive(self):
        if self._open is None or self._open[0] != os.getpid():
            with self._damage():
                self._open = os.getpid(), _Reader(self.path)
        return self._open[1]

    @contextlib.contextmanager
    def _damage(self):
        """Inside, what zipfile says of a damaged zip becomes an OSError of one sentence."""
        try:
            yield
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise OSError(f"{self.path} is a damaged zip ({error}); get it again") from error

    def close(self) -> None:
        """See `Contents`."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _open=None)
