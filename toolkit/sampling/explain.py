"""Why one token came out: the model's opinion, what each step did, and how the draw went."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.sampling.explain_drawing import explanation_figure, explanation_html
from toolkit.sampling.facts import Facts, chosen_again

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Explanation"]


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """Everything between the model's logits and one token of the output.

    Probabilities are from 0 to 1; "raw" is of the model, before any step of the sampler.
    """

    facts: Facts  # as JSON: see toolkit.sampling.facts
    source: str = "recorded"  # while the token was sampled; or "recomputed" afterwards
    # Largest difference of the candidates' raw logits, recomputed less recorded; where both exist.
    logit_difference: float | None = None
    notes: tuple[str, ...] = ()  # what a recomputation could not know

    # ---- the token

    @property
    def token_id(self) -> int:
        """The token in question."""
        return int(self.facts["token_id"])

    @property
    def text(self) -> str | None:
        """Its text by itself; None without a tokenizer."""
        return self._text_of(self.token_id)

    @property
    def request_id(self) -> str | None:
        """Whose token it is."""
        return self.facts.get("request_id")

    @property
    def position(self) -> int:
        """Its place behind the prompt's first token."""
        return int(self.facts["position"])

    @property
    def step(self) -> int | None:
        """The engine's step that sampled it; None where no record tells."""
        return self.facts.get("step")

    @property
    def chosen_by(self) -> str:
        """Say what chose it: "sampled", "greedy", or "grammar" where that left no choice."""
        return str(self.facts["source"])

    @property
    def logit_raw(self) -> float:
        """Its logit under the model."""
        return float(self.facts["logit_raw"])

    @property
    def rank_raw(self) -> int:
        """Its rank under the model, from 1."""
        return int(self.facts["rank_raw"])

    @property
    def probability_raw(self) -> float:
        """Its probability under the model."""
        return math.exp(self.facts["logprob_raw"])

    @property
    def probability(self) -> float:
        """Its probability after the whole chain: what the draw gave it."""
        logprob = self.facts["logprob_processed"]
        return 0.0 if logprob is None else math.exp(logprob)

    @property
    def entropy_nats(self) -> float:
        """Entropy of the model's distribution."""
        return float(self.facts["entropy_nats"])

    # ---- the draw

    @property
    def num_kept(self) -> int:
        """Tokens that could still be chosen after the chain."""
        return int(self.facts["num_kept"])

    @property
    def seed(self) -> int:
        """The request's seed."""
        return int(self.facts["seed"])

    @property
    def key(self) -> int:
        """Key of the draw, 64 bits: a function of seed, sample index and position alone."""
        return int(self.facts["key"], 16)

    @property
    def is_greedy(self) -> bool:
        """Whether the largest logit wins, without a draw."""
        return bool(self.facts["is_greedy"])

    @property
    def race(self) -> pd.DataFrame:
        """The tokens that came in first: logit + number = sum; the largest sum wins."""
        data = self.data
        raced = data[data["place"].notna()].sort_values("place")
        return raced[["place", "token_id", "text", "logit", "number", "sum"]].reset_index(drop=True)

    @property
    def margin(self) -> float | None:
        """By how much the winner's sum, for a greedy token its logit, exceeds the next one.

        None where nothing else could be chosen.
        """
        sums = self.race["sum"].tolist()
        return float(sums[0] - sums[1]) if len(sums) > 1 else None

    @property
    def reproduced(self) -> bool:
        """Whether the facts give this token: always where they were recorded.

        A recomputation cannot know what hooks and processors did; a grammar may have put a token
        in the place of the drawn one, which counts as reproduced.
        """
        return self.chosen_by == "grammar" or self.token_id == self.facts["drawn_token_id"]

    def reproduce(self) -> int:
        """Choose once more from the facts alone; return the token.

        The numbers of the draw are made anew from its key. Where a grammar put another token in
        the place of the drawn one, this is the drawn one.
        """
        return chosen_again(self.facts)

    # ---- tables

    @property
    def data(self) -> pd.DataFrame:
        """A row per candidate, likely ones first; ``kept`` tells whether it could be chosen."""
        import pandas as pd

        frame = pd.DataFrame(self.facts["candidates"])
        for name in ("logit", "number", "logprob"):
            frame[name] = frame[name].astype("float64")  # None is NaN there
        frame["place"] = frame["place"].astype("Int64")
        frame["probability_raw"] = frame["logprob_raw"].map(math.exp)
        frame["probability"] = frame["logprob"].map(math.exp).fillna(0.0)
        frame["sum"] = frame["logit"] + frame["number"]
        frame["kept"] = frame["logit"].notna()
        frame["is_chosen"] = frame["token_id"] == self.token_id
        return frame

    @property
    def kept(self) -> pd.DataFrame:
        """The candidates that could be chosen; ``num_kept`` tells how many there were in all."""
        data = self.data
        return data[data["kept"]][["token_id", "text", "logit", "probability"]]

    @property
    def logits(self) -> pd.DataFrame:
        """The logit of each candidate, a column each, after every step, a row each."""
        import pandas as pd

        candidates = self.facts["candidates"]
        rows, last = [], candidates["logit_raw"]
        for step in self.facts["steps"]:
            last = step.get("logit", last)
            rows.append([-math.inf if value is None else value for value in last])
        names = [step["name"] for step in self.facts["steps"]]
        return pd.DataFrame(rows, index=names, columns=candidates["token_id"])

    @property
    def steps(self) -> pd.DataFrame:
        """What each step did, in order: its effect on this token, and how many are left."""
        import pandas as pd

        after = self.logits[self.token_id].tolist()
        return pd.DataFrame(
            {
                "step": [step["name"] for step in self.facts["steps"]],
                "changed": [step["changed"] for step in self.facts["steps"]],
                "logit_before": [after[0], *after[:-1]],
                "logit_after": after,
                "num_kept": [step["kept"] for step in self.facts["steps"]],
            }
        )

    # ---- around it

    @property
    def batch_mates(self) -> list[str]:
        """The other requests of the step; empty where no record tells."""
        return [name for name in self.facts.get("batch") or () if name != self.request_id]

    @property
    def block_ids(self) -> list[int]:
        """The blocks of the KV cache that were read; empty where no record tells."""
        return list(self.facts.get("block_ids") or ())

    @property
    def reused_block_ids(self) -> list[int]:
        """Those of them that were full already when the request was last admitted."""
        num_blocks = self.facts.get("num_reused_tokens", 0) // self.facts.get("block_size", 1)
        return self.block_ids[:num_blocks]

    @property
    def num_cached_tokens(self) -> int | None:
        """Prompt tokens that came from the prefix cache."""
        return self.facts.get("num_cached_tokens")

    # ---- in words

    @property
    def sentence(self) -> str:
        """Why it was this token, in one sentence."""
        facts = self.facts
        model = (
            f"The model gave {self._name(self.token_id)} {self.probability_raw:.1%} "
            f"(rank {self.rank_raw} of {facts['vocab_size']})"
        )
        if not self.reproduced:
            drawn = self._name(facts["drawn_token_id"])
            return (
                f"{model}, but the recomputation draws {drawn}: it does not reproduce this token, "
                f"so what follows is not why it came out. {self._difference_in_words()}"
            )
        if self.token_id != facts["drawn_token_id"]:
            drawn = self._name(facts["drawn_token_id"])
            return f"{model}; the draw gave {drawn}, and the grammar put this in its place to end."
        if self.num_kept == 1:
            return f"{model}; it was the only token left to choose."
        chain = f"{model}; after the chain it had {self.probability:.1%}, of {self.num_kept} kept"
        race = self.race
        if len(race) < 2:
            return f"{chain}."
        winner, second = race.iloc[0], race.iloc[1]
        other = self._name(int(second["token_id"]))
        if self.is_greedy:
            return f"{chain}; its logit was the largest, by {self.margin:.3g} over {other}."
        return f"{chain}; it won the draw with {_sum(winner)} against {_sum(second)} of {other}."

    def _difference_in_words(self) -> str:
        why = "; ".join(self.notes) or (
            "the engine's logits may have differed a little, or its parameters were changed so "
            "long ago that it was forgotten"
        )
        return f'What can be the reason: {why}. Recorded tokens (record.level = "explain") tell.'

    def _text_of(self, token_id: int) -> str | None:
        candidates = self.facts["candidates"]
        text: str | None = candidates["text"][candidates["token_id"].index(token_id)]
        return text

    def _name(self, token_id: int) -> str:
        known = token_id in self.facts["candidates"]["token_id"]
        text = self._text_of(token_id) if known else None
        return f"token {token_id}" if text is None else repr(text)

    def __repr__(self) -> str:
        where = f"position {self.position}" + ("" if self.step is None else f", step {self.step}")
        lines = [
            f"Explanation({self._name(self.token_id)}, {self.request_id}, {where}, {self.source})",
            f"  {self.sentence}",
        ]
        lines += [f"  {name}: {what}" for name, what in self.changes()]
        lines += [f"  {name}: {value}" for name, value in self.surroundings().items()]
        return "\n".join(lines)

    def changes(self) -> list[tuple[str, str]]:
        """Return what each step that changed anything did, in words."""
        found = []
        for row in self.steps.itertuples():
            if row.changed:
                before, after = f"{row.logit_before:.4g}", f"{row.logit_after:.4g}"
                own = f"{before} -> {after}" if before != after else f"{after} as before"
                found.append((row.step, f"its logit {own}, {row.num_kept} kept"))
        return found

    def surroundings(self) -> dict[str, str]:
        """Return key, batch-mates, blocks and what else is around the draw, in words."""
        facts = self.facts
        lines: dict[str, str] = {}
        if not self.is_greedy:
            where = f"seed {self.seed}, sample {facts['sample_index']}, position {self.position}"
            lines["key"] = f"{facts['key']} (of {where})"
        lines["entropy"] = f"{self.entropy_nats:.3f} nats"
        if "batch" in facts:
            mates = self.batch_mates
            shown = ", ".join(mates[:8]) + (", ..." if len(mates) > 8 else "")
            lines["batch-mates"] = f"{len(mates)} ({shown})" if mates else "none"
        if self.block_ids:
            reused = len(self.reused_block_ids)
            lines["blocks read"] = f"{len(self.block_ids)}, {reused} of them reused"
        if self.num_cached_tokens is not None:
            lines["prompt tokens from the cache"] = str(self.num_cached_tokens)
        if self.logit_difference is not None:
            lines["largest difference from the recorded logits"] = f"{self.logit_difference:.2g}"
        if self.source == "recomputed" and self.reproduce() != self.token_id:
            lines["recomputed draw"] = f"{self._name(self.reproduce())}, not what was sampled"
        lines |= {f"note {number}": note for number, note in enumerate(self.notes, start=1)}
        return lines

    # ---- pictures

    def _repr_html_(self) -> str:
        return explanation_html(
            title=f"{self._name(self.token_id)}: why this token? ({self.source})",
            sentence=self.sentence,
            data=self.data,
            changes=self.changes(),
            surroundings=self.surroundings(),
        )

    def figure(self) -> Any:
        """Return a matplotlib figure: the candidates before the chain, after it, and in the draw.

        It carries the table behind it as ``figure.data``.
        """
        return explanation_figure(title=self.sentence, data=self.data, is_greedy=self.is_greedy)


def _sum(row: Any) -> str:
    sign = "+" if row["number"] >= 0 else "-"
    return f"{row['logit']:.2f} {sign} {abs(row['number']):.2f} = {row['sum']:.2f}"
