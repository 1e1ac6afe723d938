"""The base of all errors that a person can mend."""


class RevelaError(Exception):
    """Something that cannot be done, and why. The message is one line: which file, key or value, and what is valid."""


def first_line(error: Exception) -> str:
    """What a library's error says in its first line, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def in_one_line(error: BaseException) -> str:
    """What an error says, in one line: of the operating system's, the file and the fault."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename2 or error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
