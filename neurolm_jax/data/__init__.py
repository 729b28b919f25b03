"""Shards, packed rows, text and the streams made of them: random access all the way."""
