"""What can be wrong with a file: for every format a table of small functions (dice, bytes) → bytes.

Some are light, and what they make should still open; others are what a broken disk or a hostile hand makes.
"""

import functools
import gzip
import io
import json
import pickletools
import random
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import safetensors.torch
from PIL import Image

MB = 2**20


class Dice(random.Random):
    """The random numbers of one case, what they decided, and the folder that nothing may be written to."""

    def __init__(self, seed, canary):
        super().__init__(seed)
        self.canary, self.notes = canary, []

    def take(self, values, what=""):
        """One of the values, noted down"""
        value = self.choice(list(values))
        self.notes.append(f"{what}{str(value)[:40]!r}")
        return value


def mutate(dice, name, data):
    """The bytes of a file of that name with something changed."""
    table = next((table for ending, table in TABLES.items() if name.endswith(ending)), [])
    change = dice.choice(table) if table and dice.random() < 0.8 else dice.choice(RAW)
    dice.notes.append(f"{name.rsplit('/')[-1]}: {change.__name__}")
    try:
        return change(dice, data)
    except Exception:  # an earlier change has broken what this one would look for
        dice.notes.append("flip")
        return flip(dice, data)


# ---------------------------------------------------------------------------------------------------------------------
# Any file


def flip(dice, data):
    data = bytearray(data)
    for _ in range(dice.choice([1, 1, 4, 32]) if data else 0):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def truncate(dice, data):
    return data[: dice.choice([dice.randrange(len(data) + 1), len(data) - 1, 8])]


def empty(dice, data):
    return b""


def blank(dice, data):
    start = dice.randrange(len(data) + 1)
    return data[:start] + bytes(len(data[start : start + 64])) + data[start + 64 :]


def repeat(dice, data):
    start = dice.randrange(len(data) + 1)
    return data[:start] + data[start // 2 :]


def append(dice, data):
    return data + dice.randbytes(dice.choice([1, 100, 5000]))


def another_file(dice, data):
    files = [b"<!DOCTYPE html>404", b"\x89PNG\r\n\x1a\n", b"PK\x05\x06" + bytes(18), b"\x80\x04N.", b"{}", b"\n"]
    return dice.take(files)


RAW = [flip, flip, truncate, empty, blank, repeat, append, another_file]

# ---------------------------------------------------------------------------------------------------------------------
# JSON

# What a value is replaced by
TEXTS = ["null", "true", "-1", "0", "1", "0.5", "-1e-9", "1e308", "NaN", "-Infinity", "1e400", "2147483648", "9" * 5000]
TEXTS += ["[]", "{}", "[[]]", "[1, 2, 3]", '{"a": 1}', '{"a":' * 5000]
TEXTS += ["[" * depth + "]" * depth for depth in (900, 100_000)]
TEXTS += ['""', '"x"', '"../../evil"', '"\\u0000"', '"\\ud800"', '"\\n\\u001b[31m"', '"' + "x" * 100_000 + '"']


def _place(dice, value):
    """(container, key) of something inside a JSON value, at any depth"""
    while True:
        key = dice.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if not value[key] or not isinstance(value[key], (dict, list)) or dice.random() < 0.4:
            return value, key
        value = value[key]


def json_value(dice, data):
    content = json.loads(data)
    container, key = _place(dice, content)
    container[key] = "@@here@@"
    return json.dumps(content).replace('"@@here@@"', dice.take(TEXTS, f"{key} = ")).encode("utf-8", "surrogatepass")


def json_whole(dice, data):
    return dice.take(TEXTS).encode()


def json_removed(dice, data):
    content = json.loads(data)
    container, key = _place(dice, content)
    dice.notes.append(f"without {key}")
    del container[key]
    return json.dumps(content).encode()


def json_exchanged(dice, data):
    content = json.loads(data)
    (a, i), (b, j) = (_place(dice, content) for _ in range(2))
    dice.notes.append(f"{i} and {j}")
    a[i], b[j] = json.loads(json.dumps(b[j])), json.loads(json.dumps(a[i]))
    return json.dumps(content).encode()


def json_longer(dice, data):
    content = json.loads(data)
    container, key = _place(dice, content)
    dice.notes.append(str(key))
    value = container[key]
    container[key] = (value if isinstance(value, (list, str)) else [value]) * dice.choice([1, 2, 2, 1000])
    return json.dumps(content).encode()


def json_more_keys(dice, data):
    return data.replace(b"{", b'{"more": [1], "": {}, ' if dice.random() < 0.5 else b'{"labels": 1, "format": 2, ', 1)


def json_encoded(dice, data):
    return data.decode().encode(dice.take(["utf-8-sig", "utf-16", "utf-32", "utf-7"]))


def json_laid_out(dice, data):
    return json.dumps(json.loads(data), indent=dice.choice([0, 1, "\t"]), sort_keys=True).encode()


def json_labels(dice, data):
    """What labels of pictures may look like"""
    content = json.loads(data)
    rows = content["labels"]
    change, row = dice.take(["object", "twice", "long row", "true", "name", "null", "./"]), dice.choice(rows)
    if change == "object":
        content["labels"] = dict(rows)
    if change == "twice":
        rows.append([row[0], dice.take([row[1], 0, 7, [1], None])])
    if change == "long row":
        row += [1, 0]
    if change in ("true", "null"):
        row[1] = True if change == "true" else None
    if change in ("name", "./"):
        row[0] = f"./{row[0]}" if change == "./" else dice.take(["é", "e\u0301", "\ud800", "\x1b[31m\n", "../x.png"])
    return json.dumps(content).encode()


JSON = [json_value] * 4 + [json_whole, json_removed, json_removed, json_exchanged, json_longer, json_more_keys]
JSON += [json_encoded, json_laid_out, json_labels, json_labels]


def json_line(dice, data):
    lines = data.splitlines()
    i = dice.randrange(len(lines))
    lines[i] = dice.choice(JSON)(dice, lines[i])
    return b"\n".join(lines)


def json_lines_moved(dice, data):
    lines = data.splitlines()
    return b"\n".join(dice.sample(lines, len(lines)) + dice.choice([[], [b""], [b"null"], lines[:1]]))


# ---------------------------------------------------------------------------------------------------------------------
# CSV

CELLS = [
    "",
    " ",
    "nan",
    "N/A",
    "?",
    "1e999",
    "-1",
    "4294967296",
    "0x1",
    "1,5",
    '"',
    "a\0b",
    "é",
    "\udcff",
    "=1+1",
    "yes",
]
CELLS += ["a" * 200_000, "1" * 5000, "../../evil.png", "٣", "YES"]


def csv_cell(dice, data):
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = dice.choice(rows)
    row[dice.randrange(len(row))] = dice.take(CELLS)
    return "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")


