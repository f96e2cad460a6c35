"""The sampler: logits become tokens, through a chain whose order can be printed."""

from toolkit.kernels.reference_sampling import gumbel_noise
from toolkit.sampling.batch import RowState, SamplingBatch
from toolkit.sampling.grammar import GrammarCompiler, GrammarRows, Vocabulary
from toolkit.sampling.masks import check_token_ids
from toolkit.sampling.processors import adapt
from toolkit.sampling.random import row_keys
from toolkit.sampling.sampler import Sampler, SamplerOutput

__all__ = [
    "GrammarCompiler",
    "GrammarRows",
    "RowState",
    "Sampler",
    "SamplerOutput",
    "SamplingBatch",
    "Vocabulary",
    "adapt",
    "check_token_ids",
    "gumbel_noise",
    "row_keys",
]
