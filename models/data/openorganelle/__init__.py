"""Volumes of OpenOrganelle as datasets: what lies where, which pixel is what, and fetching it.

Legend: a *crop* is a box of a cell's volume that people annotated. Coordinates are z, y, x.
"""
