"""Comparisons of methods: contenders over shots and seeds, rates tuned inside the shots, tables, pictures, noise."""
