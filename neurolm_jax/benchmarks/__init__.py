"""What is measured, and the usual way it is compared with."""
