"""Opens network pickles of every age, without running code from them, and converts those of the TensorFlow era.

`python legacy.py --source=OLD.pkl --dest=NEW.pkl` writes any pickle that opens as a snapshot of today's format.
"""

import os

import click

import dnnlib
from runs.options import OutputFile, command, usage_errors
from snapshots.load import (  # noqa: F401 (names of the reference's module)
    convert_tf_discriminator,
    convert_tf_generator,
    is_generator,
    load_generator,
    load_network_pkl,
    load_snapshot,
)
from snapshots.save import save_snapshot


def convert_network_pickle(source: str, dest: str, force_fp16: bool = False, trust: bool = False) -> None:
    """Opens the pickle `source` (path or URL) and writes it to `dest` as a snapshot of today's format.

    OSError or ValueError with the reason; `dest` is then as it was.
    """
    _write(dest, _read(source, force_fp16, trust))


def _read(source, force_fp16, trust):
    with dnnlib.util.open_url(source) as file:
        return load_network_pkl(file, force_fp16=force_fp16, trust=trust)


def _write(dest, networks):
    os.makedirs(os.path.dirname(os.path.abspath(dest)), exist_ok=True)
    save_snapshot(dest, networks)


@command()
@click.option("--source", required=True, metavar="PKL", help="Pickle to open, a path or a URL")
@click.option("--dest", type=OutputFile(".pkl"), required=True, metavar="PKL", help="Snapshot to write")
@click.option("--force-fp16", type=bool, default=False, help="Half precision in the four highest resolutions")
@click.option("--trust-pickle", is_flag=True, help="Run the code in the pickle; only for files you trust")
def main(source, dest, force_fp16, trust_pickle):
    """Convert a network pickle, of TensorFlow or of the reference implementation, to today's format."""
    print(f'Loading "{source}"...')
    with usage_errors("--source"):
        networks = _read(source, force_fp16, trust_pickle)
    _write(dest, networks)
    print(f'Wrote "{dest}".')


if __name__ == "__main__":
    main()
