"""A synthetic source and target, drawn: they show the same biology and look unlike."""
