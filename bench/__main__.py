"""The command line. `make` only forwards to it; `python -m bench COMMAND --help` lists a command's options."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence

from bench.errors import UserError, suggest
from bench.machine.inherited import clean, utf8_command
from bench.machine.mkl import use_avx512
from bench.paths import expand

use_avx512()  # here, since it must come before torch: also in the processes that multiprocessing starts from this one
# Before numpy: its products are small in all commands, and threads would only wait for one another on busy cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code: 0, 1 if jobs failed, 2 for bad input, 130 after ^C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        for line in clean(os.environ, sys.path):
            print(f"bench: {line}", file=sys.stderr)
        options = parse(arguments)
        code = int(options.command(options))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UserError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _print_no_more()
        return 1
    except OSError as error:
        if error.errno not in DISKS:
            raise
        if not error.filename:
            _print_no_more()
        print(f"bench: {error.filename or 'the output'} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


#: Errors of a disk, wherever they turn up: nothing that a command does is to blame.
DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


def _print_no_more() -> None:
    """What is left to print goes nowhere, so that Python does not try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def script() -> int:
    """`main` for a process of its own."""
    if (again := utf8_command(sys.argv[1:])) is not None:
        os.execv(again[0], again)
    return main()


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line. commands: the names of those that it has."""

    commands: Collection[str] = ()

    def error(self, message: str) -> None:  # type: ignore[override]
        print(f"bench: {message} (python -m bench --help)", file=sys.stderr)
        raise SystemExit(2)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, in which STUDY=paper, as `make` has it, stands for --study=paper. Raises UserError."""
    parser, words = _parser(), []
    for word in arguments:
        given = re.fullmatch(r"([A-Z][A-Z_]*)=(.*)", word, re.S)
        words.append(f"--{given[1].lower().replace('_', '-')}={given[2]}" if given else word)
    first = "".join(arguments[:1])
    if first not in {*parser.commands, "-h", "--help"}:
        raise UserError(
            f"expected a command{f', not {first!r}' if first else ''}{suggest(first, parser.commands)}"
        )
    options, unknown = parser.parse_known_args(words)
    if unknown:
        name = unknown[0].partition("=")[0]
        raise UserError(
            f"{options.name} does not take {name}{suggest(name, {*options.takes} - {'-h', '--help'})}"
        )
    return options


def _path(name: str) -> Callable[[str], str]:
    """The type of every argument that is a path."""

    def path(text: str) -> str:
        if not text:
            raise UserError(f"{name} is empty: expected a path")
        try:
            return expand(text)
        except UserError as error:
            raise UserError(f"{name}={text}: {error}") from None

    return path


def _paths(name: str) -> Callable[[str], list[str]]:
    """The type of an argument that is one path, which may have blanks in it, or several."""
    path = _path(name)

    def paths(text: str) -> list[str]:
        found = path(text)
        return [found] if os.path.exists(found) else [path(word) for word in text.split()]

    return paths


def _path_option(parser: argparse.ArgumentParser, option: str, **how: str) -> None:
    parser.add_argument(option, type=_path(option.strip("-").upper()), **how)  # type: ignore[arg-type]


