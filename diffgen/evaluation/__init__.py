"""Fidelity, memorization and labels of synthetic data, as functions; no command calls them yet."""
