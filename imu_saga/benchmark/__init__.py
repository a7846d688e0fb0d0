"""Comparisons: contenders over folds, label counts and draws, their tables and pictures."""
