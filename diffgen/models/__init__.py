"""Autoencoders, attention, the two U-Nets, and the bundle that holds them."""
