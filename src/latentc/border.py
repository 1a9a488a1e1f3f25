"""The border: every error becomes its message and its exit code, here and nowhere else."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, ParamSpec

import typer

from latentc.errors import InternalError, LatentcError, ToolMissing

P = ParamSpec("P")

INTERRUPTED = 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn every error into its message and exit code; a defect of ours into one line, not a traceback."""

    @functools.wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            command(*args, **kwargs)
        except LatentcError as error:
            _end(error)
        except KeyboardInterrupt:
            from latentc.terminal import say

            say("\ninterrupted: what was finished is kept; the same command goes on from there", sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except ModuleNotFoundError as error:
            _end(_missing(error))
        except MemoryError:
            from latentc.errors import ResourceError

            _end(ResourceError("", "ran out of memory", "close other programs, or use a machine with more"))
        except (typer.Exit, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("LATENTC_DEBUG"):
                traceback.print_exc()
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            _end(
                InternalError(
                    where,
                    f"{type(error).__name__}: {error}",
                    "this is a defect of latentc: please report it with the output of LATENTC_DEBUG=1",
                )
            )

    return inner


def _missing(error: ModuleNotFoundError) -> LatentcError:
    """The extra that brings a missing package; a missing module of ours is a defect."""
    from latentc.compiler.doctor import EXTRAS

    name = (error.name or "").partition(".")[0]
    for extra, packages in EXTRAS:
        if extra and name in {module for _, module in packages}:
            return ToolMissing.package(name, extra)
    return InternalError("", str(error), "this is a defect of latentc: please report it")


def _end(error: LatentcError) -> NoReturn:
    from latentc.terminal import say_error

    say_error(error)
    raise typer.Exit(error.exit_code) from None


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
