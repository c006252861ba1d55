"""Checks what a Python function is called with by its annotations: a wrong type is an error in words, at once."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from amlctl.errors import UsageError

Given = ParamSpec("Given")
Result = TypeVar("Result")


class _Kind(NamedTuple):
    """What is taken, numbers of other libraries as well, how a message calls it, and what is not taken for it."""

    taken: type
    words: str
    but_not: tuple[type, ...] = ()


_KINDS: Mapping[object, _Kind] = {
    str: _Kind(str, "a string"),
    bool: _Kind(bool, "True or False"),
    int: _Kind(numbers.Integral, "a whole number", (bool,)),
    float: _Kind(numbers.Real, "a number", (bool,)),
    Mapping: _Kind(Mapping, "a dict"),
    Sequence: _Kind(Iterable, "a list", (str, bytes, Mapping)),  # a text would be taken for its letters
    Callable: _Kind(Callable, "a function"),  # type: ignore[arg-type]  # as isinstance takes it
    NoneType: _Kind(NoneType, "None"),
}
"""By annotation."""


def with_checked_types(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """`function`, which raises UsageError for an argument that its annotation does not allow."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        wanted = get_type_hints(function)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if problem := _problem(name, value, wanted[name]):
                raise UsageError(problem)
        return function(*args, **kwargs)

    return checked


def _problem(name: str, value: object, wanted: Any) -> str:
    """Why `value` is not what is wanted; empty if it is."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return ""
    if origin in (Union, UnionType):
        problems = [_problem(name, value, part) for part in parts]
        return "" if "" in problems else problems[0]
    if origin is Literal:
        return "" if value in parts else f"Invalid {name} {value!r}: must be {' or '.join(map(repr, parts))}"
    kind = _KINDS.get(origin or wanted) or _Kind(origin or wanted, f"a {wanted}")
    if not isinstance(value, kind.taken) or isinstance(value, kind.but_not):
        return f"{name} must be {kind.words}, not a value of type {type(value).__name__}"
    inner: Iterable[str] = ()
    if isinstance(value, Mapping):
        keys = (_problem(f"a key of {name}", key, parts[0]) for key in value)
        inner = (*keys, *(_problem(f"{name}[{key!r}]", one, parts[1]) for key, one in value.items()))
    elif isinstance(value, Sequence) and parts:  # an iterator must not be used up here
        inner = (_problem(f"{name}[{at}]", one, parts[0]) for at, one in enumerate(value))
    return next(filter(None, inner), "")
