"""What a file that is no network looks like, by its first bytes, and what to give instead."""

import io
import re
import zipfile

_SIGNATURES = [
    (b"\x89PNG", "it is a PNG picture"),
    (b"\xff\xd8\xff", "it is a JPEG picture"),
    (b"GIF8", "it is a GIF picture"),
    (b"RIFF....WEBP", "it is a WebP picture"),
    (b"BM....\0\0\0\0", "it is a BMP picture"),
    (rb"version https://git-lfs", "it is a pointer of Git LFS, not the file itself; `git lfs pull` brings that"),
    (rb"(?i)\s*<(!doctype|html|\?xml)", "it is a web page: the link leads to a page, not to the file itself"),
    (rb"\x08.{0,3}\x12.(pytorch|onnx)", "it is an ONNX file, for other programs; give the .pkl that it was made of"),
    (rb".{8}\{\"", "it is a safetensors file; its name has to end in .safetensors, with a .json beside it"),
    (b"\x1f\x8b", "it is packed with gzip; unpack it first"),
    (rb"7z\xbc\xaf", "it is packed with 7-Zip; unpack it first"),
    (rb"\x89HDF", "it is an HDF5 file, which holds none of our networks"),
    (rb"\s*[\[{]", "it is a text, JSON perhaps"),
    (rb"(?![(c\]}])[\t\n\r -~]{1,200}\Z", "it is a text"),  # the oldest pickles are texts that begin so
]


def describe(data: bytes) -> str | None:
    """What a file with these bytes is, in a few words, if it is known to be no pickle; else None."""
    if data[:4] == b"PK\x03\x04":
        return _describe_zip(data)
    for pattern, words in _SIGNATURES:
        if re.match(pattern, data[:200], flags=re.DOTALL):
            return words
    return None


def _describe_zip(data):
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "it is a zip archive that is damaged or cut short"
    if any(name.endswith("data.pkl") for name in names):
        return "it is a zip archive of PyTorch, with weights alone or the state of a run; give a network-snapshot-….pkl"
    pictures = sum(name.lower().endswith((".png", ".jpg", ".jpeg", ".webp")) for name in names)
    return f"it is a zip archive of {pictures} pictures" if pictures else "it is a zip archive, not a network"
