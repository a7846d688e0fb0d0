"""What is done to samples before any learning: clocks, units, rates, gravity, rhythm, features."""
