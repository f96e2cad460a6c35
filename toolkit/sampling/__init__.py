"""The sampler: logits become tokens, through a chain whose order can be printed."""

from toolkit.sampling.batch import RowState, SamplingBatch
from toolkit.sampling.random import uniform
from toolkit.sampling.sampler import Sampler, SamplerOutput

__all__ = ["RowState", "Sampler", "SamplerOutput", "SamplingBatch", "uniform"]
