"""Raw text -> chunks -> batches."""

from revela.errors import RevelaError


class CorpusError(RevelaError):
    """Text that is missing or cannot be used, or too little of it. The message is one line."""
