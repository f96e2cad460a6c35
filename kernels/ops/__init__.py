"""The ops of the decoder, each in several implementations with one signature.

``select_ops(choice, device)`` gives an ``Ops``: the chosen implementation's name and a callable per
op. reference.py, plain PyTorch, says what each op computes. The folder is kernels/ops; the name it
is imported by is toolkit.kernels.
"""

from toolkit.kernels.backends import Ops, PackedLinear, select_ops

__all__ = ["Ops", "PackedLinear", "select_ops"]
