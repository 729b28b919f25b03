"""Answers from a trained model: scoring of allowed answers, generation, and the baselines to compare with."""
