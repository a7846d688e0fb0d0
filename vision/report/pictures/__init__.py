"""The pictures of a report, one file each; each function returns a matplotlib figure."""
