"""Start of the program inside the sandbox: one job at once (cold), or a warm process that forks one child per job (the zygote).

A job is a header and open files: the source, standard input, output and error, a control socket (zygote only) and the
channel to the other process of a verdict (solution and tests only). Whatever happens in here is untrusted from the moment the
program starts; the host believes only what it sees from outside.
"""

import marshal
import os
import sys

FILES = ("source", "stdin", "stdout", "stderr", "control", "channel")  # the order in which the host sends them


def cold(header: str) -> None:
    """Run one job in the namespaces that bubblewrap made, or in none at all (`--sandbox rlimit`)."""
    job = marshal.loads(bytes.fromhex(header))  # the host wrote it; json would take longer to import than all else here
    if job.get("reach") is not None:
        from . import namespaces
        namespaces.drop_root(job["uid"], job["reach"])
    _run(job)


def warm(number: str) -> None:
    """The zygote: waits for jobs at the socket and forks; returns only in a child, after the program's end."""
    import signal
    import socket

    from . import namespaces, preload  # noqa: F401  (what children find already imported)
    server = socket.socket(fileno=int(number))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    uid, gid = os.getuid(), os.getgid()
    server.send(b"ready")
    while True:
        data, files, _, _ = socket.recv_fds(server, 4096, len(FILES))
        if not data:
            os._exit(0)  # the host is gone
        if namespaces.fork_into_new() == 0:
            break
        for file in files:
            os.close(file)
    server.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    job = marshal.loads(data) | dict(zip(FILES, files))
    namespaces.enter(job, uid, gid)
    for target, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(job[name], target)
        os.close(job[name])
    _run(job)


def _run(job: dict) -> None:
    from . import program
    program.limit(job)
    if job["kind"] == "program":
        program.run(job)
    elif job["kind"] == "solution":
        from . import solution
        solution.serve(job)
    else:
        from . import tester
        tester.run(job)


def main() -> None:
    """Start as the host said: `cold HEADER` or `warm NUMBER_OF_THE_SOCKET`."""
    {"cold": cold, "warm": warm}[sys.argv[1]](sys.argv[2])
