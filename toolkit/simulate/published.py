"""Cost models and cache sizes that papers have published, and how they are read here.

DistServe (Zhong et al., OSDI 2024) fits three terms to steps that only compute prompts and three to
steps that only generate, in milliseconds, on A100-80GB (its artifact, simdistserve/estimators):

    prompts:     A + B * tokens + C * sum of length^2
    generating:  A + B * tokens of context + C * batch        (another fit from 95 requests on)

A step of ours may do both, and a prompt may come in chunks. So here

* the constant, which is mostly reading the weights, counts once: the larger of the two;
* a chunk of q tokens behind k others counts as (k + q)^2 - k^2 = 2 q (k + q/2), so that the chunks
  of a prompt add up to its length squared;
* all other terms add up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from toolkit.simulate.devices import DEVICES, Device
from toolkit.simulate.shapes import ModelShape
from toolkit.simulate.work import StepWork

__all__ = ["DISTSERVE_OPT_13B", "KV_SLOTS", "PUBLISHED", "Published", "Terms", "published_cost"]

_LARGE_BATCH = 95  # DistServe's threshold


class Terms(NamedTuple):
    """A constant and two slopes, in milliseconds."""

    constant: float
    per_token: float
    per_third: float  # per length^2 of prompts, per request that generates


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A three-term model of a paper, for steps that compute prompts, generate, or do both.

    >>> from toolkit.simulate import StepWork
    >>> cost = PUBLISHED["opt-13b", "A100-80GB", 1]
    >>> decode = StepWork(0, 8, 8, 0, 8, 8004.0, 0.0, 8000, 0, 0)  # 8 requests, 8,000 tokens behind
    >>> round(1e3 * cost(decode), 2)
    28.7
    """

    prompts: Terms
    decodes: Terms
    large_decodes: Terms | None = None
    origin: str
    held_out_error: float | None = None

    def __call__(self, work: StepWork) -> float:
        """Return the step's duration in seconds."""
        constant_ms = rest_ms = 0.0
        if work.num_decodes:
            is_large = self.large_decodes is not None and work.num_decodes >= _LARGE_BATCH
            terms = self.large_decodes if is_large and self.large_decodes else self.decodes
            constant_ms = terms.constant
            rest_ms = terms.per_token * work.decode_context + terms.per_third * work.num_decodes
        if work.num_prompt_tokens:
            terms = self.prompts
            constant_ms = max(constant_ms, terms.constant)
            rest_ms += terms.per_token * work.num_prompt_tokens
            rest_ms += terms.per_third * 2 * work.prefill_attention
        return 1e-3 * (constant_ms + rest_ms)

    def on_memory_of(self, device: Device, other: Device, weight_bytes: float) -> Published:
        """Return the model for a device that differs in the bandwidth of its memory alone.

        What reads memory takes longer by the ratio: keys and values, and the weights (the part of
        the constant that ``weight_bytes`` of each device take).
        """
        ratio = device.bandwidth_gbps / other.bandwidth_gbps
        weights_ms = 1e3 * weight_bytes * (1 / other.bytes_per_s - 1 / device.bytes_per_s)

        def moved(terms: Terms, *, reads_context: bool) -> Terms:
            per_token = terms.per_token * (ratio if reads_context else 1.0)
            return Terms(terms.constant + weights_ms, per_token, terms.per_third)

        large = self.large_decodes
        return replace(
            self,
            prompts=moved(self.prompts, reads_context=False),
            decodes=moved(self.decodes, reads_context=True),
            large_decodes=None if large is None else moved(large, reads_context=True),
            origin=f"{self.origin}; reading memory scaled to {other.name} by {ratio:.2f}",
        )


def _fit(
    model: str,
    engine: str,
    tensor_parallel: int,
    prompts: Terms,
    decodes: Terms,
    large_decodes: Terms | None = None,
) -> Published:
    return Published(
        prompts=prompts,
        decodes=decodes,
        large_decodes=large_decodes,
        origin=f"DistServe artifact, {model} on A100-80GB, {engine} TP{tensor_parallel}",
    )


# By model, device and number of devices.
PUBLISHED = {
    ("opt-13b", "A100-80GB", 1): _fit(
        "OPT-13B",
        "vLLM",
        1,
        Terms(22.05, 0.14051, 8.08e-6),
        Terms(23.475, 5.929e-4, 0.06073),
        Terms(20.206, 4.908e-4, 0.1200),
    ),
    ("opt-13b", "A100-80GB", 2): _fit(
        "OPT-13B", "vLLM", 2, Terms(27.44, 0.09055, 8.45e-6), Terms(24.54, 2.244e-4, 0.0872)
    ),
    ("opt-13b", "A100-80GB", 4): _fit(
        "OPT-13B", "vLLM", 4, Terms(30.54, 0.05151, 4.2e-7), Terms(25.90, 7.75e-5, 0.0553)
    ),
    ("opt-66b", "A100-80GB", 4): _fit(
        "OPT-66B", "vLLM", 4, Terms(42.97, 0.21287, 4.60e-5), Terms(39.58, 6.946e-4, 0.1358)
    ),
    ("opt-66b", "A100-80GB", 8): _fit(
        "OPT-66B", "vLLM", 8, Terms(38.93, 0.15737, 4.5e-6), Terms(31.18, 2.756e-4, 0.0680)
    ),
}
# The same hardware under DistServe's own engine.
DISTSERVE_OPT_13B = _fit(
    "OPT-13B",
    "DistServe",
    1,
    Terms(18.10, 0.10191, 7.12e-6),
    Terms(19.93, 6.269e-4, 0.0385),
)

_PAGED_ATTENTION = "Kwon et al. 2023 (PagedAttention), table 1"
_GIB = 1024**3
# Tokens whose keys and values fit, as published, with the source; by model, device and number.
KV_SLOTS = {
    ("opt-13b", "A100-40GB", 1): (12 * _GIB // 819_200, f"{_PAGED_ATTENTION}: 12 GB"),
    ("opt-66b", "A100-40GB", 4): (21 * _GIB // 2_359_296, f"{_PAGED_ATTENTION}: 21 GB"),
    ("opt-175b", "A100-80GB", 8): (264 * _GIB // 4_718_592, f"{_PAGED_ATTENTION}: 264 GB"),
    ("opt-13b", "A100-80GB", 1): (66_144, "DistServe artifact"),
    ("opt-13b", "A100-80GB", 2): (163_008, "DistServe artifact"),
    ("opt-66b", "A100-80GB", 4): (78_496, "DistServe artifact"),
}


def published_cost(shape: ModelShape, device: Device, tensor_parallel: int) -> Published | None:
    """Return what was published for a model on a device, or on one that only reads faster.

    >>> from toolkit.simulate import resolve_device, resolve_shape
    >>> published_cost(resolve_shape("opt-13b"), resolve_device("A100-40GB"), 1).origin
    'DistServe artifact, OPT-13B on A100-80GB, vLLM TP1; reading memory scaled to A100-40GB by 1.31'
    """
    found = PUBLISHED.get((shape.name, device.name, tensor_parallel))
    if found is not None or device.name != "A100-40GB":
        return found
    found = PUBLISHED.get((shape.name, "A100-80GB", tensor_parallel))
    if found is None:
        return None
    weight_bytes = shape.weight_bytes / tensor_parallel
    return found.on_memory_of(DEVICES["a100-80gb"], device, weight_bytes)
