"""LangChain's ChatOpenAI for a server here, which knows how many tokens a text has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx

__all__ = ["chat_model"]


def chat_model(options: dict[str, Any], connect: Callable[[], httpx.Client]) -> Any:
    """Return a ``langchain_openai.ChatOpenAI`` whose token counts come from ``/tokenize``.

    LangChain's own counting knows OpenAI's models alone, and raises for others.

    Args:
        options: What ChatOpenAI takes.
        connect: Makes a client for the server.

    Raises:
        ImportError: langchain-openai is not installed.
    """
    try:
        from langchain_core.messages import convert_to_openai_messages
        from langchain_core.utils.function_calling import convert_to_openai_tool
        from langchain_openai import ChatOpenAI
    except ModuleNotFoundError as error:
        raise ImportError(
            "server.langchain() needs LangChain: pip install langchain-openai"
        ) from error

    def tokens(body: dict[str, Any]) -> list[int]:
        with connect() as http:
            answer = http.post("/tokenize", json={"model": options["model"], **body})
        answer.raise_for_status()
        return list(answer.json()["tokens"])

    class ServedChatOpenAI(ChatOpenAI):
        """ChatOpenAI with the token counts of the model that is served."""

        def get_num_tokens_from_messages(
            self, messages: Sequence[Any], tools: Sequence[Any] | None = None, **_: Any
        ) -> int:
            """Count the tokens of a prompt: the messages as the model's template writes them."""
            body: dict[str, Any] = {"messages": convert_to_openai_messages(messages)}
            if tools is not None:
                body["tools"] = [convert_to_openai_tool(tool) for tool in tools]
            return len(tokens(body))

    # Plain text is not written by the template: nothing is added to it.
    counting = {
        "custom_get_token_ids": lambda text: tokens({"prompt": text, "add_special_tokens": False})
    }
    return ServedChatOpenAI(**{**counting, **options})
