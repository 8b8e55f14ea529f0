"""Choosing among ways to segment a target, by image-level labels alone."""
