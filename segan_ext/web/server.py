"""The page's server: `/` is the page, `/image` its images, `/api/…` the rest; `/studio` is made when it is visited."""

import asyncio
import contextlib
import errno
import html
import ipaddress
import json
import logging
import socket
import tempfile
import weakref
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from segan_ext.web.api import Api
from segan_ext.web.engine import Engine
from segan_ext.web.session import Sessions
from segan_ext.web.turns import GivenUp, working_on
from segan_ext.web.turns import Request as Work

_STATIC = Path(__file__).parent / "static"
_LARGEST_REQUEST, _LARGEST_UPLOAD = 2**20, 20 * 2**20  # bytes
_OWN_HOSTS = ("127.0.0.1", "localhost", "::1")
_STRICT = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_FAULT = "this cannot be made, by a fault of the server; where the page was started it says more"
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<title>SEGAN studio</title><link rel="stylesheet" href="../static/page.css"><link rel="icon" href="data:,">"""
_OPENING = f"""{_HEAD}<meta http-equiv="refresh" content="1">
<main class="opening"><p role="status">The studio is being opened. This takes a few seconds.</p></main></html>"""
_FAILED = f"""{_HEAD}<main class="opening"><p role="alert">The studio cannot be opened: {{}}.
More of it is where the page was started. <a href="../">Back to the page</a></p></main></html>"""


class Studio:
    """An ASGI application that imports and builds `segan_ext.web.studio`, in a thread, at the first request."""

    def __init__(self, engine: Engine, sessions: Sessions, root_path: str = "") -> None:
        self.engine, self.sessions, self.root_path, self.app, self.task = engine, sessions, root_path, None, None

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answers with the studio, or says that it is being opened"""
        if self.app is not None:
            path = (
                self.root_path + scope["path"]
            )  # ASGI's way to say where an application sits, by which Gradio's links go
            await self.app(dict(scope, root_path=self.root_path, path=path), receive, send)
            return
        if self.task is not None and self.task.done():
            error, self.task = self.task.exception(), None  # a reload tries again
            logging.getLogger("uvicorn.error").error("The studio cannot be opened", exc_info=error)
            await HTMLResponse(_FAILED.format(html.escape(str(error))), status_code=500)(scope, receive, send)
            return
        self.task = self.task or asyncio.create_task(self._run())
        await HTMLResponse(_OPENING)(scope, receive, send)

    async def _run(self):
        from segan_ext.web.studio import mounted  # seconds of imports

        app = await asyncio.to_thread(mounted, self.engine, self.sessions)
        async with app.router.lifespan_context(app):
            self.app = app
            await asyncio.Event().wait()


class Guard:
    """Lets in what the page itself sends: under no name that another site has pointed here, no other site's requests.

    app: what is guarded. local: whether the server listens on localhost alone; else it answers to addresses in numbers
    and to this machine's name too. allowed: further names, such as a proxy's; "*.name" is all below it.
    """

    def __init__(self, app: Callable, local: bool, allowed: Sequence[str] = ()) -> None:
        machine = () if local else (socket.gethostname(), f"{socket.gethostname()}.local", socket.getfqdn())
        self.app, self.local, self.allowed = app, local, [each.lower() for each in allowed]
        self.names = {*_OWN_HOSTS, *(name.lower() for name in machine)}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answers with 403 or passes the request on"""
        if scope["type"] in ("http", "websocket"):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            host, origin = headers.get("host", ""), headers.get("origin")
            if not self._is_ours(_host_name(host)) or (origin and not self._is_own_origin(origin, host)):
                said = "this page answers to its own address alone: open the one that the command has printed, or give "
                said += "the name that you open it by to `segan web --allow-host=NAME`"
                await JSONResponse(dict(error=said), 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_ours(self, name):
        return name in self.names or self._is_allowed(name) or (not self.local and _is_number(name))

    def _is_own_origin(self, origin, host):
        """Behind a proxy the browser's origin is the proxy's, and the host may not be"""
        netloc = origin.partition("://")[2]
        return netloc == host or self._is_allowed(_host_name(netloc))

    def _is_allowed(self, name):
        return any(name == each or (each.startswith("*.") and name.endswith(each[1:])) for each in self.allowed)


def _is_number(name):
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False


def _host_name(host):
    with contextlib.suppress(ValueError):
        return urlsplit(f"//{host}").hostname or ""
    return ""


class Visitors:
    """Runs handlers in threads: of each visitor a few at a time, so that nobody waits behind another's queue."""

    _AT_ONCE, _THREADS = 4, 256  # of a visitor, of all

    def __init__(self) -> None:
        self.places, self.threads = weakref.WeakValueDictionary(), anyio.CapacityLimiter(self._THREADS)

    async def run(self, request: Request, visitor: str, handler: Callable, *args: Any) -> Any:
        """What handler(*args) returns. GivenUp, at its next breath or image, if the browser goes meanwhile."""
        work = Work(visitor)
        leaving = asyncio.create_task(self._until_gone(request, work))
        try:
            async with self.places.setdefault(visitor, asyncio.Semaphore(self._AT_ONCE)):
                if work.given_up:
                    raise GivenUp
                with working_on(work):  # the thread gets a copy of this context
                    return await anyio.to_thread.run_sync(handler, *args, limiter=self.threads)
        finally:
            leaving.cancel()

    @staticmethod
    async def _until_gone(request, work):
        while (await request.receive())["type"] != "http.disconnect":
            pass
        work.given_up = True


