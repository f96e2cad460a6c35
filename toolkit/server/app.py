"""The web application: routes, and every error in OpenAI's shape.

Request path: from an HTTP client, to server.chat and server.completions.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Response
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from toolkit.errors import ToolkitError
from toolkit.server.call_counts import CountCalls
from toolkit.server.chat import chat_completions
from toolkit.server.completions import completions
from toolkit.server.dev import EngineSwitch, add_dev_routes
from toolkit.server.embeddings import embeddings
from toolkit.server.failures import Refusal, as_invalid_body, as_refusal
from toolkit.server.fanout import Fanout
from toolkit.server.generation import ClientGone, Generation
from toolkit.server.identity import Identity, KeyCheck
from toolkit.server.limits import BodyLimit, ConcurrencyLimit, TimeLimit
from toolkit.server.metrics import ServerMetrics, load, metrics
from toolkit.server.openapi import ERRORS, documented_answers
from toolkit.server.origins import OriginCheck
from toolkit.server.paths import RootPath
from toolkit.server.responses import ResponseStore, add_stored_routes, create_response
from toolkit.server.served import VERSION, ServedModel
from toolkit.server.settings import ServerSettings
from toolkit.server.tokenize import detokenize, tokenize

__all__ = ["build_app"]

# What scripts of web pages may read of an answer, beside its body.
_EXPOSED_HEADERS = ("x-request-id", "x-toolkit-ignored", "server-timing", "retry-after")


def build_app(
    served: ServedModel,
    *,
    settings: ServerSettings,
    log: Callable[[str], object],
    running: set[Generation],
) -> FastAPI:
    """Return the application that answers for one model.

    Args:
        served: The model.
        settings: The server's; endpoints find them as ``app.state.settings``.
        log: Takes a line per call.
        running: Holds the calls that the engine works for.
    """
    app = FastAPI(
        title=f"LLM Serving Toolkit: {served.root}",
        version=VERSION,
        lifespan=_open,
        responses=dict(ERRORS),
    )
    app.state.served = served
    app.state.settings = settings
    app.state.running = running
    app.state.metrics = ServerMetrics(served)
    app.state.responses = ResponseStore(
        max_responses=settings.max_stored_responses, max_bytes=settings.max_stored_bytes
    )
    app.get("/health")(health)
    app.get("/ping")(health)
    app.post("/ping")(health)
    app.get("/metrics", response_class=Response, responses=documented_answers("/metrics"))(metrics)
    app.get("/load")(load)
    app.get("/version")(toolkit_version)
    app.get("/v1/models", response_model=None, responses=documented_answers("/v1/models"))(
        list_models
    )
    one = "/v1/models/{name:path}"
    app.get(one, response_model=None, responses=documented_answers(one))(show_model)
    for path, endpoint in (
        ("/v1/chat/completions", chat_completions),
        ("/v1/completions", completions),
        ("/v1/embeddings", embeddings),
        ("/v1/responses", create_response),
        ("/tokenize", tokenize),
        ("/detokenize", detokenize),
    ):
        app.post(path, dependencies=[Depends(require_text)], responses=documented_answers(path))(
            endpoint
        )
    add_stored_routes(app)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    add_dev_routes(app, EngineSwitch(served.engine), documented=settings.dev)
    _add_layers(app, settings, log)
    return app


def _add_layers(app: FastAPI, settings: ServerSettings, log: Callable[[str], object]) -> None:
    """Put the layers around the application, the innermost first."""
    if settings.request_timeout_s is not None:
        app.add_middleware(TimeLimit, timeout_s=settings.request_timeout_s)
    app.add_middleware(
        BodyLimit, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s
    )
    app.add_middleware(ConcurrencyLimit, max_requests=settings.max_concurrent_requests)
    app.add_middleware(OriginCheck, allowed_origins=settings.allowed_origins)
    app.add_middleware(
        KeyCheck,
        api_keys=settings.api_keys,
        dev=settings.dev,
        control_key=settings.control_key,
    )
    if settings.allowed_origins:  # outside the keys: a browser's preflight brings none
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=settings.allowed_methods,
            allow_headers=settings.allowed_headers,
            allow_credentials=settings.allow_credentials,
            expose_headers=_EXPOSED_HEADERS,
        )
    app.add_middleware(CountCalls, counts=app.state.metrics.calls)
    app.add_middleware(Identity, log=log)  # refused calls have an id too
    if settings.root_path:
        app.add_middleware(RootPath, root_path=settings.root_path)


@asynccontextmanager
async def _open(app: FastAPI) -> AsyncIterator[None]:
    """Count, and carry pieces into the event loop, which exists only now, until the end."""
    app.state.fanout = Fanout(asyncio.get_running_loop())
    app.state.metrics.open()
    try:
        yield
    finally:
        app.state.metrics.close()


async def health(http: HttpRequest) -> dict[str, str]:
    """Say whether requests would run."""
    engine = http.app.state.served.engine
    if engine.failure is not None:
        raise as_refusal(engine.failure)
    if not engine.is_started:
        raise Refusal(
            "the engine does not run",
            status=503,
            kind="server_error",
            code="engine_unavailable",
        )
    return {"status": "ok"}


async def toolkit_version() -> dict[str, str]:
    """Return the toolkit's version."""
    return {"version": VERSION}


