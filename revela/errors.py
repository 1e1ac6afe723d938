"""The base of all errors that a person can mend."""


class RevelaError(Exception):
    """Something that cannot be done, and why. The message is one line: which file, key or value, and what is valid."""
