"""diffgen: large, seamless synthetic H&E images with their label maps, by random patch diffusion on Ray."""

__version__ = "0.1.0"
