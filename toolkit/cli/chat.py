"""``toolkit chat``: talk to a model in the terminal."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.markup import escape

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
from toolkit.errors import InvalidRequest

__all__ = ["Conversation", "chat"]

_HELP = """\
/system TEXT  set the system message and start anew
/reset        forget the conversation
/help         show this
/quit         leave; so does Ctrl-D
Ctrl-C stops an answer."""


def chat(
    model: Model = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    dtype: Dtype = "auto",
    max_model_len: MaxModelLen = None,
) -> None:
    """Talk to a model in the terminal; /help says what else can be typed."""
    from toolkit.llm import LLM

    # Line editing and history for input(); not every system has it.
    with suppress(ImportError):
        import readline  # noqa: F401 (importing it is what turns it on)

    with LLM(model, dtype=dtype, max_model_len=max_model_len, max_num_seqs=1) as llm:
        chosen = given(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
        conversation = Conversation(
            llm, llm.sampling_params(max_tokens=max_tokens, **chosen), system=system
        )
        out.print(f"[bold]{escape(llm.model_name)}[/] is here. /help lists what can be typed.")
        llm.engine.start()
        while _one_turn(conversation):
            pass


class Conversation:
    """What was said, and what is to be said next.

    Args:
        llm: The ``LLM`` that answers.
        params: How its answers are sampled.
        system: What stands before everything.
    """

    def __init__(self, llm: Any, params: Any, *, system: str | None = None) -> None:
        self._llm = llm
        self._params = params
        self._system = system
        self.messages: list[dict[str, str]] = []
        self.reset()

    def reset(self, system: str | None = None) -> None:
        """Forget what was said; a system message given here stays for good."""
        self._system = system or self._system
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def answer(self, text: str) -> None:
        """Answer as the tokens come; Ctrl-C ends the answer, and what was said so far counts."""
        self.messages.append({"role": "user", "content": text})
        said, num_tokens, start_s = "", 0, time.perf_counter()
        try:
            for piece in self._llm.stream(self.messages, self._params):
                shown = piece.text if said else piece.text.lstrip()
                write(shown, end="")
                said += shown
                num_tokens += len(piece.token_ids)
        except KeyboardInterrupt:
            out.print(" [dim](stopped)[/]", end="")
        except InvalidRequest as error:
            self.messages.pop()
            out.print(f"[red]{escape(str(error))}[/] /reset starts anew.", soft_wrap=True)
            return
        duration_s = time.perf_counter() - start_s
        self.messages.append({"role": "assistant", "content": said})
        out.print(f"\n[dim]{num_tokens} tokens, {num_tokens / duration_s:.0f} tokens/s[/]")


def _one_turn(conversation: Conversation) -> bool:
    """Read a line and act on it; return whether to go on."""
    try:
        line = input("> ").strip()
    except KeyboardInterrupt:
        out.print("\n[dim]Ctrl-D or /quit leaves.[/]")
        return True
    except EOFError:
        out.print()
        return False
    command, _, rest = line.partition(" ")
    if command in ("/quit", "/exit"):
        return False
    if command in ("/reset", "/system"):
        conversation.reset(rest.strip() or None if command == "/system" else None)
        out.print("[dim]A new conversation.[/]")
    elif command == "/help" or command.startswith("/"):
        out.print(_HELP, markup=False)
    elif line:
        conversation.answer(line)
    return True
