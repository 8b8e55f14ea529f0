"""Sizes that networks are run by, which estimates of memory need too; free of torch."""

WINOGRAD_FROM = 64
"""Convolutions on a CPU go by Winograd's algorithm with at least so many channels in and out."""

WHOLE_PX, TILE_PX = 2048, 1024
"""Images up to the first on both sides are taken whole, larger ones in tiles of the second."""
