"""Public EEG sets: where they are, under which terms, and how they are fetched and checked."""
