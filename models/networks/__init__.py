"""Networks: CUT's three, and the segmenter."""
