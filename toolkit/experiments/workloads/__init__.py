"""Workloads: who comes when, how long, and with what text."""
