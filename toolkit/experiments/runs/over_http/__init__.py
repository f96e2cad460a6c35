"""Workloads over HTTP: what each request says, and the tables of what came back."""
