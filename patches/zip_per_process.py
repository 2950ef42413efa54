"""Loader processes that were forked share one open zip and its position: BadZipFile or CRC errors in most runs.

Each process opens the archive for itself.
"""

import os

TARGET = "training.dataset"


def needed(dataset):
    return hasattr(os, "fork") and hasattr(dataset.ImageFolderDataset, "_get_zipfile")


def apply(dataset):
    cls = dataset.ImageFolderDataset
    get_zipfile = cls._get_zipfile

    def get_own_zipfile(self):
        if vars(self).get("_zipfile_owner") != os.getpid():
            self._zipfile, self._zipfile_owner = None, os.getpid()
        return get_zipfile(self)

    cls._get_zipfile = get_own_zipfile
