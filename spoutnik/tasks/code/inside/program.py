"""Running a program as Python would run a file: limits first, then the source as the module `__main__`."""

import os
import sys

FILE_NAME = "<program>"


def limit(job: dict) -> None:
    """The limits that a process sets itself for good: memory, processes, files; no core dumps; no harmful system calls."""
    import resource
    limits = job["limits"]
    for name, value in (("RLIMIT_AS", limits["address_space"]), ("RLIMIT_NPROC", limits["processes"]), ("RLIMIT_CORE", 0),
                        ("RLIMIT_FSIZE", limits["scratch"]), ("RLIMIT_NOFILE", limits["open_files"]), ("RLIMIT_MSGQUEUE", 0)):
        number = getattr(resource, name, None)  # not every system has all of them
        if number is not None:
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (value, value))
    if job["confine"]:
        from . import namespaces
        namespaces.confine()
    os.chdir(job["folder"])


def source_of(job: dict) -> bytes:
    """The whole of the job's source."""
    with open(job["source"], "rb") as file:
        return file.read()


def forget_harness() -> None:
    """Take this package off the path and its names out of the table of modules: a program sees an ordinary Python."""
    sys.path[:] = [folder for folder in sys.path if not os.path.isdir(os.path.join(folder, "inside"))]
    sys.argv[:] = [FILE_NAME]
    sys.orig_argv[:] = [sys.executable, FILE_NAME]
    for name in [name for name in sys.modules if name.split(".")[0] == "inside"]:
        del sys.modules[name]


def module_of(name: str) -> dict:
    """The namespace of a new module that is in the table of modules, as pickle and dataclasses want."""
    module = type(sys)(name)
    module.__builtins__ = __builtins__
    sys.modules[name] = module
    return module.__dict__


def run(job: dict) -> None:
    """Run the source to the end of its threads and atexit functions, and end the process with its exit status."""
    source = source_of(job)
    if job.get("files"):
        _use_files(*job["files"])
    forget_harness()
    code = 0
    try:
        exec(compile(source, FILE_NAME, "exec", dont_inherit=True), module_of("__main__"))
    except SystemExit as leaving:
        code = _status(leaving.code)
    except BaseException as error:
        error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)  # our own frame is left out
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    _end(code)


def _status(code: object) -> int:
    if code is None or isinstance(code, int):
        return int(code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def _end(code: int) -> None:
    """What Python does at its end but for taking its modules apart, which would copy all memory shared with the zygote."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    import atexit
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        code = code or 120  # as Python does
    os._exit(code)


def _use_files(read: str, written: str) -> None:
    """Problems whose program reads and writes files: the input goes into one, the other becomes the output at the end."""
    import atexit
    import shutil
    with open(read, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)

    def show() -> None:
        if os.path.exists(written):
            with open(written, "rb") as file:
                sys.stdout.flush()
                shutil.copyfileobj(file, sys.stdout.buffer)

    atexit.register(show)