def _parser() -> _Parser:
    parser = _Parser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)

    run = _command(
        commands, "run", "run_grid", "train the missing runs of a study on this machine, then draw it"
    )
    _grid(run)
    run.add_argument("--jobs", default="", help="processes at once (default: one per core)")
    run.add_argument("--jobs-per-gpu", default="1", help="processes that share a GPU")
    run.add_argument("--hang-minutes", default="30", help="without a heartbeat, then a job is killed")
    run.add_argument("--job-memory-mb", default="0", help="address space of a job; 0: no limit")
    _path_option(run, "--checkpoints", help="folder for checkpoints (default: the run's folder)")

    slurm = _command(commands, "slurm", "submit", "submit the missing runs of a study to a Slurm cluster")
    _grid(slurm)
    slurm.set_defaults(device="")  # cuda where the profile has GPUs
    _path_option(slurm, "--profile", default="local", help="slurm/profiles/NAME.toml, or a path")
    slurm.add_argument("--jobs-per-task", default="", help="packs that one task runs one after the other")
    slurm.add_argument("--jobs-per-gpu", default="", help="packs that share a GPU, in place of the profile's")
    slurm.add_argument("--figures", default="", help="1: build the figures when the array has ended")

    for name, function, text in (
        ("status", "status", "how the runs of a study stand"),
        ("cancel", "cancel", "cancel a study's Slurm jobs"),
        ("figures", "figures", "tables, figures and report of a study, from its results alone"),
        ("docs", "docs", "bring the generated parts of README.md and docs/ up to date with the results"),
    ):
        command = _command(commands, name, function, text)
        if name != "docs":
            _path_option(command, "--study", help="a name, or a TOML file (default: every study)")
        if name == "figures":
            _choice(command)
        if name == "status":
            command.add_argument("--json", default="", help="1: the same for scripts")
            command.add_argument(
                "--exit-code", default="", help="1: 0 finished, 1 failed, 2 damaged, 3 not finished"
            )
            command.add_argument(
                "--watch", default="", help="seconds, at least 10: repeat until nothing runs or is queued"
            )
        _path_option(command, "--results", default="results")

    for name, text in (
        ("timing", "time every part of our algorithms on this machine; keep it idle"),
        ("perf", "time SAC and TD3 against Stable-Baselines3 and SBX; keep the machine idle"),
    ):
        command = _command(commands, name, name, text)
        command.add_argument("--execution", default="", help='"eager compile" (default), or one of them')
        command.add_argument("--quick", default="", help="1: a one-minute check, not evidence")
        _path_option(command, "--results", default="results")
        if name == "timing":
            command.add_argument(
                "--sizes", default="", help='"authors matched parts" (default), "packs", or some'
            )
            command.add_argument(
                "--device", default="", help="cpu (default), or cuda: packs of seeds on a GPU"
            )
            command.add_argument("--algos", default="", help='"qsm sac:critic=simba" (default: all)')
        else:
            command.add_argument("--grids", default="10 100", help="sizes of grids of trivial jobs to run")

    command = _command(
        commands, "experiments", "experiments", "run the missing parts of the experiments, then draw them"
    )
    command.add_argument("--jobs", default="", help="processes at once (default: one per core)")
    _path_option(command, "--results", default="results")
    command = _command(commands, "video", "video", "show a trained policy: MP4 and GIF in its run directory")
    command.add_argument("folder", type=_path("RUN"), nargs="?", help="the same as --run")
    _path_option(command, "--run", help="results/<study>/<env>/<label>/seed-<k>")

    command = _command(
        commands, "check", "check", "test an algorithm or a task against the rules of the interface"
    )
    command.add_argument(
        "specs", nargs="+", metavar="NAME", help='"my-algo", "sac:critic=simba", "my_package:MyEnv-v0"'
    )
    command.add_argument(
        "--compile", action="store_true", help="algorithms compiled and as a CUDA graph too: minutes"
    )
    _command(commands, "studies", "studies", "list the studies and algorithms")
    command = _command(commands, "import", "import_scores", "take scores of others, to be shown beside ours")
    command.add_argument("file", nargs="*", type=_path("FILE"), metavar="FILE", help="or a folder of them")
    command.add_argument(
        "--files",
        type=_paths("FILES"),
        default=[],
        help="the same: a path, or several with blanks between them",
    )
    command.add_argument("--source", default="", help="the name to show them under (default: the file's)")
    command.add_argument(
        "--columns", default="", help='where a column is another: "return=reward env_step=Step"'
    )
    command.add_argument(
        "--values", default="", help='what no column says: "env=cheetah-run algo=sac seed=0"'
    )
    command.add_argument(
        "--names", default="", help='what runs or paths are called: "{env}/{algo}_s{seed}.txt"'
    )
    command.add_argument("--metric", default="", help="which of several logged metrics is the return")
    command.add_argument(
        "--rename", default="", help='tasks and algorithms: "cheetah=cheetah-run SAC_v2=sac"'
    )
    command.add_argument("--envs", default="", help="only these tasks (our names)")
    command.add_argument("--action-repeat", default="1", help="environment steps that one of their steps is")
    command.add_argument("--every", default="", help="environment steps between two evaluations of an array")
    _path_option(command, "--results", default="results")
    parser.commands = commands.choices
    return parser


def _command(
    commands: argparse._SubParsersAction, name: str, function: str, text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, allow_abbrev=False
    )
    takes = parser._option_string_actions  # filled in later
    parser.set_defaults(command=lambda options: _load(function)(options), name=name, takes=takes)
    return parser


def _load(function: str) -> Command:
    """Commands are imported when called for: `--help` needs neither torch nor a simulator."""
    from bench import commands

    return getattr(commands, function)


def _choice(parser: argparse.ArgumentParser) -> None:
    """What of one or several studies is shown, and how."""
    for option, text in (
        ("algos", 'which algorithms, in this order: "qsm sac:actor_q=min", "qsm*"'),
        ("envs", "which tasks, in this order"),
        ("steps", "scores as of this environment step"),
        ("subject", "the algorithm that the others are compared with"),
        ("baseline", "what algorithms are compared with"),
        ("normalise", 'returns that become 0 and 1: "random sac", "0 3000"'),
        ("metric", 'what was logged in training: "q_gradient at_bound"'),
        ("sensitivity", 'settings whose variants are drawn against their value: "M_q", "qsm:M_q=5,20,120"'),
        ("others", 'published curves beside ours: "dime sac@simba"'),
        ("width", "of figures: column or page"),
    ):
        parser.add_argument(f"--{option}", default="", help=text)


def _grid(parser: argparse.ArgumentParser) -> None:
    """The options that choose the runs and how they are carried out."""
    _path_option(parser, "--study", default="quick", help="a name (see `studies`) or a TOML file")
    parser.add_argument("--algos", default="", help='"qsm dql", with overrides "qsm:M_q=120,T=20"')
    parser.add_argument("--envs", default="", help='"cheetah-run walker-walk Pendulum-v1"')
    parser.add_argument("--seeds", default="", help="how many (5), or which (0,3,7; seed 7 alone: 7,)")
    parser.add_argument("--steps", default="", help="environment steps of a run")
    parser.add_argument(
        "--set", default="", help='other settings of a run: "eval_every=5000 eval_episodes=3"'
    )
    _path_option(parser, "--results", default="results", help="the root of all results")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--execution",
        default="auto",
        help="eager, compile, graph, or auto: what finishes first, compile time included",
    )
    parser.add_argument(
        "--pack", default="auto", help="seeds that train in lock-step; auto: all on a GPU, else 1"
    )
    parser.add_argument("--retry", default="", help="1: run failed jobs again")
    parser.add_argument(
        "--dry", default="", help="1: print what would be run: how many runs, how long, how much disk"
    )


if __name__ == "__main__":
    sys.exit(script())
