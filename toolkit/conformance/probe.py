"""Talks to a server over plain HTTP, as no client library would let a check do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any

import httpx

from toolkit.conformance.verdicts import Failed, NotSupported, excerpt, expect

__all__ = ["Answer", "Probe", "Stream"]

Json = dict[str, Any]
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
# How a server says that it has no such endpoint or feature.
_ABSENT = (404, 405, 501)
_REFUSED = (400, 404, 405, 422, 501)


@dataclass(frozen=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: httpx.Headers
    text: str

    @cached_property
    def json(self) -> Any:
        """The body; raises Failed if it is no JSON."""
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise Failed(f"status {self.status}, and the body is no JSON", self.text) from error

    @property
    def error(self) -> Json:
        """The error object; raises Failed unless it is nested, as OpenAI's is."""
        error = self.json.get("error") if isinstance(self.json, dict) else None
        if not isinstance(error, dict):
            raise Failed("no object under the key 'error'", self.text)
        message = error.get("message")
        expect(isinstance(message, str) and message, "error.message is no text", self.text)
        return error


@dataclass(frozen=True)
class Stream:
    """A stream that was read to its end."""

    headers: httpx.Headers
    payloads: tuple[str, ...]  # what stands after "data:", event by event
    kinds: tuple[str, ...]  # and after "event:", "" where there is none

    @property
    def is_done(self) -> bool:
        """Whether it ended with [DONE]."""
        return bool(self.payloads) and self.payloads[-1] == "[DONE]"

    @cached_property
    def chunks(self) -> list[Json]:
        """The events but [DONE]; raises Failed if one is no JSON, or an error."""
        chunks = []
        for payload in self.payloads:
            if payload == "[DONE]":
                continue
            try:
                chunk = json.loads(payload)
            except ValueError as error:
                raise Failed("an event is no JSON", payload) from error
            expect(isinstance(chunk, dict), "an event is no JSON object", payload)
            expect(chunk.get("error") is None, "the stream broke off with an error", payload)
            chunks.append(chunk)
        return chunks

    def choices(self, index: int = 0) -> list[Json]:
        """Return the parts of one choice."""
        return [c for chunk in self.chunks for c in chunk["choices"] if c["index"] == index]

    def text(self, index: int = 0) -> str:
        """Return the joined text of one choice, of either endpoint."""
        parts = self.choices(index)
        return "".join((c.get("text") or c.get("delta", {}).get("content") or "") for c in parts)


