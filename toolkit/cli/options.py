"""Options that several commands share, with vLLM's names where the meaning agrees."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "Dtype",
    "MaxModelLen",
    "MaxTokens",
    "Model",
    "Seed",
    "Temperature",
    "TopK",
    "TopP",
    "given",
]

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A folder or hub id; the bundled demo model by default."),
]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
MaxModelLen = Annotated[
    int | None, typer.Option(help="Longest sequence, prompt and output, in tokens.")
]
MaxTokens = Annotated[int | None, typer.Option(help="Output tokens at most.")]
Temperature = Annotated[
    float | None, typer.Option(help="0 is greedy; the model's own default when left out.")
]
TopP = Annotated[float | None, typer.Option(help="Keep the likeliest tokens up to this sum.")]
TopK = Annotated[int | None, typer.Option(help="Keep this many likeliest tokens.")]
Seed = Annotated[int | None, typer.Option(help="Makes the answer repeatable.")]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}
