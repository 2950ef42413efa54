"""`segan export`."""

from pathlib import Path

import click

from runs.launch import choose_device
from runs.options import command, generator_options, open_generator, usage_errors
from segan_ext.onnx_export import export_onnx
from snapshots.safetensors import save_safetensors


@command()
@generator_options
@click.option("--dest", required=True, metavar="FILE", help="NAME.safetensors (with NAME.json) or NAME.onnx")
def export(network, trust_pickle, device, dest):
    """Write a generator as safetensors plus JSON, or as ONNX."""
    ending = Path(dest).suffix
    if ending not in (".safetensors", ".onnx"):
        raise click.UsageError(f"--dest: {dest} must end in .safetensors or .onnx")
    G = open_generator(network, choose_device(device), trust_pickle).cpu()
    Path(dest).parent.mkdir(parents=True, exist_ok=True)
    with usage_errors("--dest"):
        if ending == ".safetensors":
            print("Wrote {} and {}.".format(*save_safetensors(G, dest)))
        else:
            print(f"Wrote {dest}; its images differ from ours by {export_onnx(G, dest):.1e} at most.")
