from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.widgets.answers import Words, answer_of
from toolkit.errors import InvalidRequest
from toolkit.request import EmbeddingOutput, EmbeddingRequestOutput, Logprob
from toolkit.widgets.token_table import COLUMNS, Answer, shown_tokens, token_table


def test_a_character_stands_on_the_token_that_completes_it() -> None:
    shown = shown_tokens([1, 8, 9, 2], Words())
    assert shown == [("The", "text"), ("C3", "bytes"), ("é", "text"), (" cat", "text")]


def test_a_special_token_is_shown_by_its_name_and_ends_a_half_character() -> None:
    shown = shown_tokens([8, 0, 9], Words())
    assert shown == [("C3", "bytes"), ("<end>", "special"), ("\ufffd", "text")]


def test_a_token_without_bytes_is_shown_as_empty_text() -> None:
    assert shown_tokens([10], Words()) == [("", "text")]


def test_without_a_vocabulary_tokens_are_shown_by_their_numbers() -> None:
    assert shown_tokens([3, 7], None) == [("⟨3⟩", "special"), ("⟨7⟩", "special")]


@given(st.text(alphabet="aé日🙂\n", max_size=12))
def test_the_texts_of_single_bytes_join_to_the_text(text: str) -> None:
    class Bytes:
        special_ids: frozenset[int] = frozenset()

        def __call__(self, token_id: int) -> bytes:
            return bytes([token_id])

    class ByteVocabulary:
        token_bytes = Bytes()

        def token_text(self, token_id: int) -> str:
            return chr(token_id)

    shown = shown_tokens(list(text.encode()), ByteVocabulary())
    assert "".join(token.text for token in shown if token.kind == "text") == text


def test_the_table_has_a_row_per_token_of_prompt_and_output() -> None:
    table = token_table(Answer.of(answer_of([3, 5], num_cached_tokens=1)), vocabulary=Words())
    assert list(table.columns) == list(COLUMNS)
    assert table["part"].tolist() == ["prompt", "prompt", "output", "output"]
    assert table["index"].tolist() == [0, 1, 0, 1]
    assert table["position"].tolist() == [0, 1, 2, 3]
    assert table["text"].tolist() == ["The", " cat", " sat", "."]
    assert table["is_cached"].tolist() == [True, False, False, False]
    assert table["logprob_raw"].tolist()[2:] == [-0.5, -1.5]
    assert table["rank_raw"].tolist()[2:] == [1, 2]
    assert table["logprob_raw"].isna().tolist()[:2] == [True, True]


def test_log_probabilities_of_the_prompt_are_shown_where_they_were_asked_for() -> None:
    answer = answer_of([3], prompt_logprobs=[None, {2: Logprob(-0.25, 4)}])
    table = token_table(Answer.of(answer))
    assert table["logprob_raw"].tolist()[1] == -0.25
    assert table["rank_raw"].tolist()[1] == 4


def test_without_a_vocabulary_texts_come_from_the_log_probabilities() -> None:
    table = token_table(Answer.of(answer_of([3, 8])))
    assert table["text"].tolist() == ["⟨1⟩", "⟨2⟩", " sat", "\ufffd"]
    assert table["kind"].tolist() == ["special", "special", "text", "bytes"]


def recorded(**changes: object) -> pd.DataFrame:
    columns = {
        "index": [0, 1],
        "step": [4, 5],
        "text": [" sat", "."],
        "logprob_raw": [-3.0, -4.0],
        "rank_raw": [7, 8],
        "entropy_nats": [0.5, np.nan],
        "source": ["sampled", "forced"],
    }
    return pd.DataFrame({**columns, **changes})


def test_a_record_adds_the_step_the_source_and_the_entropy() -> None:
    answer = Answer.of(answer_of([3, 5]))
    table = token_table(answer, vocabulary=Words(), recorded=recorded())
    output = table[table["part"] == "output"]
    assert output["step"].tolist() == [4, 5]
    assert output["source"].tolist() == ["sampled", "forced"]
    assert output["entropy_nats"].tolist()[0] == 0.5
    # The answer's own numbers count.
    assert output["logprob_raw"].tolist() == [-0.5, -1.5]


def test_numbers_that_the_answer_lacks_come_from_the_record() -> None:
    answer = Answer.of(answer_of([3, 5], has_logprobs=False))
    output = token_table(answer, recorded=recorded()).tail(2)
    assert output["logprob_raw"].tolist() == [-3.0, -4.0]
    assert output["rank_raw"].tolist() == [7, 8]
    assert output["text"].tolist() == [" sat", "."]


def test_a_record_may_have_dropped_tokens_and_hold_nothing_but_nulls() -> None:
    answer = Answer.of(answer_of([3, 5], has_logprobs=False))
    nulls = recorded(
        logprob_raw=[None, None], rank_raw=[None, None], entropy_nats=[None, None]
    ).tail(1)
    output = token_table(answer, recorded=nulls).tail(2)
    assert output["step"].isna().tolist() == [True, False]
    assert output["logprob_raw"].isna().all()
    assert output["rank_raw"].isna().all()


def test_each_sample_has_its_tokens_and_its_name() -> None:
    output = answer_of([3], [4, 5])
    assert Answer.of(output, 1).token_ids == (4, 5)
    assert Answer.of(output, 1).request_id == "req-0.1"
    with pytest.raises(InvalidRequest, match="2 samples"):
        Answer.of(output, 2)


def test_an_embedding_has_no_tokens_to_show() -> None:
    embedded = EmbeddingRequestOutput("req-0", None, (1, 2), EmbeddingOutput([0.5]), True, 0)
    with pytest.raises(InvalidRequest, match="embedding"):
        Answer.of(embedded)  # type: ignore[arg-type]


def test_an_answer_may_be_empty() -> None:
    assert len(token_table(Answer("req-0", ()))) == 0
