"""`python -m segan_ext web --network=….pkl`: the page."""

from pathlib import Path

import click
import gradio as gr

from segan_ext import host

host.activate()

from launch import choose_device  # noqa: E402 (the host has to be on the path)
from segan_ext.semantics.extractors import open_extractor  # noqa: E402
from segan_ext.web.edit import EditTab  # noqa: E402
from segan_ext.web.engine import Engine  # noqa: E402
from segan_ext.web.explore import ExploreTab  # noqa: E402
from segan_ext.web.session import Session  # noqa: E402
from segan_ext.web.train import TrainTab  # noqa: E402

_LARGEST_UPLOAD = "20mb"
_UPLOADS = (600, 3600)  # seconds between looks at what was uploaded, and after which it is deleted


def build(engine):
    """The page as `gr.Blocks`. engine: with one network at least."""
    with gr.Blocks(title="SEGAN", analytics_enabled=False, delete_cache=_UPLOADS) as page:
        session = gr.State(Session(next(iter(engine.paths))))
        with gr.Tabs():
            with gr.Tab("Explore", id="explore") as explore_tab:
                explore = ExploreTab(engine, session)
            with gr.Tab("Edit", id="edit") as edit_tab:
                edit = EditTab(engine, session, edit_tab)
            with gr.Tab("Train", id="train") as train_tab:
                TrainTab(engine, session, train_tab)
        everything = [*explore.controls, *explore.shown]
        page.load(explore.all, [session], everything)
        explore_tab.select(explore.all, [session], everything)
        edit.use.click(_explore_from_edit(explore), [session], everything)
    return page


def _explore_from_edit(explore):
    def take(session):
        if session.view.network not in session.edited:
            raise gr.Error("apply an edit first", print_exception=False)
        session.change(None, w=session.edited[session.view.network], mix_layers=(), edits=())
        return explore.all(session)

    return take


@click.command()
@click.option("--network", "networks", required=True, multiple=True, metavar="PKL", help="Network; repeat it for more")
@click.option("--trust-pickle", is_flag=True, help="Run the code in the pickles; only for files you trust")
@click.option("--extractor", "extractors", multiple=True, metavar="FILE", help="Extractor, from `semantics train`")
@click.option("--atlas", metavar="HTML", help="Page of `explore --atlas`, which names the first network's dimensions")
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for everybody")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 for any that is free")
@click.option("--device", metavar="NAME", help="cpu, cuda  [default: cuda where there is one]")
def web(networks, trust_pickle, extractors, atlas, address, port, device):
    """Open a page to explore a generator, edit images by painting, and train extractors."""
    for path in extractors:
        try:
            open_extractor(path)
        except (OSError, ValueError) as error:
            raise click.UsageError(f"--extractor: {error}") from error
    engine = Engine(networks, choose_device(device), trust_pickle, extractors)
    try:
        first = engine.network(next(iter(engine.paths)))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--network: {error}") from error
    if extractors and first.extractor is None:
        print(f"No extractor fits {first.path}.", flush=True)
    try:
        if atlas:
            first.read_atlas(atlas)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--atlas: {error}") from error
    serve(engine, address, port)


def serve(engine, address="127.0.0.1", port=7860):
    """Runs the page until it is interrupted. click.UsageError if the port is taken."""
    shown = dict(quiet=True, footer_links=[], css_paths=Path(__file__).parent / "page.css", show_error=True)
    page = build(engine).queue(default_concurrency_limit=4, max_size=64)
    try:
        _, url, _ = page.launch(
            server_name=address,
            server_port=port or None,
            share=False,
            prevent_thread_lock=True,
            max_file_size=_LARGEST_UPLOAD,
            ssr_mode=False,
            **shown,
        )
    except OSError as error:
        raise click.UsageError(f"--port: {port} cannot be used ({error})") from error
    print(f"The page is at {url} (Ctrl+C ends it)", flush=True)
    page.block_thread()
