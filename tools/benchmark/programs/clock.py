"""Run a command and print what it took: clock.py OUTPUT COMMAND [ARGUMENT …]

Prints JSON: `seconds` from start to exit, `cpu` seconds of it and its children, `peak`
bytes of the largest of them, and its exit `code`. The file OUTPUT gets its stdout.

A process of its own and a small one, because Linux counts into a process's peak what the
process that forked it held.
"""

import json
import os
import sys
import time


def main() -> None:
    output, *command = sys.argv[1:]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    start = time.monotonic()
    child = os.posix_spawnp(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, output, flags, 0o644)]
    )
    _, status, usage = os.wait4(child, 0)
    result = {
        "seconds": time.monotonic() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
        "code": os.waitstatus_to_exitcode(status),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