def application(engine: Engine, local: bool = True, allowed: Sequence[str] = (), root_path: str = "") -> Callable:
    """The server as an ASGI application. local, allowed: as in `Guard`. root_path: as in `serve`"""
    sessions = Sessions(next(iter(engine.paths)))
    api, studio, visitors = Api(engine, sessions), Studio(engine, sessions, root_path), Visitors()
    page = lambda _: FileResponse(_STATIC / "index.html", headers={"Content-Security-Policy": _STRICT})
    routes = [Route("/", page), Route("/image", _answering(visitors, api.image, api.announce), methods=["POST"])]
    questions = {name: _answering(visitors, getattr(api, name)) for name in Api.QUESTIONS}
    questions |= dict(load=_upload(visitors, api.load), project=_upload(visitors, api.project))
    routes += [Route(f"/api/{name}", answer, methods=["POST"]) for name, answer in questions.items()]
    routes += [Mount("/static", StaticFiles(directory=_STATIC))]
    routes += [Route("/studio", lambda request: RedirectResponse(f"studio/?{request.url.query}"))]
    return Guard(_Below(_Split(Starlette(routes=routes), studio), root_path), local, allowed)


class _Below:
    """Takes a path's beginning away: some proxies pass it on, others do not."""

    def __init__(self, app, root_path):
        self.app, self.root_path = app, root_path

    async def __call__(self, scope, receive, send):
        path = scope.get("path", "")
        if self.root_path and path == self.root_path:
            await RedirectResponse(f"{self.root_path}/")(scope, receive, send)
            return
        if self.root_path and path.startswith(f"{self.root_path}/"):
            path = path.removeprefix(self.root_path)
            scope = dict(scope, path=path, raw_path=quote(path).encode())
        await self.app(scope, receive, send)


class _Split:
    """Requests below /studio/ go to the studio, with their whole path, as Gradio's mount wants it."""

    def __init__(self, page, studio):
        self.page, self.studio = page, studio

    async def __call__(self, scope, receive, send):
        below = scope["type"] in ("http", "websocket") and scope["path"].startswith("/studio/")
        await (self.studio if below else self.page)(scope, receive, send)


def _answering(
    visitors: Visitors, handler: Callable[[dict], object], announce: Callable[[dict], None] = lambda data: None
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint: JSON in, what `handler` returns out. announce: called at once with what has come"""

    async def made(request):
        if request.headers.get("content-type") != "application/json":
            raise ValueError("the page sends application/json")
        try:
            data = json.loads(await _body(request, _LARGEST_REQUEST))
        except (ValueError, RecursionError) as error:
            raise ValueError("this request cannot be read: it is no JSON, too deep, or larger than 1 MB") from error
        if not isinstance(data, dict):
            raise ValueError("the page sends an object")
        announce(data)
        return await visitors.run(request, str(data.get("session")), handler, data)

    async def answer(request):
        return await _answer(request, made(request))

    return answer


def _upload(visitors: Visitors, handler: Callable[..., object]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint: a file in; handler(its path, the values of the address) → what goes out"""

    async def made(request, path):
        if request.headers.get("content-type") != "application/octet-stream":
            raise ValueError("the page sends files as application/octet-stream")
        path.write_bytes(await _body(request, _LARGEST_UPLOAD))
        values = dict(request.query_params)
        return await visitors.run(request, str(values.get("session")), handler, path, values)

    async def answer(request):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            return await _answer(request, made(request, path), {str(path): "the file"})

    return answer


async def _answer(request: Request, made: Awaitable[object], words: dict[str, str] = {}) -> Response:
    """What an endpoint sends: what is made; a 400 with a sentence for what is refused, a 500 with one for what fails.

    words: what a sentence says instead of these.
    """
    try:
        return _response(await made)
    except (ValueError, OSError) as error:
        sentence = str(error)
        for old, new in words.items():
            sentence = sentence.replace(old, new)
        return JSONResponse(dict(error=sentence), 400)
    except GivenUp:
        return Response(status_code=499)  # nobody reads it
    except Exception as error:
        logging.getLogger("uvicorn.error").error("%s cannot be answered", request.url.path, exc_info=error)
        return JSONResponse(dict(error=_FAULT), 500)


def _response(made):
    if isinstance(made, Response):
        return made
    if hasattr(made, "__next__"):
        return StreamingResponse((json.dumps(line) + "\n" for line in made), media_type="application/x-ndjson")
    return JSONResponse(made)


async def _body(request, most):
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise ValueError(f"that is larger than {most // 2**20} MB")
    return bytes(content)


def serve(
    engine: Engine, address: str = "127.0.0.1", port: int = 7860, allowed: Sequence[str] = (), root_path: str = ""
) -> None:
    """Serves the page until it is interrupted. ValueError if the port is taken.

    allowed: names beside this machine's that it is opened by. root_path: below which a proxy has it, "/segan"; "" for
    none.
    """
    root_path = f"/{root_path.strip('/')}" if root_path.strip("/") else ""
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = socket.create_server((address, port), family=family, backlog=128)
    except OSError as error:
        elsewhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        option, value = ("--address", address) if elsewhere else ("--port", port)
        raise ValueError(f"{option}: {value} cannot be used ({error})") from error
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an answer's two packets would wait for each other
    app = application(engine, address in _OWN_HOSTS, allowed, root_path)
    shown = f"[{address}]" if ":" in address else address
    print(f"The page is at http://{shown}:{listening.getsockname()[1]} (Ctrl+C ends it)", flush=True)
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listening])
