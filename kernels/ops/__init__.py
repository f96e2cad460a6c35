"""The ops of the decoder, each in several implementations with one signature.

``select_ops(choice, device)`` gives an ``Ops``: the chosen implementation's name and a callable per
op. reference.py, plain PyTorch, says what each op computes. The folder is kernels/ops; the name it
is imported by is toolkit.kernels.
"""

from toolkit.kernels.backends import Ops, select_ops
from toolkit.kernels.contracts import FusedLayers, PackedLinear

__all__ = ["FusedLayers", "Ops", "PackedLinear", "select_ops"]
