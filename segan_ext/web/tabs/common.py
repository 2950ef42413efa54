"""What the tabs share."""

from collections.abc import Callable

import gradio as gr

from segan_ext.web.session import Session

LIVE = dict(trigger_mode="always_last", show_progress="hidden", concurrency_limit=None)  # for what answers at once
LONG = dict(concurrency_id="long", concurrency_limit=8)


def stopper(work: str) -> Callable[[Session], None]:
    """A handler that ends this browser's long work of that name after its current step"""
    return lambda session: session.stopped.add(work)


def refused(error: Exception | str) -> gr.Error:
    """A message in the browser"""
    return gr.Error(str(error), print_exception=False)
