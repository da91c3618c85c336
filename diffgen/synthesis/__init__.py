"""Coordinator, sampler, shard writer and driver: Algorithm 2 on a cluster."""
