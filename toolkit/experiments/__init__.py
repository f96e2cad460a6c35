"""Reproduce throughput experiments: workloads, one way to run them anywhere, claims to check."""
