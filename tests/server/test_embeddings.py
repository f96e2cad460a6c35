"""POST /v1/embeddings: every kind of input, both encodings, and who else is being served."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from struct import unpack
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from openai.types import CreateEmbeddingResponse

from toolkit import PoolingParams
from toolkit.engine.events import Aborted, RequestAdded, StepFinished
from toolkit.llm import LLM
from toolkit.server import Server, serve

IDS = [40, 41, 42, 43]
WIDTH = 64
TEXTS = ["Hello world", "and the", "love"]


def vectors(llm: LLM, prompts: Any, **pooling: Any) -> list[list[float]]:
    llm.reset_prefix_cache()
    outputs = llm.embed(prompts, PoolingParams(**pooling))
    return [output.outputs.embedding for output in outputs]


def near(vector: list[float]) -> Any:
    return pytest.approx(vector, abs=1e-5)


def post(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/v1/embeddings", json={"model": "tiny", **body})


def refusal(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


@pytest.fixture(autouse=True)
def engine_is_left_clean(llm: LLM) -> Iterator[None]:
    yield
    with llm.engine.paused():
        llm.engine.scheduler.check()
        assert not llm.engine.scheduler.has_work
        assert llm.engine.cache.num_free_blocks == llm.engine.cache.num_blocks


@pytest.mark.parametrize(
    ("sent", "parts"),
    [
        ("Hello world", ["Hello world"]),
        (TEXTS, TEXTS),
        (IDS, [IDS]),
        ([IDS, IDS[:1], IDS], [IDS, IDS[:1], IDS]),
    ],
)
def test_input_is_text_or_token_ids_one_or_many(
    client: openai.OpenAI, llm: LLM, sent: Any, parts: list[Any]
) -> None:
    answer = client.embeddings.create(model="tiny", input=sent)
    assert answer.object == "list"
    assert answer.model == "tiny"
    assert [one.index for one in answer.data] == list(range(len(parts)))
    assert {one.object for one in answer.data} == {"embedding"}
    num_tokens = sum(
        len(llm.tokenizer.encode(part) if isinstance(part, str) else part) for part in parts
    )
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == num_tokens
    for one, vector in zip(answer.data, vectors(llm, parts), strict=True):
        assert one.embedding == near(vector)
        assert sum(x * x for x in one.embedding) == pytest.approx(1.0, abs=1e-5)


def test_numbers_and_base64_say_the_same(http: httpx.Client) -> None:
    plain = post(http, input=TEXTS)
    packed = post(http, input=TEXTS, encoding_format="base64")
    for one, other in zip(plain.json()["data"], packed.json()["data"], strict=True):
        assert len(one["embedding"]) == WIDTH
        raw = base64.b64decode(other["embedding"], validate=True)
        assert list(unpack(f"<{WIDTH}f", raw)) == near(one["embedding"])
    assert plain.headers["content-type"] == "application/json"
    # As the type promises: no field is missing, none is added.
    CreateEmbeddingResponse.model_validate(plain.json(), strict=True, extra="forbid")


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_and_scaling_are_options(
    http: httpx.Client, llm: LLM, pooling: str, normalize: bool
) -> None:
    answer = post(http, input=TEXTS, pooling=pooling, normalize=normalize)
    found = [one["embedding"] for one in answer.json()["data"]]
    expected = vectors(llm, TEXTS, pooling=pooling, normalize=normalize)
    assert found == [near(vector) for vector in expected]


def test_dimensions_shorten_and_scale_anew(client: openai.OpenAI, llm: LLM) -> None:
    answer = client.embeddings.create(model="tiny", input=TEXTS, dimensions=16)
    for one, vector in zip(answer.data, vectors(llm, TEXTS), strict=True):
        norm = sum(x * x for x in vector[:16]) ** 0.5
        assert one.embedding == near([x / norm for x in vector[:16]])


@pytest.mark.parametrize("dimensions", [0, -1, WIDTH + 1, 10**30, 1.5, "8", True])
def test_wrong_dimensions_are_refused(http: httpx.Client, dimensions: Any) -> None:
    assert refusal(post(http, input="Hello", dimensions=dimensions))["param"] == "dimensions"


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ("", "input"),
        ([], "input"),
        ([[]], "input[0]"),
        (["a", ""], "input[1]"),
        ([[1], []], "input[1]"),
        (None, "input"),
        (3, "input"),
        ({"text": "a"}, "input"),
        ([-1], "input"),
        ([[True]], "input"),
        ([1, "a"], "input"),
    ],
)
def test_input_that_is_none_is_refused(http: httpx.Client, sent: Any, param: str) -> None:
    assert refusal(post(http, input=sent))["param"].startswith(param)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoding_format", "hex"),
        ("pooling", "max"),
        ("normalize", "yes"),
        ("truncate_prompt_tokens", 0),
        ("truncate_prompt_tokens", -2),
        ("truncation_side", "middle"),
        ("embed_dtype", "float16"),
        ("endianness", "big"),
        ("priority", 1.5),
        ("cache_salt", ""),
        ("metadata", []),
        ("metadata", {"a": "x" * 513}),
    ],
)
def test_a_wrong_option_is_refused_by_name(http: httpx.Client, field: str, value: Any) -> None:
    assert refusal(post(http, input="Hello", **{field: value}))["param"] == field


def test_an_unknown_model_is_a_404_that_lists_the_names(http: httpx.Client) -> None:
    answer = post(http, model="ada", input="Hello")
    assert answer.status_code == 404
    assert "'tiny'" in answer.json()["error"]["message"]


def test_unknown_fields_are_named_in_a_header(http: httpx.Client) -> None:
    answer = post(http, input="Hello", colour="red", service_tier="auto")
    assert answer.status_code == 200
    assert answer.headers["x-toolkit-ignored"] == "colour"


def test_ids_of_another_vocabulary_are_refused_with_the_way_out(http: httpx.Client) -> None:
    """What LangChain's OpenAIEmbeddings sends by default: tiktoken's ids."""
    error = refusal(post(http, input=[[40, 41], [9906, 1917, 100257]]))
    assert error["param"] == "input[1]"
    assert "100257" in error["message"]
    assert "check_embedding_ctx_length=False" in error["message"]


def test_what_is_too_long_is_refused_and_can_be_truncated(http: httpx.Client, llm: LLM) -> None:
    long = [40 + i % 9 for i in range(513)]
    error = refusal(post(http, input=[IDS, long]))
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "input[1]"
    assert "513 tokens" in error["message"]
    for options, kept in (
        ({"truncate_prompt_tokens": -1}, long[-512:]),
        ({"truncate_prompt_tokens": 100}, long[-100:]),
        ({"truncate_prompt_tokens": 100, "truncation_side": "right"}, long[:100]),
        ({"truncate_prompt_tokens": 600}, None),
    ):
        answer = post(http, input=[long], pooling="mean", **options)
        if kept is None:
            assert refusal(answer)["code"] == "context_length_exceeded"
            continue
        assert answer.json()["usage"]["prompt_tokens"] == len(kept)
        (vector,) = vectors(llm, [kept], pooling="mean")
        assert answer.json()["data"][0]["embedding"] == near(vector)


def test_a_prompt_of_the_whole_context_is_no_error(http: httpx.Client) -> None:
    answer = post(http, input=[40 + i % 9 for i in range(512)])
    assert answer.json()["usage"]["prompt_tokens"] == 512


def test_ids_tables_and_tags_agree(http: httpx.Client, llm: LLM) -> None:
    answer = post(http, input=TEXTS, user="ada", metadata={"tenant": "a"}, priority=3)
    api_id = answer.headers["x-request-id"]
    assert api_id.startswith("embd-")
    assert "wait;dur=" in answer.headers["server-timing"]
    table = llm.engine.record.requests
    rows = table[table["api_id"] == api_id].to_dict("records")
    assert len(rows) == 3
    for row in rows:
        assert row["endpoint"] == "/v1/embeddings"
        assert (row["priority"], row["tags.user"], row["tags.tenant"]) == (3, "ada", "a")
        assert (row["num_output_tokens"], row["finish_reason"]) == (0, "stop")


def test_a_salt_keeps_prefixes_apart(http: httpx.Client, llm: LLM) -> None:
    prompt = [40 + i % 7 for i in range(100)]
    llm.reset_prefix_cache()
    for salt in ("a", "b", "b"):
        assert post(http, input=prompt, cache_salt=salt).status_code == 200
    assert list(llm.engine.record.requests["num_cached_tokens"][-3:]) == [0, 0, 96]


def test_so_many_inputs_as_openai_takes_and_no_more(client: openai.OpenAI, llm: LLM) -> None:
    inputs = [[40 + i % 50, 41 + i // 50] for i in range(2048)]
    answer = client.embeddings.create(model="tiny", input=inputs)
    assert [one.index for one in answer.data] == list(range(2048))
    picked = [0, 777, 2047]
    for index, vector in zip(picked, vectors(llm, [inputs[i] for i in picked]), strict=True):
        assert answer.data[index].embedding == near(vector)
    with pytest.raises(openai.BadRequestError, match="2049 entries") as caught:
        client.embeddings.create(model="tiny", input=[*inputs, [1]])
    assert caught.value.param == "input"


def test_a_long_list_leaves_room_for_others(client: openai.OpenAI, llm: LLM) -> None:
    """Only some steps' worth of its prompts stand in line at a time."""
    in_line: list[int] = []
    engine = llm.engine
    unsubscribe = engine.on(
        StepFinished, lambda event: in_line.append(len(engine.scheduler.unfinished))
    )
    inputs = [[40 + (i + j) % 50 for j in range(64)] for i in range(200)]
    client.embeddings.create(model="tiny", input=inputs)
    unsubscribe()
    a_step = engine.config.scheduler.max_num_batched_tokens
    assert max(in_line) <= 4 * a_step // 64
    assert len(in_line) >= 200 * 64 // a_step


