"""What every configuration file shares: strict models, YAML without doubles, and faults in one line.

Everything in this wing is light (pydantic and the standard library), because the Snakefile imports it while the DAG is
parsed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from revela.errors import RevelaError, in_one_line

NAME = r"^[a-z0-9]([a-z0-9._+-]*[a-z0-9])?$"
FOLDER = r"^[\w./][\w./-]*$"
STUDY_MARK = "# Written by `revela train`"  # how a configuration that it wrote begins
# Names become folders and parts of commands, so they hold nothing that could leave a folder or mean something to a shell.
Name = Annotated[str, StringConstraints(pattern=NAME)]

Settings = TypeVar("Settings", bound=BaseModel)


class ConfigError(RevelaError):
    """A configuration that cannot be used. The message is one line: file, key, value and what would be valid."""


class Strict(BaseModel):
    """A model on which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def added(default: Any, description: str) -> Any:
    """A field that a model got after results were made: at its default no specification has it, so that they stay valid."""
    return Field(default, description=description, exclude_if=lambda value: value == default)


class _Yaml(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; by itself the last one would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError with one line."""
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Yaml)
    except OSError as error:
        raise ConfigError(in_one_line(error)) from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of settings is expected")
    return values


def validate(model: type[Settings], values: dict[str, Any], where: str) -> Settings:
    """The model of some values. Raises ConfigError, which begins with `where`, on the first fault."""
    try:
        return model.model_validate(values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ValidationError as error:
        raise ConfigError(first_fault(error, model, where)) from None


def first_fault(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """One line for the first fault: key, value, and what would be valid."""
    fault = error.errors()[0]
    keys = [str(key) if str(key).isprintable() else repr(key) for key in fault["loc"]]
    place = ".".join(keys) or model.__name__
    if fault["type"] == "extra_forbidden":
        valid = list(_fields_at(model, keys[:-1]))
        inner = [f"{name}.{keys[-1]}" for name in valid if keys[-1] in _fields_at(model, [*keys[:-1], name])]
        hint = difflib.get_close_matches(keys[-1], valid, n=1) or inner
        meant = f"; did you mean {hint[0]!r}?" if hint else "."
        return f"{where}: {place}: unknown key{meant} Valid keys: {', '.join(valid)}"
    if fault["type"] == "missing":
        return f"{where}: {place}: required, but not given"
    if fault["type"] == "string_pattern_mismatch" and NAME in fault["msg"]:
        place = place.removesuffix(".[key]")
        fault["msg"] = (
            "a name is of lower-case letters, digits, '.', '_' and '-', and neither begins nor ends with a sign"
        )
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {place}: {message[0].lower() + message[1:]}, got {fault['input']!r:.80}"


def _fields_at(model: type[BaseModel], keys: list[str]) -> list[str]:
    """Field names of the model that a path of keys leads to."""
    for key in keys:
        field = model.model_fields.get(key)
        if field is None:  # a key of a dict or a place in a list: the model stays the element's
            continue
        inner = [field.annotation]
        while inner:
            annotation = inner.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
                break
            inner.extend(getattr(annotation, "__args__", ()))
    return list(model.model_fields)


def check_known(where: str, name: str, valid: Iterable[str]) -> None:
    """ConfigError, with what is valid and what may be meant, unless the name is one of the valid ones."""
    valid = list(valid)
    if name not in valid:
        hint = difflib.get_close_matches(name, valid, n=1)
        meant = f"; did you mean {hint[0]!r}?" if hint else "."
        raise ConfigError(f"{where}: unknown {name!r}{meant} Valid: {', '.join(valid)}")
