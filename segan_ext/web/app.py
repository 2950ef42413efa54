"""`python -m segan_ext web --network=….pkl`: the page."""

from pathlib import Path

import gradio as gr

from segan_ext.web.engine import Engine
from segan_ext.web.session import Session
from segan_ext.web.tabs.edit import EditTab
from segan_ext.web.tabs.explore import ExploreTab
from segan_ext.web.tabs.name import NameTab
from segan_ext.web.tabs.train import TrainTab

_LARGEST_UPLOAD = "20mb"
_UPLOADS = (600, 3600)  # seconds between looks at what was uploaded, and after which it is deleted


def build(engine: Engine) -> gr.Blocks:
    """The page as `gr.Blocks`. engine: with one network at least."""
    with gr.Blocks(title="SEGAN", analytics_enabled=False, delete_cache=_UPLOADS) as page:
        session = gr.State(Session(next(iter(engine.paths))))
        with gr.Tabs():
            with gr.Tab("Explore", id="explore") as explore_tab:
                explore = ExploreTab(engine, session)
            with gr.Tab("Name", id="name") as name_tab:
                NameTab(engine, session, name_tab)
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


def serve(engine: Engine, address: str = "127.0.0.1", port: int = 7860) -> None:
    """Runs the page until it is interrupted. ValueError if the port is taken."""
    shown = dict(quiet=True, footer_links=[], css_paths=Path(__file__).parent / "static" / "page.css", show_error=True)
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
        raise ValueError(f"--port: {port} cannot be used ({error})") from error
    print(f"The page is at {url} (Ctrl+C ends it)", flush=True)
    page.block_thread()
