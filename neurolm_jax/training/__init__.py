"""State, optimizer, mesh, checkpoints and metrics of the loop."""
