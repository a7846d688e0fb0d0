"""Files of numbers read strictly: whatever is wrong is named by file, row and column."""
