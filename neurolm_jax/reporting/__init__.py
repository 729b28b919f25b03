"""What a person looks at: tables, figures, one page about a run."""
