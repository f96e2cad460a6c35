"""Measure the bundled model on held-out sentences: `python -m toolkit.demo.evaluate`.

Every sentence is new to the model but made of words it knows; an answer counts only if it is
exactly right.
"""

import argparse
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from toolkit.demo import WEIGHTS
from toolkit.demo.corpus import Conversation, HeldOutConversation, held_out_conversations
from toolkit.demo.samples import answers
from toolkit.demo.words import LANGUAGES

logger = logging.getLogger(__name__)

BATCH_SIZE = 50
NUM_MISSES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Answered:
    """A held-out conversation and what the model said."""

    conversation: HeldOutConversation
    answer: str

    @property
    def correct(self) -> bool:
        """Tell whether the answer is exactly the one wanted."""
        return self.answer == self.conversation.answer


def answer_held_out(folder: Path, *, count: int, seed: int) -> list[Answered]:
    """Let the model in a folder answer the held-out conversations, greedily, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    held_out = held_out_conversations(count, seed)
    answered = []
    for start in tqdm(range(0, count, BATCH_SIZE), unit="batch"):
        batch = held_out[start : start + BATCH_SIZE]
        produced = answers(model, tokenizer, [Conversation(each.messages, []) for each in batch])
        answered += [Answered(each, answer) for each, answer in zip(batch, produced, strict=True)]
    return answered


def exact_match(answered: list[Answered], language: str | None = None) -> float:
    """Return the share of exactly right answers, in one language or overall."""
    chosen = [each for each in answered if language in (None, each.conversation.language)]
    return sum(each.correct for each in chosen) / len(chosen)


def main() -> None:
    """Print the exact match by language and write it beside the weights."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("transformers").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description="Measure the toy model on held-out sentences.")
    parser.add_argument("--folder", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    started_s = time.monotonic()
    answered = answer_held_out(chosen.folder, count=chosen.count, seed=chosen.seed)
    figures = {
        "sentences": len(answered),
        "seed": chosen.seed,
        "exact_match": {
            name: round(exact_match(answered, language), 4) for language, name in LANGUAGES.items()
        },
        "seconds": round(time.monotonic() - started_s, 1),
    }
    figures["exact_match"]["overall"] = round(exact_match(answered), 4)
    misses = [each for each in answered if not each.correct]
    figures["misses"] = [
        {
            "asked": each.conversation.messages[-1]["content"],
            "wanted": each.conversation.answer,
            "got": each.answer,
        }
        for each in misses[:NUM_MISSES_SHOWN]
    ]
    (chosen.folder / "evaluation.json").write_text(
        json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
    )
    for name, share in figures["exact_match"].items():
        logger.info("%-10s %5.1f %%", name, 100 * share)
    for miss in figures["misses"]:
        logger.info("%s", miss)


if __name__ == "__main__":
    main()
