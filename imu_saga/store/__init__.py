"""Millions of windows on disk: written in whole shards, read in random batches with little memory."""
