"""The parts of `throughput.py`, a file each."""
