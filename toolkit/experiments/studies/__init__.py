"""Studies of many runs: sweeps, capacities, comparisons, checks of a policy."""
