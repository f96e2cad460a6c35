"""Activations of single requests, seen and changed while they are served in a batch.

``Hook``, ``Steer`` and ``Patch`` change them, ``llm.hooks.capture`` keeps them. Steps in which a
hooked request has a wanted token take the decoder's unfused path; the others cost nothing. There
are no gradients.
"""

from toolkit.runtime.hooks.active import ActiveHooks
from toolkit.runtime.hooks.capture import Capture
from toolkit.runtime.hooks.captured import Captured, CapturedRequest
from toolkit.runtime.hooks.kinds import Hook, HookAt, Patch, Steer
from toolkit.runtime.hooks.lens import Lens
from toolkit.runtime.hooks.step import HookedStep

__all__ = [
    "ActiveHooks",
    "Capture",
    "Captured",
    "CapturedRequest",
    "Hook",
    "HookAt",
    "HookedStep",
    "Lens",
    "Patch",
    "Steer",
]
