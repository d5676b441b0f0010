"""The fields of a dataclass or pydantic model, and instances of it from values by dotted names."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tunesvc.errors import SpecError
from tunesvc.signatures import as_annotated

MISSING = inspect.Parameter.empty
"""The default of a field that has none: a class, so that it is the same on workers."""


@dataclass(frozen=True, slots=True)
class ConfigField:
    """A field: its type, what annotates it, and its default."""

    name: str
    hint: Any
    """Its type, without what `Annotated` adds."""
    metadata: tuple[Any, ...] = ()
    """Ranges and constraints that annotate it."""
    default: Any = MISSING
    """A config or a plain value; None stands for any other, which the class itself knows."""
    config: ConfigClass | None = None
    """The class of a nested config."""

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """The values of a `Literal`, an `Enum` or `bool`, as parameters have them."""
        values: list[Any] = []
        for hint in _alternatives(self.hint):
            if get_origin(hint) is Literal:
                values += [_plain(value) for value in get_args(hint)]
            elif isinstance(hint, type) and issubclass(hint, Enum):
                values += [_plain(member) for member in hint]
            elif hint in (bool, type(None)):
                values += [None] if hint is type(None) else [False, True]
            else:
                return None
        return tuple(values)

    def restore(self, value: Any) -> Any:
        """Return a parameter's value as the field has it: a member of its `Enum`, a tuple."""
        for hint in _alternatives(self.hint):
            options = get_args(hint) if get_origin(hint) is Literal else ()
            if isinstance(hint, type) and issubclass(hint, Enum):
                options = tuple(hint)
            for option in options:
                if isinstance(option, Enum) and _plain(option) == value:
                    return option
        return as_annotated(self.metadata, value)


@dataclass(frozen=True, slots=True)
class ConfigClass:
    """A dataclass or pydantic model."""

    kind: type
    fields: tuple[ConfigField, ...]

    @classmethod
    def of(cls, kind: type, base: Any = None) -> ConfigClass:
        """Read a class; `base` is the instance that another class has as default.

        Raises:
            SpecError: its annotations cannot be read.
        """
        try:
            hints = get_type_hints(kind, include_extras=True)
        except (NameError, TypeError, SyntaxError) as error:
            problem = f"{kind.__name__}: its annotations cannot be read ({error})"
            raise SpecError(f"{problem}: import what they name at module level") from None
        return cls(kind, tuple(_fields(kind, hints, base)))

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, ConfigField]]:
        """Yield dotted names and fields that are no configs themselves."""
        for field in self.fields:
            if field.config is None:
                yield prefix + field.name, field
            else:
                yield from field.config.leaves(f"{prefix}{field.name}.")

    def make(self, values: Mapping[str, Any], prefix: str = "", base: Any = None) -> Any:
        """Return an instance: with the values by dotted names, otherwise as `base` or the defaults.

        Raises:
            TypeError, ValueError: the class refuses the values.
        """
        given: dict[str, Any] = {}
        for field in self.fields:
            name = prefix + field.name
            if base is not None:
                given[field.name] = getattr(base, field.name)
            if name in values:
                given[field.name] = field.restore(values[name])
            elif field.config is not None and (
                field.default is MISSING or any(key.startswith(f"{name}.") for key in values)
            ):
                inner = given.get(field.name, None if field.default is MISSING else field.default)
                given[field.name] = field.config.make(values, f"{name}.", inner)
        validate = getattr(self.kind, "model_validate", None)
        # By the names of fields, whatever their aliases are.
        return self.kind(**given) if validate is None else validate(given, by_name=True)


def is_config_class(kind: object) -> bool:
    """Return True for a dataclass or pydantic model."""
    if not isinstance(kind, type) or kind.__module__.partition(".")[0] == "tunesvc":
        return False
    return dataclasses.is_dataclass(kind) or hasattr(kind, "__pydantic_fields__")


def _fields(kind: type, hints: Mapping[str, Any], base: Any) -> Iterator[ConfigField]:
    described = getattr(kind, "__pydantic_fields__", None)
    for name, default, factory, metadata in (
        _of_dataclass(kind) if described is None else _of_pydantic(described)
    ):
        hint = hints[name]
        if get_origin(hint) is Annotated:
            hint, *added = get_args(hint)
            metadata = metadata or tuple(added)
        is_made = factory is not None
        if base is not None and not (is_made and not is_config_class(hint)):
            default = getattr(base, name)
        elif is_made:
            default = _made(factory) if is_config_class(hint) else None
        config = None
        if is_config_class(hint) and (default is MISSING or isinstance(default, hint)):
            config = ConfigClass.of(hint, None if default is MISSING else default)
        elif default is not MISSING and not isinstance(default, (bool, int, float, str)):
            default = None  # it need not fit into a pickle
        yield ConfigField(name, hint, metadata, default, config)


_Described = tuple[str, Any, Any, tuple[Any, ...]]
"""Name, default, maker of a default, and constraints of a field."""


def _of_dataclass(kind: Any) -> Iterator[_Described]:
    for one in dataclasses.fields(kind):
        if one.init:
            default = MISSING if one.default is dataclasses.MISSING else one.default
            factory = one.default_factory
            yield one.name, default, None if factory is dataclasses.MISSING else factory, ()


def _of_pydantic(described: Mapping[str, Any]) -> Iterator[_Described]:
    for name, info in described.items():
        default = MISSING if info.is_required() else info.default
        yield name, default, info.default_factory, tuple(info.metadata)


def _made(factory: Any) -> Any:
    """Return what a factory makes; None if it makes it of other fields."""
    try:
        return factory()
    except (LookupError, TypeError, ValueError):
        return None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, `X | None` among them; else the type itself."""
    is_union = get_origin(hint) is Union or type(hint).__name__ == "UnionType"
    return get_args(hint) if is_union else (hint,)


def _plain(value: Any) -> Any:
    """Return a value as a parameter has it: of a member of an `Enum` its value, else its name."""
    if not isinstance(value, Enum):
        return value
    members = type(value)
    is_plain = all(isinstance(one.value, (bool, int, float, str)) for one in members)
    return value.value if is_plain else value.name
