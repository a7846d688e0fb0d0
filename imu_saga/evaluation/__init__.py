"""What a run is worth: scores, verification, other data sets, and the audit of what it was trained on."""
