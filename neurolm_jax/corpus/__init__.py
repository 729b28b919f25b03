"""From directories of recordings to shards: which files, what is kept of each, and the work spread over processes."""
