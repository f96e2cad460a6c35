"""``toolkit demo``: a tour in the terminal that ends by itself.

It loads the bundled model, answers a batch, streams, steps the engine once, serves, and measures.
"""

from __future__ import annotations

import time
from typing import Any

from rich.markup import escape
from rich.table import Table

from toolkit.cli.console import out, write

__all__ = ["demo"]

_QUESTIONS = (
    "Hello!",
    "Translate to Italian: I love programming.",
    "Translate to French: We read the book.",
    "What is continuous batching?",
)
_STREAMED = "What is a paged KV cache?"
# Enough steps for a steady rate, few enough for a tour.
_BATCH_SIZES = (1, 8, 32)
_TOKENS_EACH = 64


def demo() -> None:
    """Take a tour: generate, look inside, serve, measure (under a minute)."""
    from toolkit.llm import LLM

    _compile()
    _title("1. A model")
    start_s = time.perf_counter()
    with LLM() as llm:
        out.print(
            f"LLM() is ready after {time.perf_counter() - start_s:.1f} s: a toy, but complete."
        )
        write(repr(llm.memory_plan()))
        _answer_a_batch(llm)
        _stream(llm)
        _step(llm)
        _serve(llm)
        _measure(llm)
    _title("Where to go next")
    write(
        "make lab          the notebooks; 01 starts where this ends\n"
        "toolkit chat      talk to the model\n"
        "toolkit serve     leave a server running: toolkit serve path-or-hub-id\n"
        "toolkit doctor    what this machine has"
    )


def _compile() -> None:
    """Compile the C++ ops if that has not been done: this engine is to use them already."""
    from toolkit.cli.doctor_cpu import compile_ops

    for fact in compile_ops():
        out.print(f"[dim]C++ ops: {escape(fact.value)} {escape(fact.advice)}[/]", soft_wrap=True)


def _answer_a_batch(llm: Any) -> None:
    _title("2. A batch: llm.chat([...])")
    conversations = [_user(question) for question in _QUESTIONS]
    params = llm.sampling_params(temperature=0, max_tokens=48)
    table = Table("prompt", "answer", "tokens", box=None, padding=(0, 2, 0, 0))
    for question, output in zip(
        _QUESTIONS, llm.chat(conversations, params, progress=False), strict=True
    ):
        (sample,) = output.outputs
        table.add_row(escape(question), escape(sample.text.strip()), str(len(sample.token_ids)))
    out.print(table)


def _stream(llm: Any) -> None:
    _title("3. A stream: llm.stream(messages)")
    out.print(f"> {_STREAMED}", style="cyan")
    for piece in llm.stream(_user(_STREAMED), llm.sampling_params(temperature=0, max_tokens=48)):
        write(piece.text, end="")
    write("")


def _step(llm: Any) -> None:
    _title("4. One step, by hand: engine.add(...), engine.step()")
    params = llm.sampling_params(temperature=0, max_tokens=4)
    for question in _QUESTIONS[:2]:
        llm.engine.add(llm.tokenizer.encode_chat(_user(question)), params)
    write(repr(llm.engine.step()))
    llm.engine.run_until_idle()


def _serve(llm: Any) -> None:
    _title("5. A server: serve(llm), asked with the openai client")
    try:
        from toolkit.server import serve
    except ImportError as error:
        out.print(f"left out: {escape(str(error))}")
        return
    with serve(llm, port=0) as server, server.client() as client:
        out.print(f"{server.url}/v1 answers:")
        answer = client.chat.completions.create(
            model=server.model_name,
            messages=[{"role": "user", "content": _QUESTIONS[1]}],
            temperature=0,
            max_tokens=24,
        )
        write(f"  {answer.choices[0].message.content} ({answer.id})")


def _measure(llm: Any) -> None:
    _title("6. Why batching: output tokens per second")
    params = llm.sampling_params(max_tokens=_TOKENS_EACH, ignore_eos=True)
    table = Table("requests at once", "tokens/s", "each gets", box=None, padding=(0, 2, 0, 0))
    for size in _BATCH_SIZES:
        prompts = [llm.tokenizer.encode_chat(_user(_QUESTIONS[i % 4])) for i in range(size)]
        llm.generate(prompts, params, progress=False)  # to warm up
        start_s = time.perf_counter()
        outputs = llm.generate(prompts, params, progress=False)
        duration_s = time.perf_counter() - start_s
        num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        rate = num_tokens / duration_s
        table.add_row(str(size), f"{rate:.0f}", f"{rate / size:.0f}")
    out.print(table)


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _title(text: str) -> None:
    out.print()
    out.rule(f"[bold]{text}[/]", align="left")
