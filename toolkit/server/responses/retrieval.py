"""What can be done with a response afterwards: read it and its input, forget it."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from fastapi import FastAPI, Query, Response
from fastapi import Request as HttpRequest

from toolkit.server.failures import Refusal
from toolkit.server.openapi import documented_answers
from toolkit.server.responses.store import ResponseStore, StoredResponse

__all__ = ["add_stored_routes", "not_found"]

_PATH = "/v1/responses/{response_id:path}"


def add_stored_routes(app: FastAPI) -> None:
    """Let clients come back for the responses in ``app.state.responses``."""
    app.get(f"{_PATH}/input_items")(input_items)
    app.post(f"{_PATH}/cancel")(cancel_response)
    app.get(_PATH, responses=documented_answers(_PATH))(retrieve_response)
    app.delete(_PATH)(delete_response)


async def retrieve_response(response_id: str, http: HttpRequest, stream: bool = False) -> Response:
    """Return a response as it was sent."""
    stored = _stored(response_id, http)
    if stream:
        raise Refusal(
            "only responses that were made in the background can be streamed afterwards, and none "
            "are here: leave stream out",
            param="stream",
        )
    return Response(stored.body, media_type="application/json")


async def input_items(
    response_id: str,
    http: HttpRequest,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> Response:
    """List the items that a response answered, page by page."""
    items = _stored(response_id, http).input
    if order == "desc":
        items.reverse()
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise Refusal(f"after: there is no item {after!r:.80} in this list", param="after")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    listed = {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(items) > limit,
    }
    return Response(orjson.dumps(listed), media_type="application/json")


async def delete_response(response_id: str, http: HttpRequest) -> dict[str, str | bool]:
    """Forget a response."""
    _stored(response_id, http)
    _store(http).delete(response_id)
    return {"id": response_id, "object": "response", "deleted": True}


async def cancel_response(response_id: str, http: HttpRequest) -> Response:
    """Say why nothing can be cancelled."""
    _stored(response_id, http)
    raise Refusal(
        "only responses that are made in the background can be cancelled; to end one that is "
        "being sent, close its connection",
        code="response_not_in_background",
    )


def not_found(response_id: str, store: ResponseStore) -> str:
    """Say that a response is not here, and what may have become of it."""
    return (
        f"response with id {response_id!r:.200} not found: it was never stored (store=false), or "
        f"was deleted, or gave way to newer ones (this server keeps {store.max_responses})"
    )


def _store(http: HttpRequest) -> ResponseStore:
    store: ResponseStore = http.app.state.responses
    return store


def _stored(response_id: str, http: HttpRequest) -> StoredResponse:
    store = _store(http)
    stored = store.get(response_id)
    if stored is None:
        raise Refusal(not_found(response_id, store), status=404, code="response_not_found")
    return stored
