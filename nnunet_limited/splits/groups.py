"""Groups of cases, which are patients as a rule: all cases of one stay in the same part of a fold."""

import re
from collections.abc import Collection, Iterable, Sequence

from nnunet_limited.errors import LimitedError

Groups = dict[str, list[str]]


def compiled(pattern: str, option: str) -> re.Pattern[str]:
    """Return the regular expression of an ``option``; raise LimitedError if it is not one."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise LimitedError(f"{option} {pattern!r} is not a regular expression ({error}); correct it") from error


def grouped(cases: Sequence[str], pattern: str | None) -> Groups:
    """Group case names by the first group of the regular expression (or its whole match), one each without it."""
    if pattern is None:
        return {case: [case] for case in sorted(cases)}
    expression = compiled(pattern, "--group-by")
    groups: Groups = {}
    for case in sorted(cases):
        group = group_of(case, expression)
        if group is None:
            raise LimitedError(f"--group-by {pattern!r} does not match case {case!r}; widen the expression")
        groups.setdefault(group, []).append(case)
    if len(groups) == 1 and len(cases) > 1:
        raise LimitedError(
            f"--group-by {pattern!r} matches all {len(cases)} cases as one group, {next(iter(groups))!r}; write an "
            "expression that distinguishes patients, e.g. 'patient[0-9]+', or remove it if all are of one patient"
        )
    return groups


def check_pattern(cases: Sequence[str], pattern: str | None) -> None:
    """Refuse a regular expression with several groups whose first one finds other patients than all of them do."""
    expression = compiled(pattern or "", "--group-by")
    found = [match for case in cases if (match := expression.search(case))]
    if expression.groups > 1 and len({match[1] for match in found}) < len({match.groups() for match in found}):
        raise LimitedError(
            f"--group-by {pattern!r} has {expression.groups} pairs of parentheses, of which only the first would find "
            "patients; put one pair around all that distinguishes patients, and write (?:…) for others"
        )


def group_of(case: str, expression: re.Pattern[str]) -> str | None:
    """Return what the first group of the expression, or its whole match, is in a case's name."""
    match = expression.search(case)
    return match and match.group(1 if expression.groups else 0)


def within(groups: Groups, cases: Collection[str]) -> Groups:
    """Return the part of ``groups`` that consists of ``cases``; groups without any of them are left out."""
    parts = {name: [case for case in some if case in cases] for name, some in groups.items()}
    return {name: part for name, part in parts.items() if part}


def refuse_torn(groups: Groups, listed: Collection[str], option: str) -> None:
    """Raise LimitedError if the cases that an ``option`` lists are only a part of some group."""
    for name, cases in groups.items():
        missing = sorted(set(cases) - set(listed))
        if missing and len(missing) < len(cases):
            raise LimitedError(f"{option} separates cases of group {name!r}; add {missing[0]!r}")


def members(names: Iterable[str], groups: Groups) -> tuple[str, ...]:
    """Return the cases of some groups, sorted."""
    return tuple(sorted(case for name in names for case in groups[name]))