def csv_rows(dice, data):
    lines = data.splitlines()
    more = dice.take([[], lines[1:2], [lines[1] + b",more"], [b"x"], [b""] * 9, [b"image" + b",a" * 30_000], lines * 3])
    return b"\n".join(dice.choice([lines, lines[1:], lines[:2], lines[:1]]) + more)


def csv_laid_out(dice, data):
    text = (
        data.decode()
        .replace(",", dice.take([",", ";", "\t", "|", ", "]))
        .replace("\n", dice.take(["\n", "\r\n", "\r"]))
    )
    return text.encode(dice.take(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"]))


CSV = [csv_cell] * 5 + [csv_rows] * 2 + [csv_laid_out] * 2


# ---------------------------------------------------------------------------------------------------------------------
# Compressed zeros, in all the ways they are packed


def deflated(head, zeros, zlib_format=False):
    """A deflate stream of `head` and that many zeros: a thousandth of their size, made without packing them all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    stream = start + block * (zeros // MB) + packer.compress(bytes(zeros % MB)) + packer.flush()
    return b"\x78\x9c" + stream + struct.pack(">HH", zeros % 65521, 1) if zlib_format else stream


def gzip_bomb(dice, data):
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + deflated(data[:16], dice.take([500, 3000]) * MB) + bytes(8)


# ---------------------------------------------------------------------------------------------------------------------
# Zip

NAMES = ["../../evil.png", "../../../../evil.png", "{canary}/evil.png", "C:\\evil.png", "a\\b.png", "00000/../x.png"]
NAMES += ["..", "/", ".png", ".hidden.png", "é.png", "x.PNG", "x.eps", "x.txt", "a\nb.png", "@NUL@.png", "@LATIN@.png"]
NAMES += ["a" * 300 + ".png", "a" * 60_000 + ".png", "dataset.json", "seed9999999999.png", "seed-1.png", "seed٣.png"]
_BYTES = {b"@NUL@": b"@\0UL@", b"@LATIN@": b"@\xff\xfe\xfdN@"}
# Where the fields of an entry stand: in the directory, in front of its data, and how; and what they are set to.
FIELDS = {
    "flags": (8, 6, "<H", [1, 9, 0x41, 0x2000, 0x800]),
    "method": (10, 8, "<H", [8, 1, 9, 12, 14, 93, 99, 255]),
    "crc": (16, 14, "<I", [0, 1]),
    "packed": (20, 18, "<I", [0, 1, 2**31, 2**32 - 1]),
    "size": (24, 22, "<I", [0, 1, 2**31, 2**32 - 1]),
    "place": (42, None, "<I", [0, 1, 2**31, 2**32 - 1]),
}


def _members(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def _zip(members, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name) if isinstance(name, str) else name, data, method)
    data = buffer.getvalue()
    for word, replacement in _BYTES.items():
        data = data.replace(word, replacement)
    return data


def _with_field(data, index, field, value):
    in_directory, in_front, form, _ = FIELDS[field]
    data, start = bytearray(data), -1
    for _ in range(index + 1):
        start = data.index(b"PK\x01\x02", start + 1)
    (front,) = struct.unpack_from("<I", data, start + 42)
    struct.pack_into(form, data, start + in_directory, value)
    if in_front is not None:
        struct.pack_into(form, data, front + in_front, value)
    return bytes(data)


def zip_member(dice, data):
    members = _members(data)
    i = dice.randrange(len(members))
    name, content = members[i]
    members[i] = name, mutate(dice, name, content)
    return _zip(members)


def zip_name(dice, data):
    members = _members(data)
    i, name = dice.randrange(len(members)), dice.take(NAMES).format(canary=dice.canary)
    return _zip([*members[:i], (name, members[i][1]), *members[i + 1 :]])


def zip_wrapped(dice, data):
    inside = dice.take(["x/", "a/b/", "__MACOSX/", ".x/", "./", "é/"])
    return _zip([(inside + name, content) for name, content in _members(data)])


def zip_encoded(dice, data):
    """Names in an encoding that the zip does not state"""
    names = dict(zip(("@A@", "@B@"), dice.take([("é", "ü"), ("男", "女"), ("か", "き"), ("喆", "镕")])))
    encoding = dice.take(["gbk", "utf-8", "shift_jis", "cp437"])
    members = [(f"{dice.choice(list(names))}/{name}", content) for name, content in _members(data)]
    data = _zip(members)
    for stand_in, name in names.items():
        data = data.replace(stand_in.encode(), (name.encode(encoding, "ignore") + b"@@@")[:3])
    return data


def zip_twice(dice, data):
    members = _members(data)
    return _zip(members + [dice.choice(members)])


def zip_link(dice, data):
    info = zipfile.ZipInfo("link.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return _zip([*_members(data), (info, dice.take(["/etc/passwd", "link.png", "../../x"]))])


def zip_without(dice, data):
    members = _members(data)
    del members[dice.randrange(len(members))]
    return _zip(members)


def zip_with(dice, data):
    files = [("Thumbs.db", b"x"), ("empty/", b""), ("zz.png", b""), ("a", b""), ("zz.zip", data), ("zz.png", data)]
    return _zip([*_members(data), dice.take(files)])


def zip_in_zip(dice, data):
    return _zip([("inner.zip", data)])


def zip_packed(dice, data):
    return _zip(_members(data), dice.take([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))


def zip_packed_and_flipped(dice, data):
    data = bytearray(_zip(_members(data), zipfile.ZIP_DEFLATED))
    for _ in range(4):
        data[dice.randrange(30, len(data) // 2)] ^= 255
    return bytes(data)


def zip_field(dice, data):
    field = dice.take(FIELDS)
    return _with_field(data, dice.randrange(len(_members(data))), field, dice.take(FIELDS[field][3]))


def zip_bomb(dice, data):
    members, zeros = _members(data), dice.take([500, 3000]) * MB
    i = dice.randrange(len(members))
    head = dice.choice([b"", members[i][1]])
    data = _zip([*members[:i], (members[i][0], deflated(head, zeros)), *members[i + 1 :]])
    return _with_field(_with_field(data, i, "method", 8), i, "size", zeros + len(head))


def zip_of_many(dice, data):
    return _zip([*_members(data), *((f"many/{i}.png", b"") for i in range(3000))])


def zip_framed(dice, data):
    return data[:-2] + b"\x05\x00hello" if dice.random() < 0.5 else b"#!/bin/sh\n" + data


ZIP = [zip_member] * 6 + [zip_name, zip_name, zip_twice, zip_link, zip_without, zip_with, zip_in_zip, zip_packed]
ZIP += [zip_wrapped, zip_encoded, zip_packed_and_flipped, zip_field, zip_field, zip_bomb, zip_of_many, zip_framed]

# ---------------------------------------------------------------------------------------------------------------------
# Pictures

MODES = {"P": "PNG", "I;16": "PNG", "I": "PNG", "LA": "PNG", "RGBA": "PNG", "1": "PNG", "L": "PNG", "RGB": "PNG"}
MODES |= {"CMYK": "JPEG", "F": "TIFF", "YCbCr": "JPEG", "LAB": "TIFF"}


def _save(picture, form="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def _open(data):
    return Image.open(io.BytesIO(data))


def picture_mode(dice, data):
    mode = dice.take(MODES)
    picture = _open(data).convert("RGB" if mode in ("LAB", "YCbCr", "CMYK") else "L")
    return _save(picture.convert(mode) if mode != "I;16" else picture.convert("I").convert("I;16"), MODES[mode])


def picture_format(dice, data):
    form = dice.take(["JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "ICO", "TGA", "PCX", "EPS"])
    return _save(_open(data).convert("RGB"), form)


def picture_size(dice, data):
    sizes = [(1, 1), (3, 5), (8, 8), (4, 4), (2, 2), (32, 32), (16, 17), (1, 3000), (17, 17), (512, 512)]
    return _save(_open(data).resize(dice.take(sizes), Image.Resampling.NEAREST))


def picture_animated(dice, data):
    frames = [_open(data).convert("RGB").rotate(90 * i) for i in range(3)]
    return _save(frames[0], dice.take(["GIF", "WEBP", "PNG", "TIFF"]), save_all=True, append_images=frames[1:])


def picture_exif(dice, data):
    exif = Image.Exif()
    exif[0x112] = dice.take([1, 3, 6, 8, 0, 99, 65535])
    raw = dice.choice([exif.tobytes(), exif.tobytes()[:-3], b"Exif\0\0" + dice.randbytes(40), b"MM"])
    return _save(_open(data), dice.take(["PNG", "JPEG", "WEBP"]), exif=raw)


def picture_pixels(dice, data):
    picture = _open(data)
    pixels = np.array(picture)
    pixels.reshape(-1)[dice.randrange(pixels.size)] = dice.take([0, 1, 3, 200, 255])
    return _save(Image.fromarray(pixels))


def picture_constant(dice, data):
    picture = _open(data)
    return _save(Image.new(picture.mode, picture.size, dice.take([0, 1, 2, 254, 255])))


def _chunks(data):
    place = 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        place += 12 + length


def _png(chunks):
    packed = (struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def png_claim(dice, data):
    (_, head), *rest = _chunks(data)
    sides = [(60000, 60000), (20000, 20000), (13000, 13000), (0, 0), (2**31 - 1, 1), (16, 2**31), (16, 15), (64, 64)]
    depth = dice.choice([head[8:], head[8:], bytes([dice.choice([1, 3, 16]), head[9], 0, 0, dice.choice([0, 1, 2])])])
    return _png([(b"IHDR", struct.pack(">II", *dice.take(sides)) + depth), *rest])


def png_bomb(dice, data):
    head, *rest = _chunks(data)
    kind = dice.take([b"iCCPname\0\0", b"zTXtname\0\0", b"iTXtname\0\1\0\0\0"])
    return _png([head, (kind[:4], kind[4:] + deflated(b"", 500 * MB, True)), *rest])


def png_huge(dice, data):
    side, (colour, depth) = dice.take([3000, 9000, 13000]), dice.take([(0, 8), (2, 8), (6, 8), (0, 1), (0, 16), (3, 8)])
    row = 1 + side * {0: 1, 2: 3, 6: 4, 3: 1}[colour] * depth // 8
    palette = [(b"PLTE", bytes(range(30)))] if colour == 3 else []
    head = (b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
    return _png([head, *palette, (b"IDAT", deflated(b"", side * row, True)), (b"IEND", b"")])


CHUNKS = [(b"tRNS", b"\0\1\0\1\0\1"), (b"tRNS", b"\0\1"), (b"PLTE", bytes(9)), (b"acTL", bytes(8))]
CHUNKS += [(b"gAMA", b""), (b"eXIf", b"x")]


def png_chunk(dice, data):
    chunks = list(_chunks(data))
    i = dice.randrange(len(chunks))
    name, content = here = chunks[i]
    instead = [[], [here, here], [here, dice.choice(CHUNKS)], [(name, content[:-1])], [(name, content + b"x")]]
    return _png(chunks[:i] + dice.take(instead) + chunks[i + 1 :])


PICTURE = [picture_mode, picture_mode, picture_format, picture_size, picture_size, picture_animated, picture_exif]
PICTURE += [picture_pixels, picture_pixels, picture_constant, png_claim, png_bomb, png_huge, png_chunk, png_chunk]

# ---------------------------------------------------------------------------------------------------------------------
# Arrays


def _arrays(data):
    with np.load(io.BytesIO(data)) as file:
        return dict(file)


def _npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


TYPES = ["f8", "f2", "i1", "i8", "u2", "c8", "g", "?", ">f4", "O", "U5", "S3", "V4", "m8[s]", "M8[s]", "f4,i4"]


def npz_type(dice, data):
    kind = dice.take(TYPES)
    return _npz(w=_arrays(data)["w"].astype("i8" if kind == "M8[s]" else kind).astype(kind))


def npz_shape(dice, data):
    w = _arrays(data)["w"]
    shapes = dict(none=w[:0], flat=w.ravel(), layers=w[:, :-1], width=w[:, :, :-1], more=w[None], one=w[0], turned=w.T)
    shapes |= dict(number=w[0, 0, 0], empty=w[:, :, :0], many=np.repeat(w, 20, 0), fortran=np.asfortranarray(w))
    return _npz(w=shapes[dice.take(shapes)])


def npz_values(dice, data):
    w = _arrays(data)["w"]
    w.reshape(-1)[:: dice.choice([1, 7])] = dice.take([np.nan, np.inf, 1e30, -1e38, 0])
    return _npz(w=w)


def npz_names(dice, data):
    w, pickled = _arrays(data)["w"], np.array([{}], object)
    contents = dict(upper=dict(W=w), more=dict(w=w, more=w), pickled=dict(w=w, x=pickled), none={}, ending={"w.npy": w})
    return _npz(**contents[dice.take(contents)])


SHAPES = ["(10**9, 14, 64)", "(1000000000, 14, 64)", "(-1,)", "(2.5,)", "3", "(True, 1)", "(" + "9" * 30 + ",)"]
SHAPES += ["(" * 300 + ")" * 300]


def npz_header(dice, data):
    kind, shape = dice.take(["<f4", "|O", "x", "<f99"]), dice.take(SHAPES)
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    version = dice.take([b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x09\x00"])
    return _zip([("w.npy", b"\x93NUMPY" + version + struct.pack("<H", len(head)) + head + bytes(99))])


def npy_alone(dice, data):
    buffer = io.BytesIO()
    np.save(buffer, dice.choice([_arrays(data)["w"], np.array({"w": 1}, object)]), allow_pickle=True)
    return buffer.getvalue()


NPZ = [npz_type, npz_type, npz_shape, npz_shape, npz_values, npz_names, npz_header, npz_header, npy_alone]

# ---------------------------------------------------------------------------------------------------------------------
# Safetensors


def _parts(data):
    (length,) = struct.unpack_from("<Q", data)
    return data[8 : 8 + length], data[8 + length :]


def _joined(head, body, length=None):
    return struct.pack("<Q", len(head) if length is None else length) + head + body


def safetensors_head(dice, data):
    head, body = _parts(data)
    return _joined(dice.choice(JSON)(dice, head), body)


def safetensors_length(dice, data):
    head, body = _parts(data)
    return _joined(head, body, dice.take([0, 1, len(head) - 1, len(head) + 1, len(data), 2**31, 2**40, 2**64 - 1]))


ENTRIES = [("dtype", kind) for kind in ("F16", "I64", "BOOL", "F8_E4M3", "X", 3)]
ENTRIES += [("shape", shape) for shape in ([], [0], [-1], [2**40], [1, 2**62, 4])]
ENTRIES += [("data_offsets", place) for place in ([0, 0], [4, 0], [0, 2**40], [-4, 4])]


def safetensors_entry(dice, data):
    head, body = _parts(data)
    head = json.loads(head)
    name, (key, value) = dice.take([name for name in head if name != "__metadata__"]), dice.take(ENTRIES)
    head[name][key] = value
    return _joined(json.dumps(head).encode(), body)


def safetensors_metadata(dice, data):
    head, body = _parts(data)
    head = json.loads(head)
    found = head.setdefault("__metadata__", {"note": "{}"})
    name = dice.choice(list(found))
    found[name] = dice.choice(JSON)(dice, found[name].encode()).decode("utf-8", "replace")
    return _joined(json.dumps(head).encode(), body)


def safetensors_tensors(dice, data):
    about = json.loads(_parts(data)[0]).get("__metadata__")
    tensors = safetensors.torch.load(data)
    name = dice.take(tensors)
    x = tensors.pop(name)
    instead = dict(half=x.half(), long=x.long(), boolean=x > 0, flat=x.reshape(-1), more=x[None], number=x.sum())
    instead |= dict(nan=x * float("nan"), large=x * 1e30, zero=x * 0, none=x.reshape(-1)[:0], gone=None, renamed=x)
    kind = dice.take(instead)
    if kind != "gone":
        tensors[name + "x" * (kind == "renamed")] = instead[kind]
    return safetensors.torch.save({name: x.contiguous() for name, x in tensors.items()}, about)


SAFETENSORS = [safetensors_head, safetensors_head, safetensors_length, safetensors_entry]
SAFETENSORS += [safetensors_metadata] * 4 + [safetensors_tensors] * 3

# ---------------------------------------------------------------------------------------------------------------------
# Pickles

_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE")
_INTS = ("BININT1", "BININT2", "BININT")
WORDS = ["os", "system", "builtins", "eval", "numpy", "class", "type", "__reduce__", "../../evil", "", "x" * 255]


@functools.lru_cache(8)
def _instructions(data):
    """[(name, argument, bytes)] of a pickle, without its frames, whose lengths would no longer be right"""
    found = [(op.name, arg, place) for op, arg, place in pickletools.genops(data)]
    ends = [place for _, _, place in found[1:]] + [len(data)]
    return [(name, arg, data[a:b]) for (name, arg, a), b in zip(found, ends) if name != "FRAME"]


def _assembled(instructions):
    return b"".join(code for _, _, code in instructions)


def _changed(dice, data, wanted, change):
    """The pickle with one of the wanted instructions replaced by change(name, argument)"""
    instructions = list(_instructions(data))
    i = dice.choice([i for i, (name, _, _) in enumerate(instructions) if name in wanted])
    name, arg, _ = instructions[i]
    instructions[i] = name, arg, change(name, arg)
    return _assembled(instructions)


def pickle_int(dice, data):
    def change(name, arg):
        value = dice.take([0, 1, 2, 255, arg + 1, arg * 2, 65535, -1, 2**31 - 1, 2**62], f"{arg} → ")
        if not 0 <= value < 2**31:
            return b"\x8a\x08" + struct.pack("<q", value)
        return b"J" + struct.pack("<i", value)

    return _changed(dice, data, _INTS, change)


def pickle_string(dice, data):
    theirs = [arg for name, arg, _ in _instructions(data) if name in _STRINGS and len(arg) < 100]

    def change(name, arg):
        word = dice.choice([dice.choice(theirs), dice.choice(WORDS)])
        dice.notes.append(f"{arg[:40]!r} → {word[:40]!r}")
        return b"X" + struct.pack("<I", len(word.encode())) + word.encode()

    return _changed(dice, data, _STRINGS, change)


VALUES = {"NEWTRUE": b"\x88", "NEWFALSE": b"\x89", "NONE": b"N"}
VALUES |= {"EMPTY_LIST": b"]", "EMPTY_DICT": b"}", "EMPTY_TUPLE": b")"}
VALUES |= {"BINFLOAT": b"G" + struct.pack(">d", float("nan"))}


def pickle_value(dice, data):
    return _changed(dice, data, [*VALUES, *_INTS], lambda name, arg: VALUES[dice.take(VALUES, f"{name} {arg} → ")])


def pickle_tensor(dice, data):
    instructions = list(_instructions(data))
    i = dice.choice([i for i, (name, _, _) in enumerate(instructions) if name == "BINBYTES"])
    name, arg, code = instructions[i]
    count = min(dice.choice([4, 400]), len(arg) // 2)
    instructions[i] = name, arg, code[:-count] + (b"\0\0\xc0\x7f" * count)[:count]
    return _assembled(instructions)


def pickle_opcode(dice, data):
    instructions = list(_instructions(data))
    i = dice.randrange(len(instructions))
    name, arg, code = instructions[i]
    instructions[i] = name, arg, dice.choice([op.code for op in pickletools.opcodes]).encode("latin1") + code[1:]
    return _assembled(instructions)


def pickle_moved(dice, data):
    instructions = list(_instructions(data))
    i, j = (dice.randrange(len(instructions)) for _ in range(2))
    change = dice.take(["swap", "drop", "double", "cut"])
    if change == "swap":
        instructions[i], instructions[j] = instructions[j], instructions[i]
    if change == "double":
        instructions.insert(j, instructions[i])
    if change == "drop":
        del instructions[i]
    return _assembled(instructions[:i] + instructions[-1:] if change == "cut" else instructions)


PICKLE = [pickle_int] * 3 + [pickle_string] * 3 + [pickle_value, pickle_value, pickle_tensor, pickle_tensor]
PICKLE += [pickle_opcode, pickle_moved, pickle_moved]

# ---------------------------------------------------------------------------------------------------------------------
# Tar and gzip


def _tar_members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [(member, archive.extractfile(member).read() if member.isfile() else b"") for member in archive]


def _tar(members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def tar_member(dice, data):
    members = _tar_members(data)
    i = dice.randrange(len(members))
    members[i] = members[i][0], mutate(dice, ".pkl", members[i][1])
    return _tar(members)


def tar_name(dice, data):
    members = _tar_members(data)
    names = ["../../evil", f"{dice.canary}/evil", "a" * 400, "a\nb", "", "x/data_batch_1"]
    dice.choice(members)[0].name = dice.take(names)
    return _tar(members)


MEMBER_TYPES = dict(
    link=tarfile.SYMTYPE, hard=tarfile.LNKTYPE, char=tarfile.CHRTYPE, fifo=tarfile.FIFOTYPE, folder=b"5"
)


def tar_type(dice, data):
    members = _tar_members(data)
    member = dice.choice(members)[0]
    member.type = MEMBER_TYPES[dice.take(MEMBER_TYPES)]
    member.linkname = dice.take(["/etc/passwd", member.name, "../../x"])
    return _tar(members)


def tar_list(dice, data):
    members = _tar_members(data)
    return _tar(dice.take([members[1:], members * 2, [], members[::-1]]))


def tar_format(dice, data):
    return _tar(_tar_members(data), dice.take(["w:", "w:bz2", "w:xz"]))


def tar_bomb(dice, data):
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.size = dice.take([500, 3000]) * MB
    start = info.tobuf() + b"\x80\x02X" + struct.pack("<I", 2**31)  # a string of 2 GB
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + deflated(start, info.size + MB) + bytes(8)


def gzip_inside(dice, data):
    return gzip.compress(dice.choice(RAW)(dice, gzip.decompress(data)))


def idx_head(dice, data):
    data = bytearray(gzip.decompress(data))
    value = dice.take([0, 1, 27, 2049, 2051, -1, 2**31 - 1])
    struct.pack_into(">i", data, 4 * dice.randrange(4 if len(data) > 100 else 2), value)
    return gzip.compress(bytes(data))


TAR = [tar_member] * 5 + [tar_name, tar_name, tar_type, tar_type, tar_list, tar_format, tar_bomb, gzip_inside]
GZIP = [gzip_inside, idx_head, idx_head, gzip_bomb]

TABLES = {".png": PICTURE, ".json": JSON, ".jsonl": [json_line, json_line, json_lines_moved], ".zip": ZIP, ".pt": ZIP}
TABLES |= {".csv": CSV, ".npz": NPZ * 2 + ZIP, ".safetensors": SAFETENSORS, ".pkl": PICKLE, ".tar.gz": TAR, ".gz": GZIP}
