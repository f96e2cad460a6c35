"""The logit lens reads captured residual sums as the model's own head does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.runtime.hooked_models import (
    GREEDY,
    Reference,
    checkpoint,
    computed_tokens,
    open_llm,
    prompts,
    run,
)
from toolkit.errors import InvalidParameter, ToolkitError


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "opt"])
def test_the_last_layer_says_what_the_model_says(tmp_path: Path, family: str):
    folder = checkpoint(tmp_path, family)
    with open_llm(folder) as llm:
        with llm.hooks.capture(["embed", "layers.*.resid_post"]) as cap:
            request = llm.engine.add(prompts(1)[0], GREEDY)
            run(llm)
        lens = cap.lens(request, top=3)
    tokens = computed_tokens(request)
    logprobs = Reference(folder)(tokens)["logits"].log_softmax(-1)
    expected = logprobs.gather(1, torch.tensor(request.token_ids[1:])[:, None])[:, 0]
    assert lens.layers == ["embed", "layers.0", "layers.1"]
    assert lens.positions == list(range(len(tokens)))
    np.testing.assert_allclose(lens.logprob[-1], expected.numpy(), atol=1e-3)
    best = logprobs.topk(3)
    np.testing.assert_allclose(lens.top_logprobs[-1], best.values.numpy(), atol=1e-3)
    assert lens.top_ids.shape == (3, len(tokens), 3)
    assert lens.top_texts[1][2][0] == str(lens.top_ids[1, 2, 0])  # no tokenizer: ids
    assert lens.tokens == [str(token_id) for token_id in tokens]
    assert lens.next_tokens == [str(token_id) for token_id in request.token_ids[1:]]


def test_a_lens_needs_residual_sums(tmp_path: Path):
    with open_llm(checkpoint(tmp_path, "llama")) as llm:
        with llm.hooks.capture("layers.0.q") as cap:
            (output,) = llm.generate(prompts(1), GREEDY, progress=False)
        with pytest.raises(ToolkitError, match=r"capture layers\.\*\.resid_post"):
            cap.lens(output)
        for top in ("x", 0, True):
            with pytest.raises(InvalidParameter, match="top is a number of tokens"):
                cap.lens(output, top=top)
