"""New classes from image-level labels, without forgetting the old (weakly incremental segmentation)."""
