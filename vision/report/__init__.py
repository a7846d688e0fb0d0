"""Seeing why: heat maps, confusions, mistakes, features and confidence of a finished run, on one page."""
