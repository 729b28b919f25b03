"""Many runs of a grid, and what they say together: scaling laws and ablations."""
