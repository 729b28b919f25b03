"""From directories of recordings, and texts, to shards: what is read, what is kept of it, and the work spread out."""
