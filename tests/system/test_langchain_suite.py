"""LangChain's own tests for chat models, with ChatOpenAI against the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from toolkit.llm import LLM
from toolkit.server import Server, serve

pytestmark = [
    pytest.mark.slow,
    # The suite tries pydantic's old models too, and langchain says what it does about them.
    pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning"),
]

MODEL = "toolkit-demo"
ALIAS = "toolkit-demo-alias"
_SERVERS: list[Server] = []


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[Server]:
    with LLM(seed=0) as llm, serve(llm, port=0, served_model_name=[MODEL, ALIAS]) as server:
        _SERVERS.append(server)
        yield server
        _SERVERS.clear()


class TestChatOpenAI(ChatModelIntegrationTests):
    """Chat completions, with all that ChatOpenAI can do with text."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        (server,) = _SERVERS
        return {
            "model": MODEL,
            "api_key": "EMPTY",
            "base_url": f"{server.url}/v1",
            "temperature": 0,
            "max_tokens": 256,
            "max_retries": 0,
            "stream_usage": True,
            # langchain keeps its connections from one event loop to the next, where they are dead.
            "default_headers": {"connection": "close"},
        }

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def returns_usage_metadata(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return ALIAS

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> Any:
        """Ask twice: the second time the prompt is in the cache."""
        model = self.chat_model_class(**self.chat_model_params)
        question = "Hello world. " * 20
        model.invoke(question)
        if not stream:
            return model.invoke(question)
        whole: Any = None
        for piece in model.stream(question):
            whole = piece if whole is None else whole + piece
        return whole
