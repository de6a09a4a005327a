# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What AWX 24.6.1 takes as a credential type and as the inputs of a credential; see ``awx_stand_in``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .awx_surveys import Json, RefusedError

BLOCKED = {
    "PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "JOB_ID",
    "INVENTORY_ID",
    "AWX_HOST",
    "PROJECT_REVISION",
    "MAX_EVENT_RES",
}
FIELD_KEYS = {
    "type": "string",
    "secret": "boolean",
    "multiline": "boolean",
    "ask_at_runtime": "boolean",
    "id": "string",
    "label": "string",
    "help_text": "string",
    "format": "string",
    "choices": "array",
    "default": "any",
}
VARIABLE = re.compile(r"^[a-zA-Z_]+[a-zA-Z0-9_]*$")
FILE = re.compile(r"^template(\.[a-zA-Z_]+[a-zA-Z0-9_]*)?$")
ENCRYPTED = "$encrypted$"
UNNAMED = "Must define unnamed file injector in order to reference `tower.filename`."


def check_inputs_schema(inputs: Json) -> None:
    """Refuse the fields of a type that AWX refuses."""
    seen: set[str] = set()
    for number, field in enumerate(inputs.get("fields", [])):
        unknown = sorted(set(field) - set(FIELD_KEYS))
        if unknown:
            where = f"Schema validation error in relative path ['fields', {number}]"
            raise RefusedError(
                {"inputs": [f"{where} (Additional properties are not allowed ('{unknown[0]}' was unexpected))"]}
            )
        kind, name = field.get("type", "string"), field.get("id")
        problem = ""
        if "label" not in field:
            problem = "'label' is a required property"
        elif kind not in ("string", "boolean"):
            problem = f"'{kind}' is not one of ['string', 'boolean']"
        elif not VARIABLE.match(str(name)):
            problem = f"{name} is an invalid variable name"
        elif name == "tower":
            problem = '"tower" is a reserved field name'
        elif name in seen:
            problem = f"field IDs must be unique ({name})"
        elif kind == "boolean" and field.get("secret"):
            problem = f"secret not allowed for boolean type ({name})"
        if problem:
            raise RefusedError({"inputs": [problem]})
        seen.add(str(name))


def complete_inputs(inputs: Json) -> Json:
    """Return the fields as they are stored: each with its type."""
    fields = [{**field, "type": field.get("type", "string")} for field in inputs.get("fields", [])]
    return {**inputs, "fields": fields} if fields else inputs


class _Names:
    """``tower.filename`` of a template: one file, or several by their names."""

    def __init__(self, files: set[str]) -> None:
        self._files = files

    @property
    def filename(self) -> Any:
        """A path; an UndefinedError where the type has no such file."""
        named = {name.partition(".")[2] for name in self._files if "." in name}
        if named:
            return _NamedFiles(named)
        if not self._files:
            raise UndefinedError(UNNAMED)
        return "EXAMPLE_FILENAME"


class _NamedFiles:
    def __init__(self, names: set[str]) -> None:
        for name in names:
            setattr(self, name, "EXAMPLE_FILENAME")

    def __str__(self) -> str:
        raise UndefinedError(UNNAMED)


def check_injectors(injectors: Json, fields: list[Json]) -> None:
    """Refuse the injectors of a type that AWX refuses."""
    problem = next(_find_injector_problems(injectors, fields), "")
    if problem:
        raise RefusedError({"injectors": [problem]})


