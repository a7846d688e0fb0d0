"""What a recording holds: facts with their evidence, what would be repaired, what is refused."""
