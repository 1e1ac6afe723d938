"""`python -m revela` is the command `revela`."""

from revela.cli import entry

entry()