def _find_injector_problems(injectors: Json, fields: list[Json]) -> Iterator[str]:
    for key in injectors:
        if key not in ("file", "env", "extra_vars"):
            yield (
                "Schema validation error in relative path []"
                f" (Additional properties are not allowed ('{key}' was unexpected))"
            )
    files, env = injectors.get("file", {}), injectors.get("env", {})
    for name in files:
        if not FILE.match(name):
            where = "Schema validation error in relative path ['file']"
            pattern = str(FILE.pattern).replace("\\", "\\\\")
            yield f"{where} ('{name}' does not match any of the regexes: '{pattern}')"
    if "template" in files and len(files) > 1:
        yield "Must use multi-file syntax when injecting multiple files"
    for name, value in env.items():
        if not VARIABLE.match(name):
            where = "Schema validation error in relative path ['env']"
            yield f"{where} ('{name}' does not match any of the regexes: '{VARIABLE.pattern}')"
        elif not isinstance(value, str):
            yield f"{type(value).__name__} provided in relative path ['env', '{name}'], expected string"
        elif not value.isascii():
            yield f"'{value}' does not match '^[\\x00-\\x7f]*$'"
        elif name.startswith("ANSIBLE_"):
            affected = f"Environment variable {name} may affect Ansible configuration"
            yield f"{affected} so its use is not allowed in credentials."
        elif name in BLOCKED:
            yield f"Environment variable {name} is not allowed to be used in credentials."
    yield from _find_value_problems(injectors.get("extra_vars", {}))
    yield from _find_template_problems(injectors, fields)


def _find_value_problems(values: Json) -> Iterator[str]:
    for value in values.values():
        if isinstance(value, dict):
            yield from _find_value_problems(value)
        elif not isinstance(value, (str, list)):
            yield f"{value} is not valid under any of the given schemas"


def _find_template_problems(injectors: Json, fields: list[Json]) -> Iterator[str]:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    known: Json = {field["id"]: True if field.get("type") == "boolean" else "EXAMPLE" for field in fields}
    known["tower"] = _Names(set(injectors.get("file", {})))
    for kind, templates in injectors.items():
        for name, template in templates.items():
            if isinstance(template, str):
                try:
                    environment.from_string(template).render(**known)
                except UndefinedError as error:
                    yield f"{name} uses an undefined field ({error})"
                except TemplateSyntaxError as error:
                    yield f"Syntax error rendering template for {name} inside of {kind} ({error.message})"


def check_inputs(inputs: Json, fields: list[Json]) -> None:
    """Refuse the inputs of a credential that AWX refuses. Inputs that are missing are accepted."""
    known: Json = {field["id"]: field for field in fields}
    for name in inputs:
        if name not in known:
            raise RefusedError({"inputs": [f"Additional properties are not allowed ('{name}' was unexpected)"]})
    for name, value in inputs.items():
        field = known[name]
        if field.get("type") == "boolean" and not isinstance(value, bool):
            raise RefusedError({"inputs": {name: [f"'{value}' is not of type 'boolean'"]}})
        if field.get("type", "string") == "string" and not isinstance(value, str):
            raise RefusedError({"inputs": {name: [f"{value} is not of type 'string'"]}})
        if field.get("choices") and value not in field["choices"]:
            raise RefusedError({"inputs": {name: [f"'{value}' is not one of {field['choices']}"]}})
        if field.get("format") == "ssh_private_key" and "PRIVATE KEY" not in value and value != ENCRYPTED:
            raise RefusedError({"inputs": {name: [f"Invalid certificate or key: {value}..."]}})


def keep_inputs(kind: Json, there: Json | None, inputs: Json, *, is_given: bool) -> tuple[Json, Json]:
    """Return what a credential of a type holds, and what of it is shown.

    By the source, not recorded: a secret that is sent as it is shown stays as it was (``Credential.save``), and an id
    of a Vault is compared with what is stored (``CredentialSerializer.validate_inputs``), which may be no id.
    """
    fields = kind["inputs"].get("fields", [])
    check_inputs(inputs, fields)
    if there is not None and is_given and kind["kind"] == "vault" and "vault_id" in inputs:
        if "vault_id" not in there:
            raise RefusedError({"error": "A server error has occurred."}, 500)
        if inputs["vault_id"] != there["vault_id"]:
            raise RefusedError({"inputs": ["Vault IDs cannot be changed once they have been created."]})
    hidden = {field["id"] for field in fields if field.get("secret")}
    known = there or {}
    held = {name: known.get(name, value) if value == ENCRYPTED else value for name, value in inputs.items()}
    return held, {name: ENCRYPTED if name in hidden else value for name, value in inputs.items()}
