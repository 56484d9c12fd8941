"""The command `p2phub`: what a person types, and what comes back when it goes wrong.

Subcommands are loaded when they are called, and they load the rest when they run: so
`--help` costs little. Every foreseen error becomes one line, a hint and an exit code
(spec/cli.md); a bug shows all of its traceback.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import importlib
import io
import os
import signal
import sys
import threading

from . import complain, interrupted

try:
    # Takes most of the time until `main` runs, and who calls the wrong command stops it at once.
    import click
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise SystemExit(interrupted()) from None

# Name -> module and attribute; in the order of `--help`.
_COMMANDS = {
    "publish": "transfer:publish",
    "fetch": "transfer:fetch",
    "search": "search:search",
    "info": "catalogue:info",
    "ls": "catalogue:ls",
    "log": "catalogue:log",
    "cat": "transfer:cat",
    "verify": "transfer:verify",
    "export": "vouching:export",
    "sbom": "vouching:sbom",
    "gate": "gates:gate",
    "seal": "seals:seal",
    "unseal": "seals:unseal",
    "branch": "catalogue:branch",
    "yank": "catalogue:yank",
    "lock": "locking:lock",
    "sync": "locking:sync",
    "grant": "private:grant",
    "revoke": "private:revoke",
    "grants": "private:grants",
    "recall": "catalogue:recall",
    "attest": "attest:attest",
    "node": "nodes:node",
    "env": "hub:env",
    "peers": "nodes:peers",
    "status": "nodes:status",
    "swarm": "nodes:swarm",
    "providers": "nodes:providers",
    "limits": "limits:limits",
    "follow": "follow:follow",
    "policy": "policy:policy",
    "id": "identity:identity",
    "trust": "trust:trust",
    "witness": "witness:witness",
    "store": "storage:storage",
    "mirror": "mirrors:mirror",
    "pledge": "pledges:pledge",
    "federation": "federation:federation",
}
_ALIASES = {"pull": "fetch", "download": "fetch"}

AGAIN_S = 0.01  # seconds until ^C comes again that Python ignored
GC_THRESHOLD = 50_000  # new objects until Python looks for garbage; its default is 700

# What comes of writing to a stream whose disk is full, which is gone, or which was not open.
_OF_STREAMS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_VERIFICATION = 4
EXIT_REFUSED = 5
EXIT_OFFLINE = 6
EXIT_NOT_ACCEPTED = 7
EXIT_NO_SPACE = 8


class _Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(_ALIASES.get(cmd_name, cmd_name))
        if target is None:
            return None
        module, attribute = target.split(":")
        command: click.Command = getattr(importlib.import_module(f"p2phub.cli.{module}"), attribute)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="p2phub")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, to stderr.")
@click.pass_context
def cli(ctx: click.Context, verbose: bool) -> None:
    """Share models and datasets between machines, verified, without a centre."""
    # A node has only its log. Another command tells its user what matters by itself: what it runs logs errors alone.
    if verbose or ctx.invoked_subcommand == "node":
        from .running import set_up_logging

        set_up_logging("DEBUG" if verbose else "WARNING")


def entry() -> None:
    """Do what `main` does, in a process that does nothing else."""
    _open_streams()
    tune_process()
    try:
        main()
    except SystemExit as exc:
        # All is said: who presses ^C now wants it to end, and no traceback of how it does.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if isinstance(exc.code, int):
            _leave(exc.code)
        raise
    finally:
        gc.freeze()


def _open_streams() -> None:
    """Give the process the standard streams that it was started without.

    Else the next file that is opened has the number of one, and what was meant for a terminal is written into it.
    What is read from there has ended; to write results there fails, as nobody gets them.
    """
    for number, how in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.open(os.devnull, how)
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or _writer(1)
    sys.stderr = sys.stderr or _writer(2)


def _writer(number: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "wb", closefd=False)), line_buffering=number == 2)


def _leave(code: int) -> None:
    """End the process with `code`, but for what Python itself must see to the end: then return.

    Python would take every module apart before, which a short command takes a twentieth of its time for.
    """
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return  # Python says so, and has a code of its own for it
    os._exit(code)


def tune_process() -> None:
    """Let Python work as this program needs it; for the whole process."""
    # Loading code makes many objects and no garbage: to look through them again and again takes a
    # tenth of a short command, and to look through them once more at the end another one.
    gc.set_threshold(GC_THRESHOLD)
    sys.unraisablehook = _interrupt_again


def _interrupt_again(what: sys.UnraisableHookArgs) -> None:
    """Let ^C come again if it came where Python only says that it ignores it, as in the middle of an import."""
    if what.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(what)
        return
    # A little later: here it would be ignored too.
    again = threading.Timer(AGAIN_S, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    again.daemon = True
    again.start()


def main() -> None:
    """Run the command line and exit with the code that says how it went."""
    try:
        code = cli.main(standalone_mode=False)
        # Here and not at exit, where an error could not be told well.
        sys.stdout.flush()
        # Click gives back the code of ctx.exit() and of --help.
        sys.exit(code if isinstance(code, int) else 0)
    except (click.exceptions.Abort, KeyboardInterrupt):
        # Click makes the first of the second, and ends the line that `^C` stands in.
        sys.exit(interrupted())
    except click.ClickException as exc:
        with contextlib.suppress(OSError):
            exc.show()
        if isinstance(exc, click.UsageError):
            from .meant import meant

            if hint := meant(exc):
                complain(f"hint: {hint}")
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        _drop_output()
        sys.exit(EXIT_FAILED)
    except OSError as exc:
        # Errors of our own files are StoreErrors, and name the file: this one is of stdout.
        if exc.filename is not None or exc.errno not in _OF_STREAMS:
            raise
        _drop_output()
        complain(f"error: cannot write the output: {exc.strerror}")
        sys.exit(EXIT_FAILED)
    except Exception as exc:
        from p2phub.core.errors import HubError

        from .text import one_line

        if not isinstance(exc, HubError):
            raise
        # A name may have a line feed, and programs read these lines.
        complain(f"error: {one_line(str(exc))}")
        if exc.hint:
            complain(f"hint: {one_line(exc.hint)}")
        sys.exit(exit_code(exc))


def _drop_output() -> None:
    """Throw away what was not written yet; Python would try again at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code(exc: Exception) -> int:
    """Return the exit code for a foreseen error; spec/cli.md §2."""
    from p2phub.core import errors

    for classes, code in (
        ((errors.InvalidName,), EXIT_USAGE),
        ((errors.NotFound,), EXIT_NOT_FOUND),
        ((errors.HashMismatch, errors.InvalidSignature, errors.VerificationFailed), EXIT_VERIFICATION),
        ((errors.AccessDenied, errors.ForkedLog, errors.BindingChanged), EXIT_REFUSED),
        ((errors.Offline,), EXIT_OFFLINE),
        ((errors.NotAccepted,), EXIT_NOT_ACCEPTED),
        ((errors.NoSpace,), EXIT_NO_SPACE),
    ):
        if isinstance(exc, classes):
            return code
    return EXIT_FAILED
