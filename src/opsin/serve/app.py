"""The routes: a page, the JSON API with its description, what the model is, and whether the server is well."""

from __future__ import annotations

import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from opsin.serve import page, schema
from opsin.serve.limits import RETRY
from opsin.serve.service import Reply, Service, reply, said_of
from opsin.version import __version__

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_log = logging.getLogger("opsin.serve")

Answer = Callable[[Request], Awaitable[Reply]]


def create_app(service: Service, *, token: str | None = None, local: bool = True) -> FastAPI:
    """An ASGI application that serves a model.

    token: what clients have to send, as `Authorization: Bearer TOKEN`; None where all may ask. local: it is reached
    from this machine alone: a request under another name of the host is refused, as a web page could make a browser
    send one. Pages of other origins get nothing: there is no CORS, and what a browser marks as theirs is refused.
    """
    app = FastAPI(
        title=f"opsin: {service.name}",
        version=__version__,
        description=service.predictor.room.help,
        docs_url=None,  # its page would come from elsewhere
        redoc_url=None,
        openapi_url=None,
    )
    guard = _Guard(service, token, local)
    described = {"parameters": service.questions.parameters(), "requestBody": schema.request_body(service.limits)}
    found: dict[int | str, dict[str, Any]] = {**schema.responses(service.predictor)}

    async def predict(request: Request) -> Response:
        return await guard.answer(request, lambda one: service.predict(one.stream(), one.headers, _query(one)))

    async def compare(request: Request) -> Response:
        return await guard.answer(request, lambda one: service.compare(one.stream(), one.headers, _query(one)))

    async def meta(request: Request) -> Response:
        return await guard.answer(request, lambda _: _at_once(reply(200, service.meta())))

    async def openapi(request: Request) -> Response:
        return await guard.answer(request, lambda _: _at_once(reply(200, app.openapi())))

    post = {"methods": ["POST"], "openapi_extra": described, "responses": found}
    app.add_api_route("/predict", predict, summary="An answer for each input.", **post)
    if service.compares is True:
        app.add_api_route("/compare", compare, summary="One answer for two images.", **post)
    app.add_api_route("/meta", meta, summary="What the model is, and what it can be asked.")
    app.add_api_route("/healthz", _health(service), summary="Whether the server is well.")
    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
    app.add_api_route("/", _page, include_in_schema=False, methods=["GET", "HEAD"])
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(Exception, _fail)
    return app


class _Guard:
    """Who may ask, before anything of a request is read."""

    def __init__(self, service: Service, token: str | None, local: bool) -> None:
        self.service, self.token, self.local = service, token, local

    async def answer(self, request: Request, answer: Answer) -> Response:
        refused = self._refusal(request)
        try:
            given = await answer(request) if refused is None else refused
        except ClientDisconnect:  # nobody hears the answer
            given = reply(400, {"error": "the request was cut off"})
        return _response(given)

    def _refusal(self, request: Request) -> Reply | None:
        if self.service.stopping.is_set():
            return reply(503, {"error": "the server ends"}, {**RETRY, "Connection": "close"})
        if request.headers.get("sec-fetch-site") == "cross-site":
            return reply(403, {"error": "pages of other origins get no answers here"})
        if self.local and not _is_local(request.headers.get("host", "")):
            return reply(403, {"error": "this server answers to localhost alone; see --host"})
        sent = request.headers.get("authorization", "").encode("utf-8", "replace")
        if self.token is not None and not hmac.compare_digest(sent, b"Bearer " + self.token.encode("utf-8")):
            words = "a token is needed: Authorization: Bearer TOKEN" if not sent else "the token is wrong"
            return reply(401, {"error": words}, {"WWW-Authenticate": "Bearer"})
        return None


def _is_local(host: str) -> bool:
    """Whether a Host header names the loopback."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _query(request: Request) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        found.setdefault(name, []).append(value)
    return found


async def _at_once(given: Reply) -> Reply:
    return given


def _response(given: Reply) -> Response:
    return Response(given.body, given.status, {**_HEADERS, **given.headers})


def _health(service: Service) -> Callable[[], Awaitable[Response]]:
    async def health() -> Response:
        if service.stopping.is_set():
            return _response(reply(503, {"status": "ending"}, RETRY))
        return _response(reply(200, {"status": "ok"}))

    return health


async def _page() -> Response:
    return HTMLResponse(page.html(), headers={**_HEADERS, "Content-Security-Policy": page.policy()})


async def _refuse(request: Request, error: Exception) -> Response:
    """An unknown address or method as JSON."""
    assert isinstance(error, HTTPException)
    allowed = dict(error.headers or {})
    words = {404: f"there is nothing at {request.url.path[:100]!r}", 405: "this address takes other methods"}
    said = words.get(error.status_code, str(error.detail))
    if "allow" in {name.lower() for name in allowed}:
        said += ": " + next(value for name, value in allowed.items() if name.lower() == "allow")
    return _response(reply(error.status_code, {"error": said}, allowed))


async def _fail(request: Request, error: Exception) -> Response:
    """What nobody expected: the log has it, the client learns nothing of the inside."""
    _log.error("%s %s: %s", request.method, request.url.path, said_of(error))
    return _response(reply(500, {"error": "the server failed at this request; its log says why"}))
