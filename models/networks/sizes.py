"""Sizes that decide how networks run, and that estimates of memory need; free of torch."""

WINOGRAD_FROM = 64
"""The number of channels, in and out, from which a CPU convolves by Winograd's algorithm."""

WHOLE_PX, TILE_PX = 2048, 1024
"""The longest side of an image that is taken whole, and the side of larger images' tiles."""
