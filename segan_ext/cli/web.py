"""`segan web`."""

import os

import click

import dnnlib
from runs.launch import choose_device
from runs.options import command, usage_errors
from segan_ext.semantics.extractors import open_extractor
from segan_ext.web import memory
from segan_ext.web.engine import Engine
from segan_ext.web.server import serve
from snapshots import box, hub


@command()
@click.option(
    "--network",
    "networks",
    multiple=True,
    metavar="PKL",
    help="Network; repeat it for more  [default: those of the box]",
)
@click.option("--trust-pickle", is_flag=True, help="Run the code in the pickles; only for files you trust")
@click.option("--extractor", "extractors", multiple=True, metavar="FILE", help="Extractor, from `semantics train`")
@click.option("--atlas", metavar="HTML", help="Page of `explore --atlas`, which names the first network's dimensions")
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for everybody")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 for any that is free")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Name that a proxy has it under; *.NAME: all below")
@click.option("--root-path", default="", metavar="PATH", help="Path that a proxy has it below, such as /segan")
@click.option("--device", metavar="NAME", help="cpu, cuda  [default: cuda where there is one]")
def web(networks, trust_pickle, extractors, atlas, address, port, allow_host, root_path, device):
    """Open a page to explore a generator, edit images by painting, and train extractors."""
    memory.give_back()
    networks = networks or box.names()
    for path in networks:
        with usage_errors("--network"):
            found = hub.local_path(path)
            if not dnnlib.util.is_url(found) and not os.path.isfile(found):
                raise ValueError(f"{path} does not exist; give a network file")
    for path in extractors:
        with usage_errors("--extractor"):
            open_extractor(path)
    engine = Engine(networks, choose_device(device), trust_pickle, extractors)
    with usage_errors("--network"):
        first = engine.network(next(iter(engine.paths)))
    for path in extractors:
        try:
            open_extractor(path, first.G)
        except ValueError as error:
            print(f"--extractor: {error}; {first.path} goes without it.", flush=True)
    if atlas:
        with usage_errors("--atlas"):
            first.read_atlas(atlas)
    serve(engine, address, port, allow_host, root_path)
