"""Trained cells in the formats that other software loads."""

from revela.errors import RevelaError


class ExportError(RevelaError):
    """A model that cannot be exported, or a place that does not take it. The message is one line."""
