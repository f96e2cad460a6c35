"""Responses are kept, found by their ids, and gone on from."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import ResponseItemList

from tests.server.responses.events import require_response, require_valid
from tests.server.responses.talking import ADD, call_text, saying
from toolkit.engine.events import Aborted, TokenSampled
from toolkit.llm import LLM
from toolkit.server import Server, serve


def create(client: openai.OpenAI, sent: Any, **fields: Any) -> Any:
    return client.responses.create(model="tiny", input=sent, max_output_tokens=3, **fields)


def test_a_response_can_be_read_again(client: openai.OpenAI, http: httpx.Client) -> None:
    made = create(client, "Hello")
    assert client.responses.retrieve(made.id) == made
    require_response(http.get(f"/v1/responses/{made.id}").json())


def test_store_false_leaves_nothing_behind(client: openai.OpenAI) -> None:
    made = create(client, "Hello", store=False)
    with pytest.raises(openai.NotFoundError, match="store=false"):
        client.responses.retrieve(made.id)


def test_a_deleted_response_is_gone(client: openai.OpenAI, http: httpx.Client) -> None:
    made = create(client, "Hello")
    answer = http.delete(f"/v1/responses/{made.id}")
    assert answer.json() == {"id": made.id, "object": "response", "deleted": True}
    for call in (http.get, http.delete):
        gone = call(f"/v1/responses/{made.id}")
        assert gone.status_code == 404
        assert gone.json()["error"]["code"] == "response_not_found"


def test_only_background_responses_can_be_cancelled(
    client: openai.OpenAI, http: httpx.Client
) -> None:
    made = create(client, "Hello")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(made.id)
    assert http.post("/v1/responses/resp_1/cancel").status_code == 404


def test_a_response_cannot_be_streamed_afterwards(client: openai.OpenAI) -> None:
    made = create(client, "Hello")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.retrieve(made.id, stream=True)


def test_the_next_response_sees_the_conversation(client: openai.OpenAI) -> None:
    first = create(client, "Hello", temperature=0)
    chained = create(client, "and", previous_response_id=first.id, temperature=0)
    spelled_out = create(
        client,
        [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "and"},
        ],
        temperature=0,
    )
    assert chained.previous_response_id == first.id
    assert chained.usage.input_tokens == spelled_out.usage.input_tokens
    assert chained.output_text == spelled_out.output_text


def test_output_can_be_sent_back_as_it_came(client: openai.OpenAI) -> None:
    first = create(client, "Hello", temperature=0)
    chained = create(client, "and", previous_response_id=first.id, temperature=0)
    sent = [
        {"role": "user", "content": "Hello"},
        *[item.to_dict() for item in first.output],
        {"role": "user", "content": "and"},
    ]
    assert create(client, sent, temperature=0).output_text == chained.output_text


def test_instructions_are_of_one_call_alone(client: openai.OpenAI) -> None:
    plain = create(client, "Hello")
    told = create(client, "Hello", instructions="Be brief.")
    assert told.instructions == "Be brief."
    assert told.usage.input_tokens > plain.usage.input_tokens
    after_plain = create(client, "and", previous_response_id=plain.id)
    # As many tokens, but for what was answered: the instructions are not there any more.
    assert after_plain.usage.input_tokens - plain.usage.input_tokens < 60
    after_told = create(client, "and", previous_response_id=told.id)
    difference = after_told.usage.input_tokens - after_plain.usage.input_tokens
    assert abs(difference) < told.usage.input_tokens - plain.usage.input_tokens


def test_an_unknown_previous_response_is_refused_as_openai_does(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not found") as caught:
        create(client, "Hello", previous_response_id="resp_1")
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


def test_items_are_referred_to_by_id(client: openai.OpenAI) -> None:
    first = create(client, "Hello", temperature=0)
    chained = create(client, "and", previous_response_id=first.id, temperature=0)
    user = client.responses.input_items.list(first.id).data[0]
    sent = [
        {"type": "item_reference", "id": user.id},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "and"},
    ]
    assert create(client, sent, temperature=0).output_text == chained.output_text
    with pytest.raises(openai.BadRequestError, match="no item 'msg_1'"):
        create(client, [{"type": "item_reference", "id": "msg_1"}])


def test_input_items_are_listed_page_by_page(client: openai.OpenAI, http: httpx.Client) -> None:
    sent = [{"role": "user", "content": str(number)} for number in range(5)]
    made = create(client, sent)
    newest_first = list(client.responses.input_items.list(made.id, limit=2))
    oldest_first = list(client.responses.input_items.list(made.id, limit=2, order="asc"))
    assert [item.content[0].text for item in oldest_first] == ["0", "1", "2", "3", "4"]
    assert newest_first == oldest_first[::-1]
    page = http.get(f"/v1/responses/{made.id}/input_items", params={"limit": 2}).json()
    require_valid(ResponseItemList, page)
    assert page["has_more"]
    for wrong, param in (
        ({"limit": 0}, "limit"),
        ({"after": "x"}, "after"),
        ({"order": "x"}, "order"),
    ):
        answer = http.get(f"/v1/responses/{made.id}/input_items", params=wrong)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param


def test_a_loop_of_tools_goes_round(talk: openai.OpenAI, talk_http: httpx.Client) -> None:
    asked = talk.responses.create(
        model="tiny", input="1 + 2?", tools=[ADD], extra_body=saying(call_text(1, 2))
    )
    (call,) = asked.output
    answered = talk.responses.create(
        model="tiny",
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "3"}],
        previous_response_id=asked.id,
        tools=[ADD],
        extra_body=saying("It is 3."),
    )
    assert answered.output_text == "It is 3."
    answer = talk_http.get(f"/v1/responses/{answered.id}/input_items", params={"order": "asc"})
    require_valid(ResponseItemList, answer.json())
    kinds = [item["type"] for item in answer.json()["data"]]
    assert kinds == ["message", "function_call", "function_call_output"]


def test_a_streamed_response_is_kept_too(client: openai.OpenAI) -> None:
    stream = create(client, "Hello", stream=True)
    *_, last = stream
    assert client.responses.retrieve(last.response.id) == last.response


def test_reasoning_is_not_shown_to_the_model_again(
    talk: openai.OpenAI,
) -> None:
    thought = talk.responses.create(
        model="tiny", input="Hello", extra_body=saying("<think>Well, well.</think>Hi")
    )
    plain = talk.responses.create(model="tiny", input="Hello", extra_body=saying("Hi"))
    lengths = [
        talk.responses.create(
            model="tiny", input="and", previous_response_id=each.id, extra_body=saying("")
        ).usage.input_tokens
        for each in (thought, plain)
    ]
    assert lengths[0] == lengths[1]


def test_a_conversation_that_is_too_long_may_lose_its_beginning(client: openai.OpenAI) -> None:
    system = {"role": "system", "content": "Be brief."}
    turns = [
        {"role": role, "content": f"{number}" * 60}
        for number in range(4)
        for role in ("user", "assistant")
    ]
    sent = [system, *turns, {"role": "user", "content": "and"}]
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, sent)
    assert caught.value.code == "context_length_exceeded"
    usage = create(client, sent, truncation="auto").usage
    # What is left is as long as without the first turns, and one turn more does not fit.
    lengths = [create(client, [system, *sent[start:]]).usage.input_tokens for start in (3, 5, 7)]
    assert usage.input_tokens in lengths
    turn_length = lengths[0] - lengths[1]
    assert usage.input_tokens <= 512 - 3 < usage.input_tokens + turn_length


def test_what_cannot_be_dropped_may_still_be_too_long(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, "x" * 3000, truncation="auto")
    assert caught.value.code == "context_length_exceeded"


def test_a_conversation_that_fits_is_not_shortened(client: openai.OpenAI) -> None:
    sent = [{"role": "user", "content": "Hello"}, {"role": "user", "content": "world"}]
    usages = [create(client, sent, truncation=how).usage for how in ("auto", "disabled")]
    assert usages[0].input_tokens == usages[1].input_tokens


def test_the_oldest_response_gives_way_but_not_its_conversation(llm: LLM) -> None:
    with serve(llm, port=0, max_stored_responses=1) as server, server.client() as client:
        model = client.models.list().data[0].id
        first = client.responses.create(model=model, input="Hello", max_output_tokens=3)
        fields = {"model": model, "input": "and", "max_output_tokens": 3}
        second = client.responses.create(**fields, previous_response_id=first.id)
        with pytest.raises(openai.BadRequestError, match="this server keeps 1"):
            client.responses.create(**fields, previous_response_id=first.id)
        third = client.responses.create(**fields, previous_response_id=second.id)
        assert len(client.responses.input_items.list(third.id).data) == 5


def test_ids_agree_everywhere(server: Server, client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(
        model="tiny",
        input="Hello",
        max_output_tokens=2,
        metadata={"tenant": "a"},
        extra_headers={"x-request-id": "mine"},
    )
    made = raw.parse()
    assert made.id.startswith("resp_")
    assert made.metadata == {"tenant": "a"}
    assert raw.headers["x-request-id"] == "mine"
    requests = server.engine.record.requests
    (row,) = requests[requests.api_id == made.id].to_dict("records")
    assert row["client_request_id"] == "mine"
    assert row["endpoint"] == "/v1/responses"
    assert row["tags.tenant"] == "a"
    assert any(made.id in line for line in server.logs)


def test_leaving_a_stream_ends_the_request_and_leaves_nothing_behind(
    client: openai.OpenAI, llm: LLM
) -> None:
    aborted: list[Aborted] = []
    gone = threading.Event()
    # A token takes a millisecond at least, so that the client can leave before the last.
    slowing = llm.engine.on(TokenSampled, lambda event: time.sleep(0.001))
    listening = llm.engine.on(Aborted, lambda event: (aborted.append(event), gone.set()))
    stream = client.responses.create(
        model="tiny", input="Hello", stream=True, extra_body={"ignore_eos": True}
    )
    created = next(iter(stream))
    stream.close()
    assert gone.wait(5)
    slowing()
    listening()
    assert aborted[0].by == "disconnect"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(created.response.id)
