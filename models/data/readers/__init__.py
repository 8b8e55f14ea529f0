"""One module per file format: it yields sections (H, W), and never more pixels than allowed."""
