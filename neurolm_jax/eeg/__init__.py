"""Recordings: electrodes, preprocessing, the record format, and the downstream tasks."""
