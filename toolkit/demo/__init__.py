"""Bundle a TOY chat model, trained from scratch on a generated corpus, so that everything runs
offline.

The model has about five million parameters and knows three tricks: it translates short English
sentences to Italian, Spanish and French, answers a few questions about this toolkit, and writes
simple JSON and tool calls.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random

# The folder holds a Hugging Face model: AutoModelForCausalLM and AutoTokenizer load it as it is.
WEIGHTS = Path(__file__).parent / "weights"


def texts(seed: int = 0) -> Iterator[str]:
    """Yield conversations of the training corpus as plain text, without end."""
    # Imported here: whoever wants the weights alone need not wait for the corpus's word lists.
    from toolkit.demo.corpus import draw_conversations

    for conversation in draw_conversations(Random(f"texts {seed}")):
        yield "\n".join(turn["content"] for turn in conversation.messages if turn.get("content"))
