"""Raw text -> chunks -> batches."""
