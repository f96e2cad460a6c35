"""Stand-ins for data sets that may not be passed on: lengths with the published moments.

Each is a pair of independent lognormals, cut where the paper dropped longer entries. The moments
after the cut are the published ones; the joint distribution is not known, and the sigmas are ours
where a paper gives a single moment. To use a data set itself, give `Workload.from_trace` its file.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from toolkit.experiments.workloads.lengths import CutLogNormal
from toolkit.experiments.workloads.randomness import Array

__all__ = [
    "Alpaca",
    "ArXiv",
    "DistServeHumanEval",
    "DistServeLongBench",
    "DistServeShareGPT",
    "OpenChatShareGPT4",
    "ShareGPT",
    "Surrogate",
]


class Moments(NamedTuple):
    """What is published of a length: a mean, or a median with perhaps a 90th percentile."""

    longest: int
    mean: float | None = None
    median: float | None = None
    p90: float | None = None
    sigma: float | None = None

    def distribution(self) -> CutLogNormal:
        """Return the cut lognormal with these moments."""
        if self.mean is not None:
            assert self.sigma is not None
            return CutLogNormal.with_mean(self.mean, sigma=self.sigma, longest=self.longest)
        assert self.median is not None
        return CutLogNormal.with_median(
            self.median, p90=self.p90, sigma=self.sigma, longest=self.longest
        )

    def __str__(self) -> str:
        said = {"mean": self.mean, "median": self.median, "P90": self.p90}
        return ", ".join(f"{name} {value:g}" for name, value in said.items() if value is not None)


class Surrogate:
    """Lengths that stand in for a data set's; two of a kind are equal.

    ``num_prompt_tokens`` and ``num_output_tokens`` are what is published; a request has at most
    ``max_tokens`` in all, for its output is cut short where the sum would exceed it.
    """

    source: ClassVar[str]
    num_prompt_tokens: ClassVar[Moments]
    num_output_tokens: ClassVar[Moments]
    max_tokens: ClassVar[int]

    def draw(self, prompt_unit: Array, output_unit: Array) -> tuple[Array, Array]:
        """Return the tokens of each prompt and of each output."""
        prompt = self.num_prompt_tokens.distribution().quantile(prompt_unit)
        output = self.num_output_tokens.distribution().quantile(output_unit)
        return prompt, np.minimum(output, self.max_tokens - prompt)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}() [surrogate: lognormal, prompt {self.num_prompt_tokens}, "
            f"output {self.num_output_tokens}; {self.source}]"
        )


class ShareGPT(Surrogate):
    """ShareGPT as the PagedAttention paper has it: chats, cut at 1,024 tokens each way.

    The sigmas, 1.5 and 1.0, are ours. With them a reservation of 2,048 slots is 20.3 % full on
    average; the paper's Fig. 2 says 20.4 %.
    """

    source = "arXiv 2309.06180, Fig. 11"
    num_prompt_tokens = Moments(1024, mean=161.31, sigma=1.5)
    num_output_tokens = Moments(1024, mean=337.99, sigma=1.0)
    max_tokens = 2048


class Alpaca(Surrogate):
    """Alpaca as the PagedAttention paper has it: short instructions; the sigmas are ours."""

    source = "arXiv 2309.06180, Fig. 11"
    num_prompt_tokens = Moments(1024, mean=19.31, sigma=0.6)
    num_output_tokens = Moments(1024, mean=58.45, sigma=1.0)
    max_tokens = 2048


class OpenChatShareGPT4(Surrogate):
    """Sarathi-Serve's openchat_sharegpt4: long chats, up to 8,192 tokens in all.

    The sigma of the outputs, 0.5, is ours.
    """

    source = "arXiv 2403.02310, its data sets"
    num_prompt_tokens = Moments(8191, median=1730, p90=5696)
    num_output_tokens = Moments(2048, median=415, sigma=0.5)
    max_tokens = 8192


class ArXiv(Surrogate):
    """Sarathi-Serve's arxiv_summarization: papers and their abstracts, up to 16,384 tokens in all.

    The sigma of the outputs, 0.5, is ours.
    """

    source = "arXiv 2403.02310, its data sets"
    num_prompt_tokens = Moments(16383, median=7059, p90=12985)
    num_output_tokens = Moments(2048, median=208, sigma=0.5)
    max_tokens = 16384


class DistServeShareGPT(Surrogate):
    """ShareGPT as the DistServe paper has it, which cuts it elsewhere; the sigmas are ours."""

    source = "arXiv 2401.09670, its mean lengths"
    num_prompt_tokens = Moments(1536, mean=755, sigma=1.0)
    num_output_tokens = Moments(512, mean=200, sigma=1.0)
    max_tokens = 2048


class DistServeHumanEval(Surrogate):
    """HumanEval as the DistServe paper has it: code completion; the sigmas are ours."""

    source = "arXiv 2401.09670, its mean lengths"
    num_prompt_tokens = Moments(1024, mean=171, sigma=0.5)
    num_output_tokens = Moments(1024, mean=98, sigma=0.5)
    max_tokens = 2048


class DistServeLongBench(Surrogate):
    """LongBench as the DistServe paper has it: summaries of long texts; the sigmas are ours."""

    source = "arXiv 2401.09670, its mean lengths"
    num_prompt_tokens = Moments(1900, mean=1738, sigma=1.0)
    num_output_tokens = Moments(148, mean=90, sigma=0.5)
    max_tokens = 2048