class Probe:
    """A client of one server that remembers what it sent and got last.

    Args:
        url: Where the server is, with or without ``/v1``.
        api_key: What to send, if anything.
        model: The name to ask for; the first that the server lists by default.
        timeout_s: How long one answer may take.
    """

    def __init__(
        self, url: str, *, api_key: str | None, model: str | None, timeout_s: float
    ) -> None:
        url = url if "://" in url else f"http://{url}"
        self.root = url.rstrip("/").removesuffix("/v1")
        self.api_key = api_key
        self.notes: list[str] = []
        self.last_sent: Any = None
        self.last_received: Any = None
        self._model = model
        self._http = httpx.Client(base_url=self.root, timeout=timeout_s)
        if api_key is not None:
            self._http.headers["authorization"] = f"Bearer {api_key}"

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def begin(self) -> None:
        """Forget the notes of the check before."""
        self.notes = []

    def note(self, text: str) -> None:
        """Write down what is no fault, but worth knowing."""
        self.notes.append(text)

    @property
    def model(self) -> str:
        """The model to ask for."""
        if self._model is None:
            listed = self.ok(self.get("/v1/models"))
            cards = listed.get("data")
            expect(isinstance(cards, list) and cards, "the list of models is empty", listed)
            self._model = str(listed["data"][0]["id"])
        return self._model

    # ---- one exchange

    def get(self, path: str, **options: Any) -> Answer:
        """GET a path."""
        return self._exchange("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> Answer:
        """POST JSON, or bytes as they are."""
        if isinstance(body, bytes):
            headers = {"content-type": "application/json", **options.pop("headers", {})}
            return self._exchange("POST", path, content=body, headers=headers, **options)
        return self._exchange("POST", path, json=body, **options)

    def stream(self, path: str, body: Json, *, optional: str = "") -> Stream:
        """POST and read the events to the end; see ``ok`` for ``optional``."""
        self.last_sent = body
        with self._http.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                response.read()
                answer = Answer(response.status_code, response.headers, response.text)
                self.last_received = answer.text
                self.ok(answer, optional=optional)
                raise Failed(f"status {response.status_code} in place of a stream", answer.text)
            payloads, kinds, kind = [], [], ""
            for line in response.iter_lines():
                if line.startswith("event:"):
                    kind = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    payloads.append(line.removeprefix("data:").strip())
                    kinds.append(kind)
                    kind = ""
            self.last_received = "\n".join(payloads)
            return Stream(response.headers, tuple(payloads), tuple(kinds))

    def open_stream(self, path: str, body: Json) -> Any:
        """Return httpx's own context manager of a stream, to leave it early."""
        return self._http.stream("POST", path, json=body)

    def ok(self, answer: Answer, *, optional: str = "") -> Json:
        """Return the JSON of a 200; raises Failed for anything else.

        Args:
            answer: What came back.
            optional: What was asked for, if a server may refuse it; a clear refusal then raises
                NotSupported.
        """
        if answer.status == 200:
            expect(isinstance(answer.json, dict), "the answer is no JSON object", answer.text)
            expect(answer.json.get("error") is None, "an error inside a 200 answer", answer.text)
            return dict(answer.json)
        if optional and answer.status in _REFUSED:
            raise NotSupported(f"{optional}: {answer.status}: {answer.error['message'][:200]}")
        raise Failed(f"status {answer.status} in place of 200", answer.text)

    def endpoint(self, path: str, body: Json) -> Json:
        """POST to an endpoint that a server may lack."""
        answer = self.post(path, body)
        if answer.status in _ABSENT:
            raise NotSupported(f"POST {path} answers {answer.status}")
        return self.ok(answer, optional=f"POST {path}")

    # ---- calls for tokens

    def chat_body(self, fields: Json) -> Json:
        """Return a short conversation with these fields."""
        messages = [{"role": "user", "content": "Count from one to ten."}]
        return {"model": self.model, "messages": messages, "max_tokens": 16, **fields}

    def chat(self, *, optional: str = "", **fields: Any) -> Json:
        """Return a chat answer."""
        return self.ok(self.post(CHAT, self.chat_body(fields)), optional=optional)

    def chat_stream(self, *, optional: str = "", **fields: Any) -> Stream:
        """Return a chat answer as a stream."""
        body = self.chat_body({"stream": True, **fields})
        return self.stream(CHAT, body, optional=optional)

    def completion_body(self, fields: Json) -> Json:
        """Return a short prompt with these fields."""
        return {"model": self.model, "prompt": "One, two, three,", "max_tokens": 16, **fields}

    def completion(self, *, optional: str = "", **fields: Any) -> Json:
        """Return a text completion; a server may lack the endpoint."""
        answer = self.post(COMPLETIONS, self.completion_body(fields))
        if answer.status in (405, 501) or (answer.status == 404 and "prompt" not in answer.text):
            raise NotSupported(f"POST {COMPLETIONS} answers {answer.status}")
        return self.ok(answer, optional=optional)

    def completion_stream(self, *, optional: str = "", **fields: Any) -> Stream:
        """Return a text completion as a stream; a server may lack the endpoint."""
        body = self.completion_body({"stream": True, **fields})
        return self.stream(COMPLETIONS, body, optional=optional or COMPLETIONS)

    def _exchange(self, method: str, path: str, **options: Any) -> Answer:
        self.last_sent = options.get("json", f"{method} {path}")
        response = self._http.request(method, path, **options)
        self.last_received = response.text
        return Answer(response.status_code, response.headers, response.text)

    def __repr__(self) -> str:
        return f"Probe({self.root}, last sent {excerpt(self.last_sent)})"