async def list_models(http: HttpRequest) -> dict[str, Any]:
    """List the names that the model answers to."""
    served: ServedModel = http.app.state.served
    cards = [served.card(name).model_dump(exclude_unset=True) for name in served.listed_names]
    return {"object": "list", "data": cards}


async def show_model(name: str, http: HttpRequest) -> dict[str, Any]:
    """Describe the model under one of its names."""
    served: ServedModel = http.app.state.served
    return served.card(served.echoed_name(name)).model_dump(exclude_unset=True)


async def require_text(http: HttpRequest) -> None:
    """Refuse what Python takes for JSON: UTF-16, NaN, half a surrogate pair, which is no text."""
    body = await http.body()
    if not json.detect_encoding(body).startswith("utf-8"):
        raise Refusal("the body is not valid JSON: it is not written in UTF-8")
    may_lack_text = b"\\ud" in body.lower()
    if not may_lack_text and b"NaN" not in body and b"Infinity" not in body:
        return
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
        if may_lack_text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refusal(f"the body holds what is no text: {error.reason}") from error
    except (ValueError, RecursionError):
        return  # not JSON either: the validation of the body says so


def _refuse_constant(name: str) -> None:
    raise Refusal(f"the body is not valid JSON: it has no {name}")


async def _on_error(http: HttpRequest, error: Exception) -> Response:
    return as_refusal(error).response(http.scope)


async def _on_client_gone(http: HttpRequest, error: Exception) -> Response:
    return Response(status_code=499)  # nginx's "client closed request"; nobody reads it


async def _on_deep_body(http: HttpRequest, error: Exception) -> Response:
    return Refusal("the body nests lists and objects too deeply").response(http.scope)


async def _on_invalid_body(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return as_invalid_body(error.errors()).response(http.scope)


async def _on_http_error(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # FastAPI's, where parsing fails in a way it does not foresee
        return Refusal("the body is not valid JSON in UTF-8").response(http.scope)
    if error.status_code not in (404, 405):
        return Refusal(str(error.detail), status=error.status_code).response(http.scope)
    return Refusal(
        f"{http.method} {http.url.path} is not served here; {_advice(http, error)}",
        status=error.status_code,
        code="unknown_url" if error.status_code == 404 else "method_not_allowed",
        headers=error.headers,
    ).response(http.scope)


def _advice(http: HttpRequest, error: HTTPException) -> str:
    """Say what is served instead: the right method, the same path under /v1, or all paths."""
    methods = (error.headers or {}).get("allow")
    if error.status_code == 405 and methods:
        return f"use {methods}"
    routes = [route for route in http.app.routes if isinstance(route, APIRoute)]
    if f"/v1{http.url.path}" in {route.path for route in routes}:
        return f"/v1{http.url.path} is: a client's base_url ends with /v1"
    served = ", ".join(
        f"{method} {route.path.replace(':path', '')}"
        for route in routes
        if route.include_in_schema
        for method in sorted(route.methods or ())
    )
    return f"served: {served}; GET /docs describes them"


_HANDLERS = {
    Refusal: _on_error,
    RecursionError: _on_deep_body,
    ToolkitError: _on_error,
    ClientGone: _on_client_gone,
    RequestValidationError: _on_invalid_body,
    HTTPException: _on_http_error,
}
