"""The server of the page: on this computer only, and only for who has its token."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from torch_nano.errors import TorchNanoError

from .session import LiveSession

HOST = "127.0.0.1"
_FOLDER = Path(__file__).parent
_FILES = {
    "/": ("live.html", "text/html"),
    "/live.js": ("live.js", "text/javascript"),
    "/live.css": ("live.css", "text/css"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
#: Seconds after which an unchanged state is sent again, so that a page sees that the server is there.
_HEARTBEAT = 5.0
#: Seconds between two states at least: a page needs no more.
_FASTEST = 0.05

_Handler = Callable[[Request], Awaitable[Response]]


class LiveServer:
    """Serves a session's page at :attr:`url` while :meth:`run` runs.

    Args:
        port: 0: any that is free.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, session: LiveSession, port: int = 0) -> None:
        self._session = session
        self.token = secrets.token_urlsafe(24)
        self._socket = socket.create_server((HOST, port))
        self.port: int = self._socket.getsockname()[1]
        routes = [Route(path, _file(*file)) for path, file in _FILES.items()]
        routes += [
            Route("/events", self._guarded(self._events)),
            Route("/do/{action}", self._guarded(self._do), methods=["POST"]),
        ]
        # Another page's name for this computer is refused: its scripts cannot read what is here.
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        self._server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=routes, middleware=[hosts]),
                ws="none",
                lifespan="off",
                log_level="warning",
                timeout_graceful_shutdown=1,
            )
        )

    @property
    def url(self) -> str:
        """The page's address with its token, which is in the fragment: no server and no log sees it."""
        return f"http://{HOST}:{self.port}/#{self.token}"

    def run(self) -> None:
        """Serves until Ctrl-C, or :meth:`stop`."""
        self._session.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._session.close()
            self._socket.close()

    def stop(self) -> None:
        """Ends :meth:`run`; for other threads."""
        self._server.should_exit = True

    def _guarded(self, handler: _Handler) -> _Handler:
        async def handle(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                error = "wrong token: open the address that torch-nano live printed"
                return JSONResponse({"error": error}, 403, _HEADERS)
            return await handler(request)

        return handle

    async def _events(self, request: Request) -> Response:
        async def states() -> AsyncIterator[str]:
            version = -1
            while not (self._session.ended or self._server.should_exit):
                version = await run_in_threadpool(self._session.wait, version, _HEARTBEAT)
                yield json.dumps(await run_in_threadpool(self._session.state)) + "\n"
                await asyncio.sleep(_FASTEST)

        return StreamingResponse(states(), media_type="application/x-ndjson", headers=_HEADERS)

    async def _do(self, request: Request) -> Response:
        try:
            asked = await request.json()
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return JSONResponse({"error": "expected a JSON object"}, 400, _HEADERS)
        session, action = self._session, request.path_params["action"]
        match action, asked:
            case "teach", {"class": int(label)}:
                act: Callable[[], str] = lambda: session.teach(label)  # noqa: E731
            case "add", {"name": str(name)}:
                act = lambda: session.add_class(name)  # noqa: E731
            case "undo", {}:
                act = session.undo
            case "save", {}:
                act = session.save
            case _:
                error = f"there is no {action!r} of {sorted(asked)}; expected teach, add, undo or save"
                return JSONResponse({"error": error}, 400, _HEADERS)
        try:
            return JSONResponse({"done": await run_in_threadpool(act)}, headers=_HEADERS)
        except TorchNanoError as error:
            return JSONResponse({"error": str(error)}, 409, _HEADERS)


def _file(name: str, media_type: str) -> _Handler:
    async def handle(request: Request) -> Response:
        return Response((_FOLDER / name).read_bytes(), media_type=media_type, headers=_HEADERS)

    return handle
