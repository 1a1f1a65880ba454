"""The `sam2-jax` command. Each command imports what it needs when it runs."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from sam2_jax.checks import did_you_mean, shown, some_lines
from sam2_jax.commands.collect import add_collect
from sam2_jax.commands.common import check_paths
from sam2_jax.commands.convert import add_convert
from sam2_jax.commands.demo import add_demo
from sam2_jax.commands.export import add_export
from sam2_jax.commands.finetune import add_finetune
from sam2_jax.commands.generate import add_generate
from sam2_jax.commands.prompts import join_negative_numbers
from sam2_jax.commands.segment import add_segment
from sam2_jax.commands.streams import printing
from sam2_jax.commands.track import add_track

COMMANDS = {
    "segment": add_segment,
    "generate": add_generate,
    "track": add_track,
    "demo": add_demo,
    "collect": add_collect,
    "finetune": add_finetune,
    "convert": add_convert,
    "export": add_export,
}
"""What adds each command's arguments."""

_LONGEST_MESSAGE = 2000


class _Parser(argparse.ArgumentParser):
    """Argparse's, with each command's own usage for what it does not know, and messages of fit length.

    Options are not abbreviated: --points would be --points-per-side to a command, and be answered as that.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but what is unknown is refused by the command it was given to."""
        self._given = list(args or ())
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return namespace, unknown

    def _unknown(self, argument: str) -> str:
        name, meant = argument.partition("=")[0], ""
        if argument.startswith("-"):
            meant = did_you_mean(name, self._names, cutoff=0.72)  # the dashes alone make all of them alike
        return f"unknown argument {shown(argument)}{meant}"

    @property
    def _names(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Say how the command is used and what is wrong."""
        if message.startswith("the following arguments are required"):  # perhaps they were misspelt
            options = [given for given in self._given if given.startswith("--")]
            for given in options:
                if given.partition("=")[0] not in self._names:
                    message = self._unknown(given)
                    break
        super().error(_fit(message))


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = _Parser(
        prog="sam2-jax",
        description="Segment Anything 2 in JAX.",
        epilog="example, a sample picture and what the small model that comes with it makes of it:\n"
        "  sam2-jax segment --model embedded\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sam2_jax {version('sam2_jax')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS.values():
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 done, 1 the input was at fault (said on stderr)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    with printing() as streams, warnings.catch_warnings():
        if not argv:
            parser.print_help()
            return 0
        if argv[0] not in COMMANDS and not argv[0].startswith("-"):
            parser.error(f"there is no command {shown(argv[0])}{did_you_mean(argv[0], COMMANDS)}")
        arguments = parser.parse_args(join_negative_numbers(argv))
        streams.is_quiet = getattr(arguments, "quiet", False)
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"note: {_fit(str(message))}", file=sys.stderr)
        try:
            check_paths(arguments)
            return arguments.run(arguments) or 0
        except ValueError as error:
            problem = str(error)
        except OSError as error:  # what the system refuses, and nothing has found better words for
            names = f": {shown(str(error.filename))}" if error.filename else ""
            problem = f"{error.strerror or error}{names}"
        except KeyboardInterrupt as error:
            print(f"sam2-jax: stopped; {str(error) or 'nothing half-written is left'}", file=sys.stderr)
            return 130
        print(f"sam2-jax: error: {_fit(problem)}", file=sys.stderr)
        return 1


def _fit(message: str) -> str:
    """A message of a length that people read."""
    message = some_lines(message.splitlines())
    if len(message) <= _LONGEST_MESSAGE:
        return message
    return f"{message[: _LONGEST_MESSAGE - 200]} ... {message[-200:]}"
