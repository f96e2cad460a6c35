"""``toolkit generate``: continue a prompt, as it is made."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from toolkit.cli.console import out, write
from toolkit.cli.options import (
    Dtype,
    MaxModelLen,
    MaxTokens,
    Model,
    Seed,
    Temperature,
    TopK,
    TopP,
    given,
)

__all__ = ["generate"]


def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    model: Model = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    n: Annotated[int, typer.Option("-n", "--n", help="How many continuations.")] = 1,
    stop: Annotated[list[str] | None, typer.Option(help="Ends the output; repeatable.")] = None,
    dtype: Dtype = "auto",
    max_model_len: MaxModelLen = None,
) -> None:
    """Continue a prompt (plain text completion; `toolkit chat` asks questions)."""
    from toolkit.llm import LLM

    text = sys.stdin.read() if prompt == "-" else prompt
    with LLM(model, dtype=dtype, max_model_len=max_model_len, max_num_seqs=max(n, 1)) as llm:
        params = llm.sampling_params(
            max_tokens=max_tokens,
            n=n,
            stop=stop,
            **given(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed),
        )
        if n == 1:
            num_characters = 0
            for piece in llm.stream(text, params):
                num_characters += len(piece.text)
                write(piece.text, end="")
            write("")
            if not num_characters:
                hint = "the model ended at once; a chat model wants a conversation: `toolkit chat`"
                typer.echo(hint, err=True)
            return
        for sample in llm.generate([text], params)[0].outputs:
            out.rule(f"{sample.index + 1} of {n}")
            write(sample.text)
