"""Batches that a retriever groups: vectors of chunks -> neighbours -> batches of chunks that are alike."""

from revela.errors import RevelaError


class GroupingError(RevelaError):
    """Chunks cannot be grouped as asked."""
