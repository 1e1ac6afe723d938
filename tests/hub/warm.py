"""An interpreter that has torch and transformers imported already, and forks for every job: 3 s of each are saved.

    python warm.py serve SOCKET             the one that forks
    python warm.py run SOCKET SCRIPT        runs a script in a fork of it, as `python SCRIPT` would

A job with the network, or one that needs neither library, begins as ever. The process that forks was told before it
imported anything that there is no network, as jobs are told.
"""

import json
import os
import select
import signal
import socket
import sys

JOBS = ("run.py", "score.py", "language_model.py", "replug_scores.py", "timing.py", "export.py")


def serve(path: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import revela.evaluation.bm25
    import revela.evaluation.language_models
    import revela.evaluation.off_the_shelf  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(16)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                keep(connection)
            connection.close()


def keep(connection: socket.socket) -> None:
    """Runs one script, and tells how it ended; it ends with the one who asked for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, descriptors, _, _ = socket.recv_fds(connection, 1 << 22, 3)
    while not asked.endswith(b"\n"):
        asked += connection.recv(1 << 20)
    script, folder, environment = json.loads(asked)
    worker = os.fork()
    if worker == 0:
        connection.close()
        os._exit(work(script, folder, environment, descriptors))
    while True:
        found, status = os.waitpid(worker, os.WNOHANG)
        if found:
            connection.sendall(b"%d" % (os.waitstatus_to_exitcode(status) & 255))
            os._exit(0)
        if select.select([connection], [], [], 0.02)[0] and not connection.recv(1):
            os.kill(worker, signal.SIGKILL)
            os._exit(1)


def work(script: str, folder: str, environment: dict, descriptors: list[int]) -> int:
    import runpy

    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [script]
    sys.path[0] = os.path.dirname(script)
    try:
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter does
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def run(path: str, arguments: list[str]) -> None:
    if not (len(arguments) == 1 and arguments[0].endswith(tuple(f".{job}" for job in JOBS))):
        os.execv(sys.executable, [sys.executable, *arguments])
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        asked = json.dumps([os.path.abspath(arguments[0]), os.getcwd(), dict(os.environ)]).encode() + b"\n"
        sent = socket.send_fds(connection, [asked], [0, 1, 2])
        connection.sendall(asked[sent:])
        status = connection.recv(8)
    os._exit(int(status or 1))


if __name__ == "__main__":
    {"serve": lambda path, _: serve(path), "run": run}[sys.argv[1]](sys.argv[2], sys.argv[3:])
