"""Fidelity, memorization, labels and use of synthetic data: nothing here yet (see CHANGELOG)."""
