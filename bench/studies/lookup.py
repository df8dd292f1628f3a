"""The names in a choice (bench/studies/report.py), looked up among the algorithms and tasks that there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

import msgspec

from bench.errors import UserError, suggest
from bench.studies.overrides import canonical
from bench.studies.report import EVERY_TASK, Bound, Choice

Word = TypeVar("Word")
Found = TypeVar("Found")

KEYS = frozenset(Choice.__struct_fields__)


def look_up(
    words: Iterable[Word], find: Callable[[Word], Found], required: bool
) -> tuple[list[Found], list[str]]:
    """What `find` makes of each word; and a line for each word of which it raised UserError.

    required: the UserError is raised instead.
    """
    found, left_out = [], []
    for word in words:
        try:
            found.append(find(word))
        except UserError as error:
            if required:
                raise
            left_out.append(str(error))
    return found, left_out


def resolve(
    choice: Choice, labels: Sequence[str], envs: Sequence[str], where: str, required: Collection[str] = KEYS
) -> tuple[Choice, list[str]]:
    """The choice with every algorithm as one of `labels`; and a line for each name that is left out.

    where: what has these labels and tasks. required: the keys of which nothing may be left out.

    Raises:
        UserError: a name of a required key that is not there; a colour, bounds or comparisons that mean nothing.
    """
    left_out: list[str] = []

    def kept(key: str, words: Iterable[Word], find: Callable[[Word], Found]) -> list[Found]:
        found, lines = look_up(words, find, key in required)
        left_out.extend(lines)
        return found

    def one(word: str, key: str) -> str:
        found = matching(word, labels, f"{key}: ")
        if len(found) > 1:
            raise UserError(f"{key}: {word!r} is {' and '.join(found)}; expected one")
        return found[0]

    def task(env: str) -> str:
        if env not in envs:
            raise UserError(f"no task {env!r} in {where}{suggest(env, envs)}")
        return env

    algos = kept("algos", choice.algos, lambda word: matching(word, labels))
    shown = list(dict.fromkeys(label for found in algos for label in found)) or labels

    def compared(key: str, words: Iterable[str]) -> list[str]:
        def find(word: str) -> str:
            label = one(word, key)
            if label not in shown:
                raise UserError(f"{key}: {label!r} is not among the algorithms shown: {', '.join(shown)}")
            return label

        return kept(key, words, find)

    def styled(key: str, values: Mapping[str, str]) -> dict[str, str]:
        # an algorithm that is not there is not shown: leaving out its name or colour needs no line
        pairs, _ = look_up(values.items(), lambda item: (one(item[0], key), item[1]), key in required)
        return {label: value for label, value in pairs if label in shown}

    def bounds(item: tuple[str, tuple[Bound, Bound]]) -> tuple[str, tuple[Bound, Bound]]:
        env, pair = item
        if env != EVERY_TASK and env not in envs:
            raise UserError(f"normalise: no task {env!r} here{suggest(env, [*envs, EVERY_TASK])}")
        low, high = (one(bound, "normalise") if isinstance(bound, str) else bound for bound in pair)
        return env, (low, high)

    _check_values(choice)
    subject = compared("subject", [choice.subject] if choice.subject else [])
    baselines = compared("baselines", choice.baselines)
    if set(subject) & set(baselines):
        raise UserError(f"subject: {subject[0]!r} is a baseline too; expected another algorithm")
    resolved = msgspec.structs.replace(
        choice,
        algos=tuple(shown) if algos else (),
        envs=tuple(kept("envs", dict.fromkeys(choice.envs), task)),
        subject="".join(subject),
        baselines=tuple(baselines),
        names=styled("names", choice.names),
        colors=styled("colors", choice.colors),
        normalise=dict(kept("normalise", choice.normalise.items(), bounds)),
    )
    return resolved, left_out


def _check_values(choice: Choice) -> None:
    """Raises UserError for a colour or bounds that mean nothing, whatever was run."""
    for label, color in choice.colors.items():
        from matplotlib.colors import is_color_like  # half a second, for those who choose colours alone

        if not is_color_like(color):
            raise UserError(
                f'colors: {label}: {color!r} is not a colour; expected "#0173b2", or a name such as "navy"'
            )
    for env, (low, high) in choice.normalise.items():
        if isinstance(low, float) and isinstance(high, float) and not low < high:
            raise UserError(f"normalise: {env}: the lowest, {low:g}, is not below the highest, {high:g}")


def matching(word: str, labels: Sequence[str], where: str = "") -> list[str]:
    """The labels that a user means by `word`: one as it is, one as the command line has it ("qsm:M_q=120,T=20"), one of
    several studies ("sac" for "sac@gate-sac" and "sac@early-100k"), or all that fit a pattern ("qsm*").

    Raises UserError, which begins with `where`, if there is none.
    """
    label = as_label(word)
    found = [x for x in labels if x == label] or [x for x in labels if x.partition("@")[0] == label]
    if not found and any(c in word for c in "*?["):
        found = [x for x in labels if fnmatchcase(x, word)]
    if not found:
        raise UserError(f"{where}no algorithm {word!r} here{suggest(label, labels)}")
    return found


def as_label(word: str) -> str:
    """ "qsm:T=20,M_q=1.2e2" -> "qsm-M_q=120-T=20"; any other word as it is."""
    algo, colon, rest = word.partition(":")
    if not colon:
        return word
    rest, at, study = rest.partition("@")
    changes = dict(pair.partition("=")[::2] for pair in rest.split(",") if pair)
    return "-".join([algo, *(f"{key}={_canonical(changes[key])}" for key in sorted(changes))]) + at + study


def _canonical(text: str) -> str:
    try:
        return canonical(float(text))
    except ValueError:
        return text.lower() if text.lower() in ("true", "false") else text
