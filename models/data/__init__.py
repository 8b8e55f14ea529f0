"""Images, masks, image-level labels and splits; free of torch."""
