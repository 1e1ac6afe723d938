"""Batches -> trained cells.

`loop`, `rows` and `engine` decide the weights, and `start` where they begin with those of another cell; these and a
method's objective are the code that a cell depends on. All other modules start a run, look on, keep its state, or write
down what came out: they change no weight.
"""

from revela.errors import RevelaError


class TrainingError(RevelaError):
    """A run that cannot start or cannot go on. The message is one line."""
