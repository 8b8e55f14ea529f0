"""From files as people have them to a stored domain: found, paired, read once, checked."""