def test_text_is_generated_beside_embeddings(client: openai.OpenAI, llm: LLM) -> None:
    expected = llm.generate("Hello", llm.sampling_params(temperature=0, max_tokens=20))[0].text
    inputs = [[40 + (i * j) % 50 for j in range(50)] for i in range(100)]
    texts: list[str] = []

    def complete() -> None:
        answer = client.completions.create(
            model="tiny", prompt="Hello", max_tokens=20, temperature=0
        )
        texts.append(answer.choices[0].text)

    threads = [threading.Thread(target=complete) for _ in range(4)]
    for thread in threads:
        thread.start()
    answer = client.embeddings.create(
        model="tiny", input=inputs, extra_body={"pooling": "mean"}, encoding_format="float"
    )
    for thread in threads:
        thread.join()
    assert texts == [expected] * 4
    expected_vectors = vectors(llm, inputs, pooling="mean")
    assert [one.embedding for one in answer.data] == [near(v) for v in expected_vectors]


def test_a_client_that_leaves_is_no_longer_worked_for(server: Server, llm: LLM) -> None:
    added: list[RequestAdded] = []
    aborted: list[Aborted] = []
    in_line, ended = threading.Event(), threading.Event()

    def on_added(event: RequestAdded) -> None:
        added.append(event)
        in_line.set()

    def on_aborted(event: Aborted) -> None:
        aborted.append(event)
        if len(aborted) == len(added):
            ended.set()

    unsubscribe = [llm.engine.on(RequestAdded, on_added), llm.engine.on(Aborted, on_aborted)]
    inputs = [[40 + (i + j) % 50 for j in range(500)] for i in range(64)]
    body = json.dumps({"model": "tiny", "input": inputs})
    with llm.engine.paused():  # so that nothing is ready before the client has left
        client = HTTPConnection("127.0.0.1", server.port, timeout=30)
        client.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        assert in_line.wait(timeout=20)
        client.close()
        assert ended.wait(timeout=20)
    for stop in unsubscribe:
        stop()
    assert {event.by for event in aborted} == {"disconnect"}
    assert 0 < len(added) <= 5  # four steps' worth; the others were never put in line


