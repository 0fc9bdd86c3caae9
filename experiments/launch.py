"""The door of every launcher: flags in, and where they are wrong one line on stderr and exit code 2."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

import compilation

os.environ["XLA_FLAGS"] = compilation.fast_flags(os.environ.get("XLA_FLAGS", ""))

from aco_jax import configuration, processes
from aco_jax.data.records import InputError

WRONG_INPUT, INTERRUPTED, UNREAD = 2, 130, 141  # exit codes
PATHS = ("workdir", "data", "out", "clusters", "pairs")  # flags that an unset variable of a shell leaves empty
CLUSTER = "cluster"  # for a coordinator: the machines know it


def run(main: Callable[[], None]) -> None:
    """Parses the command line, then calls `main`; never returns."""
    logging.set_verbosity(logging.WARNING)
    app.run(lambda _: _guarded(main), flags_parser=_parse)


def typed(cls: type, flag: str = "config") -> Any:
    """The dataclass `cls` from the flag of a config file. Raises InputError naming the file or the field."""
    config: Any = flags.FLAGS[flag].value
    try:
        fields = config.to_dict()
    except OSError as error:  # a config file that cannot be read says so only when it is looked at
        raise InputError(f"--{flag}: {error}") from None
    return configuration.from_dict(cls, fields, flag)


def define_choices(flag: str, choices: Sequence[str], meaning: str) -> None:
    """A flag of names separated by commas, each one of `choices`; empty by default."""
    flags.DEFINE_list(flag, [], meaning)
    expected = f"expected some of {', '.join(choices)}"
    flags.register_validator(flag, lambda names: set(names) <= set(choices), message=expected)


def define_processes() -> None:
    """Flags for a run that several processes learn together; see `join`."""
    where = "HOST:PORT where process 0 listens, or `cluster` where that knows the processes, as a TPU pod does"
    flags.DEFINE_string("coordinator", None, f"of several processes that learn together: {where}")
    flags.DEFINE_integer("processes", None, "how many there are", lower_bound=1)
    flags.DEFINE_integer("process", None, "which one this is, from 0", lower_bound=0)


def join() -> None:
    """Joins the processes that the flags name; nothing where they name none. Raises InputError."""
    coordinator, count, index = (flags.FLAGS[name].value for name in ("coordinator", "processes", "process"))
    if coordinator is None and count is None and index is None:
        return
    if coordinator == CLUSTER and count is None and index is None:
        processes.join()
    elif coordinator is None or coordinator == CLUSTER or count is None or index is None:
        raise InputError("--coordinator, --processes, --process: expected all three, or --coordinator=cluster alone")
    elif index >= count:
        raise InputError(f"--process: {index}, expected less than the {count} of --processes")
    else:
        processes.join(coordinator, count, index)


def _guarded(main: Callable[[], None]) -> None:
    with processes.failing_at_once():
        try:
            main()
            sys.stdout.flush()
        except InputError as error:
            _stop(str(error))
        except KeyboardInterrupt:
            print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:  # who read the output, as `head` does, has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(UNREAD)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            _stop(f"{error.filename or 'a file'}: {error.strerror}, expected room to write to")


def _parse(argv: Sequence[str]) -> list[str]:
    """Flags as absl reads them; whatever it or a config file raises becomes one line."""
    try:
        left = flags.FLAGS(argv)
    except flags.Error as error:
        _stop(f"{error}; --help lists what is expected")
    except (AttributeError, KeyError) as error:
        _stop(_unknown_field(argv, str(error.args[0] if error.args else error)))
    except (ImportError, NameError, OSError, SyntaxError, TypeError, ValueError) as error:
        _stop(f"--config: {error}, expected a file of experiments/configs")
    if left[1:]:
        _stop(f"{left[1]!r} is no flag, expected --flag=value")
    for name in PATHS:
        if name in flags.FLAGS and flags.FLAGS[name].value == "":
            _stop(f"--{name}: empty, expected a path")
    return left


def _unknown_field(argv: Sequence[str], error: str) -> str:
    """Names the override that the config file has no field for."""
    missing = set(re.findall(r"\w+", error.partition("Did you mean")[0]))
    for override in argv:
        if override.startswith("--config.") and missing & set(override.partition("=")[0].split(".")):
            return f"{override}: unknown field {error}, expected a field of the config file"
    return f"--config: unknown field {error}, expected a field of the config file"


def _stop(message: str) -> None:
    print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(WRONG_INPUT)
