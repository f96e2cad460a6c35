"""POST /v1/responses: OpenAI's newer API for answers, with the conversation kept by the server.

A body becomes that of a chat (``chat_body``), which decides everything about prompt, sampling,
tools and form; what is here is only how this endpoint spells its input and its answer.
"""

from toolkit.server.responses.endpoint import create_response
from toolkit.server.responses.retrieval import add_stored_routes
from toolkit.server.responses.store import ResponseStore

__all__ = ["ResponseStore", "add_stored_routes", "create_response"]
