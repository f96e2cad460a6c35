"""What is launched is launched without a look at any tensor: a GPU is waited for once a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.builders import params
from toolkit.cache.storage import KVLayout, KVStorage
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine
from toolkit.kernels import Ops, select_ops
from toolkit.models.decoder import random_decoder
from toolkit.models.spec import AttentionSpec, DecoderSpec, MlpSpec, MoeSpec, NormSpec
from toolkit.runtime import ModelRunner
from toolkit.runtime.cuda_graphs import EagerReplay
from toolkit.sampling import Drawn, Sampler

CPU = torch.device("cpu")
SPEC = DecoderSpec(
    family="mpt",
    vocab_size=50,
    hidden_size=32,
    num_layers=2,
    max_model_len=64,
    norm=NormSpec(kind="layer", eps=1e-5),
    attention=AttentionSpec(
        num_heads=4, num_kv_heads=4, head_dim=8, scale=8**-0.5, windows=(None, None)
    ),
    mlp=MlpSpec(intermediate_size=64, activation="gelu", gated=False),
    tied_embeddings=True,
)
MIXTURE = replace(
    SPEC,
    family="mixtral",
    norm=NormSpec(kind="rms", eps=1e-5),
    moe=MoeSpec(num_experts=4, num_active=2, intermediate_size=32),
    moe_layers=(0, 1),
)
_LOOKS = {
    torch.Tensor.tolist,
    torch.Tensor.item,
    torch.Tensor.cpu,
    torch.Tensor.numpy,
    torch.Tensor.nonzero,
    torch.Tensor.__bool__,
    torch.Tensor.__int__,
    torch.Tensor.__float__,
    torch.Tensor.__index__,
    torch.nonzero,
    torch.bincount,
}


class Watch(TorchFunctionMode):
    """Counts who looks at the values of a tensor, which on a GPU means to wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[str] = []
        self.is_off = 0  # inside an op, or where looking is the point

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        is_mask = func is torch.Tensor.__getitem__ and _has_mask(args[1])
        if not self.is_off and (func in _LOOKS or is_mask):
            self.looks.append(func.__name__)
        return func(*args, **(kwargs or {}))

    @contextmanager
    def off(self) -> Iterator[None]:
        self.is_off += 1
        try:
            yield
        finally:
            self.is_off -= 1

    def unwatched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **kwargs: Any) -> Any:
            with self.off():
                return call(*args, **kwargs)

        return made


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in parts)


def engine_under(watch: Watch, spec: DecoderSpec, *, has_graphs: bool) -> Engine:
    """A model whose ops are the reference's, which do look: what is around them is watched."""
    ops = select_ops("reference", CPU)
    names = [each.name for each in fields(Ops) if callable(getattr(ops, each.name))]
    ops = replace(ops, **{name: watch.unwatched(getattr(ops, name)) for name in names})
    decoder = random_decoder(spec, seed=0, dtype=torch.float32, device=CPU, ops=ops)
    layout = KVLayout(num_layers=2, num_kv_heads=4, head_dim=8, block_size=4, dtype=torch.float32)
    config = EngineConfig(
        cache=CacheConfig(num_blocks=64, block_size=4),
        scheduler=SchedulerConfig(max_model_len=64, max_num_seqs=8, asynchronous=True),
    )
    runner = ModelRunner(
        decoder,
        KVStorage(layout, 64, CPU, num_spare_slots=8),
        Sampler(50, CPU, ops=ops),
        max_num_seqs=8,
        max_model_len=64,
        capture=EagerReplay if has_graphs else None,
    )
    return Engine(runner, config)


@pytest.mark.parametrize("has_graphs", [False, True])
@pytest.mark.parametrize("spec", [SPEC, MIXTURE], ids=lambda spec: spec.family)
def test_steps_are_launched_without_a_look_at_any_value(
    spec: DecoderSpec, has_graphs: bool, monkeypatch: pytest.MonkeyPatch
):
    watch = Watch()
    engine = engine_under(watch, spec, has_graphs=has_graphs)
    monkeypatch.setattr(Drawn, "finish", watch.unwatched(Drawn.finish))
    engine.add([1, 2, 3], params(9, temperature=0))
    engine.add([4] * 7, params(6, seed=3, top_k=5, min_tokens=4))
    engine.add([5] * 11, params(7, seed=4, n=2, logit_bias={3: 1.0}))
    with watch:
        for step in range(12):
            if step == 3:
                engine.add([6, 7], params(3, temperature=0.5, allowed_token_ids=[1, 2, 3]))
            if engine.scheduler.has_work:
                engine.step()
    assert watch.looks == []
    assert engine.runner.ahead.num_used > 20  # type: ignore[attr-defined]


def test_the_watch_sees_who_looks():
    with Watch() as watch:
        values = torch.tensor([1, 0, 2])
        values.tolist()
        bool(values[0])
        values[values > 0]
    assert watch.looks == ["tolist", "__bool__", "__getitem__"]
