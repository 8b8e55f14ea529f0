"""Every number of a training: a section for each stage, and the presets; free of torch."""
