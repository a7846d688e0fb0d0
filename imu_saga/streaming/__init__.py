"""Samples in one by one, answers out as windows are complete."""
