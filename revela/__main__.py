"""`python -m revela` is the command `revela`."""

from revela.command.cli import entry

entry()
