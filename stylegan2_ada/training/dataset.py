"""Image data sets: a folder, an uncompressed zip, or tar shards of pictures, with labels in `dataset.json`."""

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import tqdm

from dnnlib import EasyDict
from training import contents, dataset_json, files


class Dataset(torch.utils.data.Dataset):
    """Images uint8 [C, H, W] with labels float32 [label_dim]; a subclass loads the raw images and labels.

    raw_shape: [number of images, C, H, W]. max_size: keep that many, chosen by `random_seed`. use_labels: False makes
    all labels empty. xflip: append a mirrored copy of every image.
    Subclasses define `_load_raw_image(raw_idx)` → uint8 [C, H, W] and `_load_raw_labels()` → int64 [N] (classes),
    float32 [N, dim], or None.
    """

    def __init__(
        self,
        name: str,
        raw_shape: Sequence[int],
        max_size: int | None = None,
        use_labels: bool = False,
        xflip: bool = False,
        random_seed: int = 0,
    ) -> None:
        self._name = name
        self._raw_shape = list(raw_shape)
        self._use_labels = use_labels
        self._raw_labels = None  # loaded on first use
        indices = np.arange(self._raw_shape[0], dtype=np.int64)
        if max_size is not None and max_size < indices.size:
            np.random.RandomState(random_seed).shuffle(indices)
            indices = np.sort(indices[:max_size])
        copies = 2 if xflip else 1
        self._raw_idx = np.tile(indices, copies)
        self._xflip = np.repeat(np.arange(copies, dtype=np.uint8), indices.size)

    def _load_raw_image(self, raw_idx):
        raise NotImplementedError

    def _load_raw_labels(self):
        raise NotImplementedError

    def _labels(self):
        """int64 [N] or float32 [N, dim] for all raw images."""
        if self._raw_labels is None:
            labels = self._load_raw_labels() if self._use_labels else None
            if labels is None:
                labels = np.zeros([self._raw_shape[0], 0], dtype=np.float32)
            if len(labels) != self._raw_shape[0] or labels.dtype not in (np.int64, np.float32):
                raise ValueError(f"{self._name}: labels must be one int64 or a float32 vector an image")
            self._raw_labels = labels
        return self._raw_labels

    def close(self) -> None:
        """Closes files; the object can still be used."""

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _raw_labels=None)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # half-constructed objects, or an interpreter that is shutting down
            self.close()

    def __len__(self) -> int:
        return self._raw_idx.size

    def __getitem__(self, idx: int) -> tuple[np.ndarray, np.ndarray]:
        """(image uint8 [C, H, W], label float32 [label_dim])"""
        image = self._load_raw_image(self._raw_idx[idx])
        if list(image.shape) != self.image_shape or image.dtype != np.uint8:
            found = f"{list(image.shape)} of {image.dtype}"
            raise ValueError(f"{self._name}: image {self._raw_idx[idx]} is {found}, the others are {self.image_shape}")
        image = image[:, :, ::-1] if self._xflip[idx] else image
        return image.copy(), self.get_label(idx)

    def get_label(self, idx: int) -> np.ndarray:
        """float32 [label_dim]; one-hot for classes"""
        label = self._labels()[self._raw_idx[idx]]
        if label.dtype != np.int64:
            return label.copy()
        onehot = np.zeros(self.label_shape, dtype=np.float32)
        onehot[label] = 1
        return onehot

    def get_details(self, idx: int) -> EasyDict:
        """raw_idx, xflip, raw_label of an item"""
        raw_idx = int(self._raw_idx[idx])
        return EasyDict(raw_idx=raw_idx, xflip=bool(self._xflip[idx]), raw_label=self._labels()[raw_idx].copy())

    @property
    def name(self) -> str:
        """What the data set is called in messages and file names."""
        return self._name

    @property
    def image_shape(self) -> list[int]:
        """[C, H, W]"""
        return list(self._raw_shape[1:])

    @property
    def num_channels(self) -> int:
        """C of the images."""
        return self.image_shape[0]

    @property
    def resolution(self) -> int:
        """Height and width; ValueError unless they are equal."""
        _, height, width = self.image_shape
        if height != width:
            raise ValueError(f"{self._name} holds images of {width}×{height}; they must be square")
        return height

    @property
    def label_shape(self) -> list[int]:
        """[number of classes], or the shape of one label vector; [0] without labels. Loads the labels."""
        labels = self._labels()
        return [int(labels.max()) + 1] if labels.dtype == np.int64 else list(labels.shape[1:])

    @property
    def label_dim(self) -> int:
        """Length of the labels; 0 without labels."""
        (dim,) = self.label_shape
        return dim

    @property
    def has_labels(self) -> bool:
        """True if labels are used and there are some."""
        return any(size != 0 for size in self.label_shape)

    @property
    def has_onehot_labels(self) -> bool:
        """True if the labels are classes."""
        return self._labels().dtype == np.int64


