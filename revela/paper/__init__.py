"""What the paper shows: tables, figures, and how its printed numbers compare with ours."""


class PaperError(ValueError):
    """A table or figure that cannot be made of what there is. The message is one line."""