def test_langchains_embeddings_work(server: Server, llm: LLM) -> None:
    embeddings = OpenAIEmbeddings(
        model="tiny",
        base_url=f"{server.url}/v1",
        api_key="EMPTY",
        check_embedding_ctx_length=False,
    )
    found = embeddings.embed_documents(TEXTS)
    assert found == [near(vector) for vector in vectors(llm, TEXTS)]
    assert embeddings.embed_query("love") == near(vectors(llm, ["love"])[0])


def test_the_async_client_works(server: Server, llm: LLM) -> None:
    async def ask() -> list[list[float]]:
        async with server.async_client(max_retries=0) as client:
            calls = [client.embeddings.create(model="tiny", input=text) for text in TEXTS]
            return [answer.data[0].embedding for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [near(vector) for vector in vectors(llm, TEXTS)]


def test_a_servers_own_pooling_is_the_default(llm: LLM) -> None:
    with serve(llm, port=0, embedding_pooling="mean") as server, server.client() as client:
        answer = client.embeddings.create(model=llm.model_name, input="Hello world")
        other = client.embeddings.create(
            model=llm.model_name, input="Hello world", extra_body={"pooling": "cls"}
        )
    assert answer.data[0].embedding == near(vectors(llm, ["Hello world"], pooling="mean")[0])
    assert other.data[0].embedding == near(vectors(llm, ["Hello world"], pooling="cls")[0])
