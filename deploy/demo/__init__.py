"""The whole house on built-in data: pre-train, search, adapt, compare, export, report."""
