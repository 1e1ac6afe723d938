"""What the paper shows: tables, figures, and how its printed numbers compare with ours."""

from revela.errors import RevelaError


class PaperError(RevelaError):
    """A table or figure that cannot be made from the files that exist. The message is one line."""
