"""`segan export`."""

import tempfile
from pathlib import Path

import click

from runs.launch import choose_device
from runs.options import OutputFile, command, generator_options, open_generator, refuse_given, usage_errors
from segan_ext.onnx_export import export_onnx
from segan_ext.report.card import check_licence, write_repository
from snapshots import hub
from snapshots.safetensors import save_safetensors


@command()
@generator_options
@click.option(
    "--dest",
    type=OutputFile(".safetensors", ".onnx"),
    metavar="FILE",
    help="NAME.safetensors (with NAME.json) or NAME.onnx",
)
@click.option("--half", is_flag=True, help="Weights in half precision: half the size (.safetensors)")
@click.option("--to", metavar="hub:OWNER/NAME", help="… or a repository of the Hugging Face hub, with a model card")
@click.option("--licence", metavar="NAME", help="For --to: under which others may use it: cc-by-4.0, mit, other, …")
@click.option("--public", is_flag=True, help="For --to: a repository that is created is seen by all  [default: by you]")
@click.option("--atlas", metavar="HTML", help="For --to: page of `explore --atlas`  [default: atlas.html beside]")
@click.option("--extractor", metavar="FILE", help="For --to: an extractor  [default: extractor.safetensors beside]")
def export(network, trust_pickle, device, dest, half, to, licence, public, atlas, extractor):
    """Write a generator as safetensors plus JSON, or as ONNX, or share it on the Hugging Face hub."""
    if (dest is None) == (to is None):
        raise click.UsageError("--dest: give --dest=FILE or --to=hub:OWNER/NAME, one of the two")
    ending = Path(dest or "").suffix.lower()  # as `OutputFile` reads it
    if dest:
        refuse_given(["--licence", "--public", "--atlas", "--extractor"], "without --to")
    if half and ending != ".safetensors":
        raise click.UsageError("--half: goes with --dest=NAME.safetensors")
    if to:
        with usage_errors("--to"):
            hub.check_destination(to)
        with usage_errors("--licence"):
            check_licence(licence or "")
    with usage_errors("--network"):
        path = hub.local_path(network)
    G = open_generator(path, choose_device(device), trust_pickle).cpu()
    if to:
        _share(G, path, to, public, licence, atlas, extractor)
        return
    with usage_errors("--dest"):
        Path(dest).parent.mkdir(parents=True, exist_ok=True)
        if ending == ".safetensors":
            print("Wrote {} and {}.".format(*save_safetensors(G, dest, half)))
        else:
            print(f"Wrote {dest}; its images differ from ours by {export_onnx(G, dest):.1e} at most.")


def _share(G, network, to, public, licence, atlas, extractor):
    with tempfile.TemporaryDirectory() as folder:
        files = write_repository(G, Path(folder), to, licence, network, atlas, extractor)
        print(f"Uploading {', '.join(files)} …")
        with usage_errors("--to"):
            pinned = hub.upload(folder, to, public)
    print(f"Shared: --network={to}, and for good --network={pinned}")
