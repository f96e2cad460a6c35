"""The model's tokenizer as the engine wants it: encode, decode, chat, text that grows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from transformers import AutoTokenizer

from toolkit.errors import CheckpointError, InvalidRequest
from toolkit.request import SamplingParams
from toolkit.text.chat import render_chat, template_of
from toolkit.text.detokenizer import IncrementalText
from toolkit.text.spelling import Spelling, VocabularySpelling, WindowSpelling
from toolkit.text.stop_strings import StopStrings
from toolkit.text.token_bytes import TokenBytes
from toolkit.text.turn_style import TurnStyle

__all__ = ["Tokenizer"]


class Tokenizer:
    """A transformers tokenizer, with what the engine and the server ask of it.

    Args:
        backend: A transformers tokenizer.
        eos_token_ids: Tokens that end a sequence, beside the tokenizer's own.
        chat_template: A Jinja template that replaces the model's.
    """

    def __init__(
        self,
        backend: Any,
        *,
        eos_token_ids: Iterable[int] = (),
        chat_template: str | None = None,
    ) -> None:
        self.backend = backend
        self.chat_template = chat_template
        own = [backend.eos_token_id] if backend.eos_token_id is not None else []
        self._eos_token_ids = frozenset((*eos_token_ids, *own))
        self._rust = getattr(backend, "backend_tokenizer", None)
        self._cleans_up = bool(getattr(backend, "clean_up_tokenization_spaces", False))
        self._token_bytes = TokenBytes(backend, self._decode_all)
        # A step asks for the same tokens again and again when logprobs are on.
        self._token_text = lru_cache(maxsize=65_536)(self._decode_token)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> Tokenizer:
        """Load the tokenizer of a local folder or a hub id.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        advice = (
            f"{model!r} has no tokenizer that could be loaded; pass tokenizer= with a folder, a "
            "hub id or a transformers tokenizer, or tokenizer=False and prompts as token ids"
        )
        try:
            backend = AutoTokenizer.from_pretrained(
                model, revision=revision, trust_remote_code=trust_remote_code
            )
        except (OSError, ValueError, ImportError) as error:
            raise CheckpointError(advice) from error
        # For some families transformers makes up an empty tokenizer where a folder holds none.
        if not backend.encode("a", add_special_tokens=False):
            raise CheckpointError(advice)
        return cls(backend, **kwargs)

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a sequence."""
        return self._eos_token_ids

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Turn text into token ids.

        Raises:
            InvalidRequest: the text holds half a surrogate pair, which is no character.
        """
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InvalidRequest(f"the text is not valid Unicode: {error}") from error
        # Not verbose: how long a prompt may be is the engine's to say, and it does.
        return list(self.backend.encode(text, add_special_tokens=add_special_tokens, verbose=False))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Turn token ids into text, as the tokenizer's decoder writes it.

        Without transformers' ``clean_up_tokenization_spaces``, which takes spaces away from
        punctuation after the fact: streamed text could not be taken back.
        """
        if self._rust is not None:
            return str(self._rust.decode(list(token_ids), skip_special_tokens=skip_special_tokens))
        options = {"clean_up_tokenization_spaces": False} if self._cleans_up else {}
        return str(
            self.backend.decode(token_ids, skip_special_tokens=skip_special_tokens, **options)
        )

    @cached_property
    def longest_token(self) -> int:
        """The most characters that a token of the vocabulary is written with."""
        return max(map(len, self.backend.get_vocab()), default=1)

    @property
    def token_bytes(self) -> TokenBytes:
        """The bytes of every token."""
        return self._token_bytes

    @cached_property
    def turn_style(self) -> TurnStyle:
        """How this model writes calls of tools and reasoning."""
        # With tools there may be another template; it shows the format, and the rest alike.
        return TurnStyle.of(self.chat_template or template_of(self.backend, has_tools=True))

    @cached_property
    def turn_token_ids(self) -> Mapping[str, int]:
        """The special tokens that this model's calls and reasoning are written with, by text."""
        vocabulary = self.backend.get_vocab()
        found = {text: vocabulary.get(text) for text in self.turn_style.specials}
        special_ids = self._token_bytes.special_ids
        return {text: token_id for text, token_id in found.items() if token_id in special_ids}

    def spelling(
        self, *, skip_special_tokens: bool = True, shown_ids: Collection[int] = ()
    ) -> Spelling:
        """Return a new spelling: it gives the bytes that each token of a text stands for.

        Args:
            skip_special_tokens: Whether special tokens are left out of the text.
            shown_ids: Special tokens that stay in it nevertheless.
        """
        if self._token_bytes.is_exact:
            return VocabularySpelling(
                self._token_bytes, skip_special_tokens=skip_special_tokens, shown_ids=shown_ids
            )
        skipped = self._token_bytes.special_ids.difference(shown_ids)
        return WindowSpelling(self._decode_all, skipped_ids=skipped if skip_special_tokens else ())

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """Return tokens as the vocabulary writes them, with its signs for spaces and bytes."""
        return [str(piece) for piece in self.backend.convert_ids_to_tokens(list(token_ids))]

    def token_text(self, token_id: int) -> str:
        """Return one token's own text; U+FFFD where it is a part of a character."""
        return self._token_text(token_id)

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **kwargs: Any) -> str:
        """Return the prompt text of a conversation; see ``toolkit.text.chat.render_chat``."""
        kwargs.setdefault("chat_template", self.chat_template)
        return render_chat(self.backend, messages, **kwargs)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **kwargs: Any) -> list[int]:
        """Return the prompt tokens of a conversation; the template writes the special tokens."""
        return self.encode(self.render_chat(messages, **kwargs), add_special_tokens=False)

    def output_text(
        self, prompt_token_ids: Sequence[int], params: SamplingParams
    ) -> IncrementalText:
        """Return an empty text that grows with a request's tokens."""
        return IncrementalText(
            self.spelling(
                skip_special_tokens=params.skip_special_tokens,
                shown_ids=params.shown_special_token_ids or (),
            ),
            StopStrings(tuple(params.stop or ())),
            include_stop=params.include_stop_str_in_output,
        )

    def _decode_token(self, token_id: int) -> str:
        return self._decode_all([token_id])

    def _decode_all(self, token_ids: Sequence[int]) -> str:
        return self.decode(token_ids, skip_special_tokens=False)

    def __len__(self) -> int:
        return len(self.backend)
