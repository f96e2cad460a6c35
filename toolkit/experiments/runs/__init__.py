"""Runs: a workload on an engine, a server or the simulator, and the table it gives."""
