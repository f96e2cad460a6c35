"""The sampler: logits become tokens, through a chain whose order can be printed."""

from toolkit.kernels.reference_sampling import gumbel_noise
from toolkit.sampling.batch import RowState, SamplingBatch
from toolkit.sampling.drawn import Drawn
from toolkit.sampling.explain import Explanation
from toolkit.sampling.grammar import GrammarCompiler, GrammarRows, Vocabulary
from toolkit.sampling.masks import check_token_ids
from toolkit.sampling.processors import adapt
from toolkit.sampling.random import row_keys
from toolkit.sampling.sampler import Sampler, SamplerOutput
from toolkit.sampling.stages import row_stages, sampling_stages
from toolkit.sampling.trace import Race, Stage, Stages

__all__ = [
    "Drawn",
    "Explanation",
    "GrammarCompiler",
    "GrammarRows",
    "Race",
    "RowState",
    "Sampler",
    "SamplerOutput",
    "SamplingBatch",
    "Stage",
    "Stages",
    "Vocabulary",
    "adapt",
    "check_token_ids",
    "gumbel_noise",
    "row_keys",
    "row_stages",
    "sampling_stages",
]
