"""The command line: train on your own text, encode, search, evaluate, export, plan, and see what a machine lacks.

Results go to stdout, as JSON with `--json`; progress goes to stderr. Exit status: 0 done, 1 an error, explained in one
line on stderr, 2 a command that is not understood, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from revela.command.cli_share import export, push
from revela.command.cli_study import doctor, plan, reproduce
from revela.command.cli_train import report, train
from revela.command.cli_use import encode, evaluate, search
from revela.errors import RevelaError, in_one_line

INTERRUPTED = 130  # the status after Ctrl-C
GOING_ON = ("train", "reproduce")  # commands that are given again after a stop

app = typer.Typer(
    name="revela",
    help="Dense retrievers learned from raw text by language modelling.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(epilog="Example: revela search my-retriever/retriever notes 'how to sort a list'")
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Dense retrievers learned from raw text by language modelling."""


# Each command with its example, in the order of the help.
for _command, _example in (
    (train, "train --text notes --backbone resources/backbones/tiny-4m --out my-retriever"),
    (report, "report my-retriever"),
    (encode, "encode my-retriever/retriever notes --kind passage --out notes.npy"),
    (search, "search my-retriever/retriever notes 'how to sort a list' --top 3"),
    (evaluate, "evaluate my-retriever/retriever my-benchmark --run ranking.run.gz"),
    (export, "export results/tiny/models/revela/code/tiny-4m/tiny-4m/bs16 exported"),
    (push, "push exported owner/name"),
    (reproduce, "reproduce config/tiny.yaml"),
    (plan, "plan results/tables/table1.tex"),
    (doctor, "doctor results/tables/table1.tex"),
):
    app.command(epilog=f"Example: revela {_example}")(_command)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    typed = [argument for argument in arguments if argument != "--debug"]
    try:
        os.getcwd()
    except FileNotFoundError:  # libraries would end the process
        print("error: the working directory is no more; change to another and give the command again", file=sys.stderr)
        return 1
    try:
        status = app(args=typed or ["--help"], prog_name="revela", standalone_mode=False) or 0
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    if status == INTERRUPTED:
        goes_on = "; the same command goes on where it was" if typed[0] in GOING_ON else ""
        print(f"interrupted{goes_on}", file=sys.stderr)
    return status


def _message(error: Exception) -> str:
    """An error in one line."""
    if hasattr(error, "format_message"):  # of a command that is not understood
        place = error.ctx.command_path if getattr(error, "ctx", None) else "revela"
        return f"{error.format_message().rstrip('.')}; valid: see {place} --help".replace("\n", " ")

    from safetensors import SafetensorError

    message = in_one_line(error)
    if isinstance(error, (RevelaError, OSError, SafetensorError)):
        return message
    return f"{type(error).__name__}: {message} (not foreseen; --debug shows the traceback)"


def entry() -> None:
    """The command `revela`. SIGTERM and SIGHUP stop it and all that it has started, as Ctrl-C does."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    sys.exit(main())
