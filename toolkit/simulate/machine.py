"""Machine: a model on a device, as far as scheduling can tell it from a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from toolkit.clock import VirtualClock
from toolkit.config import CacheConfig, EngineConfig, SchedulerConfig
from toolkit.engine import Engine
from toolkit.engine.journal import NoJournal
from toolkit.errors import InvalidConfig
from toolkit.record import Record
from toolkit.simulate.allocators import make_cache
from toolkit.simulate.arrivals import Arrival
from toolkit.simulate.cost import CostModel, held_out_error_of, origin_of
from toolkit.simulate.devices import Device, resolve_device
from toolkit.simulate.drive import drive
from toolkit.simulate.published import KV_SLOTS, published_cost
from toolkit.simulate.roofline import Roofline
from toolkit.simulate.runner import SimulatedRunner
from toolkit.simulate.shapes import ModelShape, resolve_shape

__all__ = ["Machine", "require_count", "require_options"]

_GIB = 1024**3
# A load of a million requests is to be kept whole: about 1 KB of each.
_MAX_ROWS = {"requests": 2_000_000}


class Machine:
    """A model on a device: how long its steps take and how many tokens fit.

    Its engines are the real ``Engine``, ``Scheduler`` and ``PagedCache``; only the runner is not:
    it asks the cost model how long a step takes, and moves a virtual clock on.

    >>> machine = Machine("opt-13b", "A100-40GB")
    >>> machine.kv_slots
    15728
    >>> record = machine.run([Arrival(0, 0.0, num_prompt_tokens=100, num_output_tokens=3)])
    >>> record.requests["num_output_tokens"].tolist(), record.num_rows("steps")
    ([3], 3)

    Args:
        model: A preset's name (`SHAPES`), a folder with a config.json, or a ``ModelShape``.
        device: A preset's name (`DEVICES`) or a ``Device``.
        tensor_parallel: How many such devices share each layer.
        cost_model: Seconds of a step's work; by default what was published for this model and
            device, else a roofline.

    Raises:
        InvalidConfig: no such preset, or the weights do not fit.
    """

    def __init__(
        self,
        model: str | Path | ModelShape,
        device: str | Device,
        *,
        tensor_parallel: int = 1,
        cost_model: CostModel | None = None,
    ) -> None:
        self.shape = resolve_shape(model)
        self.device = resolve_device(device)
        require_count("tensor_parallel", tensor_parallel)
        if tensor_parallel > 1 and not self.device.link_gbps:
            raise InvalidConfig(
                f"tensor_parallel={tensor_parallel} needs devices with a link, and "
                f"{self.device.name} has none; give Device(link_gbps=...)"
            )
        self.tensor_parallel = tensor_parallel
        self.cost_model: CostModel = (
            cost_model
            or published_cost(self.shape, self.device, tensor_parallel)
            or Roofline(self.shape, self.device, tensor_parallel)
        )
        self.kv_slots, self.kv_origin = self._room_for_tokens()

    def engine(
        self,
        *,
        policy: Any = "fcfs",
        block_size: int = 16,
        num_kv_blocks: int | None = None,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 2048,
        max_model_len: int | None = None,
        enable_prefix_caching: bool = True,
        allocator: str | Callable[..., Any] = "paged",
        level: str = "requests",
        seed: int = 0,
        keeps_journal: bool = False,
        check_every_step: bool = False,
    ) -> Engine:
        """Return an engine with nothing in it, at time 0 of a clock of its own.

        Args:
            policy: As of any engine.
            block_size: Tokens in a block of the KV cache.
            num_kv_blocks: Blocks of the cache; by default what the device has room for.
            max_num_seqs: Requests that may run at once.
            max_num_batched_tokens: Tokens that a step may compute.
            max_model_len: Tokens of one request; by default the model's limit, or all that fit.
            enable_prefix_caching: Whether prompts find the blocks of others.
            allocator: "paged", "orca-max", "orca-pow2", "orca-oracle", or a function
                ``(CacheConfig, *, clock)`` that returns a cache; see `allocators`.
            level: Of the record.
            seed: Of the engine.
            keeps_journal: Whether ``engine.rewind`` and ``record.engine_at`` will work; it takes a
                tenth of the speed.
            check_every_step: Whether to check scheduler and cache after each step (slow).

        Raises:
            InvalidConfig: a limit makes no sense, or there is no such allocator.
        """
        require_count("block_size", block_size)
        num_blocks = self.kv_slots // block_size if num_kv_blocks is None else num_kv_blocks
        cache = CacheConfig(
            num_blocks=num_blocks,
            block_size=block_size,
            enable_prefix_caching=enable_prefix_caching,
        )
        if max_model_len is None:
            max_model_len = min(self.shape.max_model_len, cache.num_slots)
        config = EngineConfig(
            cache=cache,
            scheduler=SchedulerConfig(
                max_model_len=max_model_len,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
            ),
            policy=policy,
            seed=seed,
            check_every_step=check_every_step,
        )
        cost_model = self.cost_model
        if isinstance(cost_model, Roofline):  # which copies blocks of this engine's size
            cost_model = replace(cost_model, block_size=block_size)
        clock = VirtualClock()
        own = None  # the engine makes its paged cache itself, and can go back then
        if allocator != "paged":
            own = make_cache(allocator, cache, max_model_len=max_model_len, clock=clock)
        return Engine(
            SimulatedRunner(cost_model, clock),
            config,
            clock=clock,
            cache=own,
            journal=None if keeps_journal else NoJournal(),
            recorder=Record(level=level, describe=self.describe, max_rows=_MAX_ROWS),
        )

    def run(
        self,
        arrivals: Iterable[Arrival],
        *,
        progress: bool | None = None,
        until_s: float | None = None,
        **options: Any,
    ) -> Record:
        """Serve a load on a new engine and return its record; options are those of ``engine()``.

        Its times count from the start of the load. ``drive(machine.engine(), arrivals)`` does the
        same and returns which request is which arrival.

        Raises:
            InvalidConfig: no such option, or one that makes no sense.
        """
        require_options(options)
        engine = self.engine(**options)
        drive(engine, arrivals, progress=progress, until_s=until_s)
        record: Record = engine.record
        return record

    @property
    def name(self) -> str:
        """Model and device in words: "opt-66b on 4 x A100-40GB"."""
        count = f"{self.tensor_parallel} x " if self.tensor_parallel > 1 else ""
        return f"{self.shape.name} on {count}{self.device.name}"

    def describe(self) -> dict[str, Any]:
        """Return what a record keeps of the machine, as plain values."""
        return {
            "model": self.shape.name,
            "device": self.device.name,
            "tensor_parallel": self.tensor_parallel,
            "cost_model": origin_of(self.cost_model),
            "held_out_error": held_out_error_of(self.cost_model),
            "is_simulated": True,
        }

    def _room_for_tokens(self) -> tuple[int, str]:
        """Return how many tokens' keys and values fit, and how that is known."""
        shape, device, count = self.shape, self.device, self.tensor_parallel
        published = KV_SLOTS.get((shape.name, device.name, count))
        if published is not None:
            return published
        room = count * device.memory_gib * device.usable_memory * _GIB - shape.weight_bytes
        slots = int(room // shape.kv_bytes_per_token)
        if slots < 1:
            raise InvalidConfig(
                f"{shape.name} has {shape.weight_bytes / _GIB:.1f} GiB of weights, and "
                f"{count} x {device.name} has room for "
                f"{count * device.memory_gib * device.usable_memory:.1f} GiB; "
                "raise tensor_parallel"
            )
        memory = (
            f"{count} x {device.memory_gib:g} GiB" if count > 1 else f"{device.memory_gib:g} GiB"
        )
        return slots, f"{device.usable_memory:.0%} of {memory}, less the weights"

    def __repr__(self) -> str:
        shape = self.shape
        error = held_out_error_of(self.cost_model)
        return "\n".join(
            (
                f"Machine: {self.name}",
                f"  weights         {shape.num_parameters / 1e9:.2f} B parameters, "
                f"{shape.weight_bytes / _GIB:.1f} GiB",
                f"  KV cache        {self.kv_slots:,} tokens of "
                f"{shape.kv_bytes_per_token / 1024:g} KiB ({self.kv_origin})",
                f"  step time       {origin_of(self.cost_model)}",
                "  held-out error  "
                + ("not validated" if error is None else f"{error:.1%} of a step, on average"),
            )
        )


_OPTIONS = tuple(
    name
    for name, parameter in signature(Machine.engine).parameters.items()
    if parameter.kind is Parameter.KEYWORD_ONLY
)


def require_options(options: Iterable[str]) -> None:
    """Raise InvalidConfig unless all are names of options of ``Machine.engine()``."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise InvalidConfig(
            f"an engine of a machine has no option {', '.join(unknown)}; it has "
            f"{', '.join(_OPTIONS)}"
        )


def require_count(name: str, count: int) -> None:
    """Raise InvalidConfig unless ``count`` is a positive integer."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidConfig(f"{name} must be a positive integer, not {count!r}")
