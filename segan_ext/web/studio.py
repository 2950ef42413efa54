"""The studio below /studio: naming, painting and training, in Gradio, which is imported when it is first visited."""

import dataclasses
import secrets
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr

from segan_ext.web.engine import Engine
from segan_ext.web.session import Session, Sessions
from segan_ext.web.tabs.edit import EditTab
from segan_ext.web.tabs.name import NameTab
from segan_ext.web.tabs.train import TrainTab

_LARGEST_UPLOAD = "20mb"
_UPLOADS = (600, 3600)  # seconds between looks at what was uploaded, and after which it is deleted
_TABS = ("name", "edit", "train")


def build(engine: Engine, sessions: Sessions) -> gr.Blocks:
    """The studio as `gr.Blocks`. engine: with one network at least. sessions: those of the page's browsers"""
    with gr.Blocks(title="SEGAN studio", analytics_enabled=False, delete_cache=_UPLOADS) as page:
        session, key = gr.State(Session(sessions.network)), gr.State("")
        back = gr.HTML(elem_id="back")
        with gr.Tabs() as tabs:
            with gr.Tab("Name", id="name") as name_tab:
                name = NameTab(engine, session, name_tab)
            with gr.Tab("Edit", id="edit") as edit_tab:
                edit = EditTab(engine, session, edit_tab)
            with gr.Tab("Train", id="train") as train_tab:
                TrainTab(engine, session, train_tab)
        entered = page.load(_enter(sessions), None, [session, key, back, tabs])
        entered.success(name.ask, name.words, name.asked)
        link = gr.Textbox(visible="hidden")
        to_page = "address => { location.href = address; }"
        edit.use.click(_from_edit, [session, key], link).success(None, link, None, js=to_page)
    return page


def _enter(sessions):
    def enter(request: gr.Request):
        """The session that the address names, and the tab"""
        asked = dict(request.query_params)
        key = asked.get("session") or secrets.token_hex(16)
        try:
            session = sessions.of(key)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        tab = asked.get("tab") if asked.get("tab") in _TABS else _TABS[0]
        return session, key, f'<a href="../?session={key}">Back to the page</a>', gr.Tabs(selected=tab)

    return enter


def _from_edit(session, key):
    """Address of the page, which begins with what painting has made of the view"""
    if session.view.network not in session.edited:
        raise gr.Error("apply an edit first", print_exception=False)
    session.view = dataclasses.replace(
        session.view, w=session.edited[session.view.network], mix_layers=(), source="painting"
    )
    return f"../?session={key}&painted=1"


def mounted(engine: Engine, sessions: Sessions) -> fastapi.FastAPI:
    """The studio as an application that answers below /studio; its lifespan has to be entered."""
    page = build(engine, sessions).queue(default_concurrency_limit=4, max_size=64)
    options: dict[str, Any] = dict(footer_links=[], css_paths=Path(__file__).parent / "static" / "studio.css")
    options |= dict(show_error=True, max_file_size=_LARGEST_UPLOAD, ssr_mode=False)
    return gr.mount_gradio_app(fastapi.FastAPI(), page, "/studio", **options)
