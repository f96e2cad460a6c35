"""What a device can do at best, and which part of it programs reach."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import InvalidConfig

__all__ = ["DEVICES", "Device", "resolve_device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator, or one CPU.

    Peaks are the maker's, the three efficiencies the part of them that kernels reach. ``host_s`` is
    what a step costs besides: planning, launches, sampling.

    Raises:
        InvalidConfig: a size or rate is not positive, or an efficiency is above 1.
    """

    name: str
    memory_gib: float
    bandwidth_gbps: float  # GB/s of its memory
    tflops: float  # of dense matrix products in 16 bit
    host_s: float
    origin: str
    bandwidth_efficiency: float = 0.80
    compute_efficiency: float = 0.60
    attention_efficiency: float = 0.40  # of tflops, in the attention of prompts
    usable_memory: float = 0.90  # the part that weights and KV cache may take
    link_gbps: float = 0.0  # GB/s to another device, one way; 0: it has no link
    link_latency_s: float = 20e-6  # of a collective, before the first byte
    tile_tokens: int = 1  # products are computed for whole multiples of so many tokens

    def __post_init__(self) -> None:
        for name in ("memory_gib", "bandwidth_gbps", "tflops", "tile_tokens"):
            if not getattr(self, name) > 0:
                raise InvalidConfig(f"Device({name}={getattr(self, name)!r}) must be positive")
        for name in ("host_s", "link_gbps", "link_latency_s"):
            if not getattr(self, name) >= 0:
                raise InvalidConfig(f"Device({name}={getattr(self, name)!r}) must not be negative")
        for name in (
            "bandwidth_efficiency",
            "compute_efficiency",
            "attention_efficiency",
            "usable_memory",
        ):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidConfig(f"Device({name}={getattr(self, name)!r}) must be in (0, 1]")

    @property
    def bytes_per_s(self) -> float:
        """Bytes of memory that are read in a second."""
        return 1e9 * self.bandwidth_gbps * self.bandwidth_efficiency

    @property
    def flops(self) -> float:
        """Operations that matrix products do in a second."""
        return 1e12 * self.tflops * self.compute_efficiency

    @property
    def attention_flops(self) -> float:
        """Operations that the attention of prompts does in a second."""
        return 1e12 * self.tflops * self.attention_efficiency


# 0.80 of the bandwidth: what inference simulators found on H100 (2650-2750 of 3350 GB/s). 0.60 of
# the operations: DistServe's OPT-13B fit, 0.1405 ms a token, is 183 of the A100's 312 TFLOP/s.
_EFFICIENCIES = (
    "data sheet; 80 % of bandwidth, 60 % of compute, 40 % in attention, 2 ms of host a step"
)


def _gpu(
    name: str, memory_gib: float, bandwidth_gbps: float, tflops: float, link_gbps: float
) -> Device:
    return Device(
        name=name,
        memory_gib=memory_gib,
        bandwidth_gbps=bandwidth_gbps,
        tflops=tflops,
        link_gbps=link_gbps,
        host_s=2e-3,
        origin=f"{name} {_EFFICIENCIES}",
    )


DEVICES = {
    device.name.lower(): device
    for device in (
        _gpu("A100-40GB", 40, 1_555, 312, link_gbps=300),
        _gpu("A100-80GB", 80, 2_039, 312, link_gbps=300),
        _gpu("H100", 80, 3_350, 989, link_gbps=450),
        _gpu("H200", 140, 4_800, 989, link_gbps=450),
        Device(
            name="cpu-2core",
            memory_gib=23,
            bandwidth_gbps=20,
            tflops=0.466,
            host_s=1e-3,
            bandwidth_efficiency=1.0,
            origin="measured on 2 virtual cores with AVX-512 BF16 (AMD Zen 4 class) under other "
            "load: 13-24 GB/s read, 0.233 TFLOP/s a thread in bf16; 60 % of that assumed",
        ),
    )
}


def resolve_device(device: str | Device) -> Device:
    """Return a preset by name, or the device given.

    Raises:
        InvalidConfig: there is no such preset.
    """
    if isinstance(device, Device):
        return device
    found = DEVICES.get(str(device).lower())
    if found is None:
        names = ", ".join(known.name for known in DEVICES.values())
        raise InvalidConfig(
            f"device={device!r} is not one of {names}; a Device(...) describes any other"
        )
    return found
