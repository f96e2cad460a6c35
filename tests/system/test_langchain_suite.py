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
    # langchain writes out what openai parsed, whose type says that nothing was.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]

# Calls are well formed and forms are kept; which arguments are meant takes more than the bundled
# model's five million parameters.
needs_reason = pytest.mark.xfail(reason="needs a model that reasons")
both_outputs = pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)

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

    @needs_reason
    @both_outputs
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @needs_reason
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @needs_reason
    @both_outputs
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)

    @needs_reason
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)

    @needs_reason
    def test_unicode_tool_call_integration(self, model: BaseChatModel, **options: Any) -> None:
        super().test_unicode_tool_call_integration(model, **options)


class TestResponses(TestChatOpenAI):
    """The same over /v1/responses."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "use_responses_api": True}

    def test_it_is_this_endpoint_that_answers(self, model: BaseChatModel) -> None:
        (server,) = _SERVERS
        model.invoke("Hello")
        assert "POST /v1/responses 200" in server.logs[-1]
