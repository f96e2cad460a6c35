"""``toolkit bench``: throughput, latency, serve, kernels, and the comparison of two runs.

Its parts serve notebooks and the scripts in kernels/bench too: ``limits`` (what the machine can
do), ``model_work`` and ``op_work`` (what a model and an op ask of it), ``metrics`` and
``environment``.
"""
