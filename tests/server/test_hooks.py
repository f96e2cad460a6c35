"""Hooks that serve() was given by name are chosen by the requests that want them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from toolkit import LLM, Hook, Steer
from toolkit.errors import InvalidConfig
from toolkit.server import Server, serve

HIDDEN = 64
VECTOR = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0)) * 9


def turn(x: torch.Tensor, at: Any) -> torch.Tensor:
    return x.flip(-1)


def fail(x: torch.Tensor, at: Any) -> torch.Tensor:
    raise ValueError("a slip")


NAMED = {
    "steer": Steer(VECTOR, layer=0),
    "both": [Steer(VECTOR, layer=0), Hook("logits", turn)],
    "fresh": lambda: [Steer(VECTOR, layer=0)],
    "broken": Hook("embed", fail),
    "nothing": lambda: None,
}


@pytest.fixture(scope="module")
def hooked(model_folder: Path) -> Iterator[Server]:
    with (
        LLM(str(model_folder), num_kv_blocks=64) as llm,
        serve(llm, port=0, hooks=NAMED) as server,
    ):
        yield server


def complete(server: Server, *names: str, **fields: Any) -> str:
    extra = {"hooks": list(names)} if names else {}
    with server.client(max_retries=0) as client:
        answer = client.completions.create(
            model=server.model_name,
            prompt="Hello world",
            temperature=0,
            max_tokens=8,
            extra_body=extra,
            **fields,
        )
    return answer.choices[0].text


def test_a_request_chooses_hooks_by_name(hooked: Server):
    plain = complete(hooked)
    steered = complete(hooked, "steer")
    assert steered != plain
    assert complete(hooked, "fresh") == steered
    assert complete(hooked, "both") != steered
    assert complete(hooked) == plain


def test_a_chat_does_too(hooked: Server):
    def answer(**extra: Any) -> str | None:
        with hooked.client(max_retries=0) as client:
            chat = client.chat.completions.create(
                model=hooked.model_name,
                messages=[{"role": "user", "content": "Hello"}],
                temperature=0,
                max_tokens=8,
                extra_body=extra,
            )
        return chat.choices[0].message.content

    assert answer(hooks=["steer"]) != answer()


def test_an_unknown_name_is_told_the_known_ones(hooked: Server):
    with pytest.raises(openai.BadRequestError, match="'gone'; there are 'steer', 'both'"):
        complete(hooked, "gone")


def test_a_function_that_returns_no_hook_fails_its_request(hooked: Server):
    with pytest.raises(openai.BadRequestError, match="hooks are Hook"):
        complete(hooked, "nothing")


def test_a_hook_that_raises_fails_its_request_and_the_server_goes_on(hooked: Server):
    plain = complete(hooked)
    with pytest.raises(openai.InternalServerError, match="fail at embed raised"):
        complete(hooked, "broken")
    assert complete(hooked) == plain


def test_what_clients_ask_for_can_be_captured(hooked: Server):
    with hooked.engine.hooks.capture("layers.*.resid_post", positions="prompt") as cap:
        complete(hooked)
    ((request_id, captured),) = cap.items()
    assert captured["layers.1.resid_post"].shape[1] == HIDDEN
    requests = hooked.engine.record.requests
    assert request_id in set(requests["request_id"])


def test_hooks_that_do_not_fit_are_refused_before_the_server_answers(model_folder: Path):
    with pytest.raises(InvalidConfig, match="'a' does not fit: hooks are Hook"):
        serve(str(model_folder), port=0, hooks={"a": "print"})
    with pytest.raises(InvalidConfig, match=r"'b' does not fit: llama has no point 'layers\.9\.q'"):
        serve(str(model_folder), port=0, hooks={"b": [Hook("layers.9.q", turn)]})