class ImageFolderDataset(Dataset):
    """All pictures below a folder or in a zip, in the order of their names.

    OSError for a path that is neither, ValueError for one without pictures, or whose first picture is not
    `resolution`² pixels.
    """

    def __init__(self, path: str | os.PathLike, resolution: int | None = None, **super_kwargs: Any) -> None:
        self._path = str(path)
        self._contents = contents.open_contents(self._path)
        images = [i for i, name in enumerate(self._contents) if files.is_picture(name)]
        self._images = np.array(images, dtype=np.int64)  # their numbers among the files
        self._absent = []  # labelled names of no file; known once the labels are loaded
        if not images:
            others = files.what_is_no_picture(self._contents)
            raise ValueError(f"{self._path} holds no images{': ' * bool(others)}{others}")
        shape = [len(images), *self._load_raw_image(0).shape]
        if resolution is not None and shape[2:] != [resolution, resolution]:
            raise ValueError(f"{self._path} holds images of {shape[3]}×{shape[2]}, expected {resolution}×{resolution}")
        name = os.path.basename(os.path.abspath(self._path))
        if not os.path.isdir(self._path):  # a dot in the name of a folder begins no suffix
            name = os.path.splitext(name)[0]
        super().__init__(name, shape, **super_kwargs)

    def close(self) -> None:
        """Closes the zip; the next read opens it again."""
        if hasattr(self, "_contents"):
            self._contents.close()

    def _load_raw_image(self, raw_idx):
        i = self._images[raw_idx]
        try:
            pixels = np.array(files.upright(files.decode(self._contents.read(i))))
        except (OSError, ValueError) as error:
            raise OSError(f"{self._path}: {self._contents[i]} cannot be read ({error})") from error
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # [C, H, W]

    def image_names(self) -> list[str]:
        """The file of every image, in their order, as `dataset_json.as_read` spells it; twice where images are
        mirrored."""
        names = self.file_names()
        return [names[i] for i in self._raw_idx]

    def file_names(self) -> list[str]:
        """The file of every picture that there is, those beyond `max_size` among them; spelt as in `image_names`."""
        return [dataset_json.as_read(name) for name in self._pictures()]

    def json(self) -> dict[str, Any]:
        """What `dataset.json` holds; an empty dict where there is none."""
        with self._named():
            return dataset_json.load(self._contents)[1]

    def notes(self) -> list[str]:
        """Sentences about what lies in the folder or zip and is not used: other files, labels of other pictures."""
        self._labels()
        absent = dataset_json.what_is_absent(self._absent) if self._absent else ""
        return [sentence for sentence in (files.what_is_no_picture(self._contents), absent) if sentence]

    def _pictures(self):
        return [self._contents[i] for i in self._images]

    @contextlib.contextmanager
    def _named(self):
        """Inside, a ValueError gets the name of the data set."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error

    def _load_raw_labels(self):
        with self._named():
            labels, self._absent = dataset_json.read_labels(self._contents, self._pictures())
        if labels is None:
            return None
        return np.array(labels, dtype=np.float32 if isinstance(labels[0], list) else np.int64)

    @property
    def path(self) -> str:
        """The folder or zip, as it was given."""
        return self._path

    def digest(self) -> str:
        """16 hex digits that stand for names and contents of all files; the same for a folder and a zip of them."""
        return self._contents.digest()

    def has_stored_labels(self) -> bool:
        """True if there are labels, whether they are used or not."""
        with self._named():
            return dataset_json.has_labels(self._contents, self._pictures())

    def check_images(self, progress: bool = True) -> None:
        """Opens every picture and raises ValueError with one sentence if one would stop training later.

        Reads all bytes of the data set, but decodes only what has no checksums (formats other than PNG). What has been
        found well once is not looked at again for as long as no file changes.
        """
        if self._contents.recall("checked"):
            return
        kinds, damaged = Counter(), []
        for i in tqdm.tqdm(self._images, desc="Checking images", leave=False, disable=None if progress else True):
            try:
                image = files.check(self._contents.read(i))
                kinds[(*image.size, image.mode)] += 1
            except (OSError, ValueError) as error:
                damaged.append((self._contents[i], error))
        if damaged:
            names, reason = [name for name, _ in damaged], damaged[0][1]
            raise ValueError(
                f"{self._path}: {_several(names)} damaged ({reason}); remove, or run dataset_tool.py --on-bad=skip"
            )
        _check_kinds(self._path, kinds)
        self._contents.remember(checked=True)


def _several(names):
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more pictures are"


def _check_kinds(path, kinds):
    """ValueError unless all pictures have one size, square, a power of two, and one of the modes RGB and L."""
    sizes = sorted({(w, h) for w, h, _ in kinds})
    listed = ", ".join(f"{w}×{h}" for w, h in sizes[:3]) + (", …" if len(sizes) > 3 else "")
    cure = "run dataset_tool.py with --width and --height"
    if len(sizes) > 1:
        raise ValueError(f"{path} holds images of {len(sizes)} sizes ({listed}); {cure}")
    (width, height), modes = sizes[0], sorted({mode for _, _, mode in kinds})
    if width != height:
        raise ValueError(f"{path} holds images that are not square ({listed}); {cure} and --transform=center-crop")
    if width < files.LEAST_SIDE or width & (width - 1):
        raise ValueError(
            f"{path} holds images of {listed}, which is not a power of two from {files.LEAST_SIDE} on; {cure}"
        )
    if modes not in (["RGB"], ["L"]):
        raise ValueError(
            f"{path} holds images in the modes {', '.join(modes)}; run dataset_tool.py to make them all RGB"
        )
