"""Segmentation: a class for every pixel, from masks, or new classes from image-level labels alone."""
