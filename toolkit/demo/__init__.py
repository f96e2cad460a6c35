"""Bundle a TOY chat model, trained from scratch on a generated corpus, so that everything runs
offline.

The model has about five million parameters and knows three tricks: it translates short English
sentences to Italian, Spanish and French, answers a few questions about this toolkit, and writes
simple JSON and tool calls.
"""

from pathlib import Path

# The folder holds a Hugging Face model: AutoModelForCausalLM and AutoTokenizer load it as it is.
WEIGHTS = Path(__file__).parent / "weights"
