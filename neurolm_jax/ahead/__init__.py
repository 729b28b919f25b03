"""Programs compiled ahead for machines that are not here: what they hold, compute and send."""
