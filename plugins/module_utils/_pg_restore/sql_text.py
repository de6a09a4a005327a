# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the SQL that pg_restore writes as the server's lexer does, so that no literal is taken for more; pure.

Private to lowtide.ops: do not import from other collections.

Literals, quoted names and bodies of functions are somebody else's text: they may hold whole lines that look like headers
and statements. What is outside of them was written by pg_restore. A statement on the database is executed only if it is
one of the few that pg_dump writes of a database, and names that database.
"""

from __future__ import annotations

import re
import typing as t

from .._common.errors import Refusal

IDENTIFIER = r'"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*'
_LETTER, _DIGIT = r"A-Za-z_\x80-\U0010ffff", r"0-9"
_HEADER = r"^--\n-- (?:Data for )?Name: (?P<name>[^\n]*?); Type: (?P<kind>[A-Z ]+); Schema: (?P<schema>[^\n]*?); Owner: (?P<owner>[^\n]*)\n--\n"
_ESCAPED, _PLAIN = r"'(?:[^'\\]|\\.|'')*'", r"'[^']*(?:''[^']*)*'"
_LEXEMES = rf"""
    (?P<comment>--[^\n]*|/\*(?:(?!/\*).)*?\*/)
  | (?P<escaped>[eE]{_ESCAPED})
  | (?P<literal>{{literal}})
  | (?P<dollar>\$(?P<tag>(?:[{_LETTER}][{_LETTER}{_DIGIT}]*)?)\$.*?\$(?P=tag)\$)
  | (?P<quoted>"(?:[^"]|"")+")
  | (?P<word>[{_LETTER}][{_LETTER}{_DIGIT}$]*)
  | (?P<command>^\\[^\n]*)
  | (?P<number>\d+)
  | (?P<open>['"\\]|/\*|\$(?=[{_LETTER}$]))
  | (?P<sign>[^\s])
"""


def _compile(literal: str, header: str = "") -> re.Pattern[str]:
    lexemes = _LEXEMES.replace("{literal}", literal)
    return re.compile(f"{header}{lexemes}", re.VERBOSE | re.DOTALL | re.MULTILINE)


# A blank in a verbose pattern means nothing, so those of the header are escaped.
_WITH_HEADERS = rf"(?P<header>{_HEADER.replace(' ', chr(92) + ' ')}) |"
_STANDARD = _compile(_PLAIN)
_TEXTS = {True: _compile(_PLAIN, _WITH_HEADERS), False: _compile(_ESCAPED, _WITH_HEADERS)}
_CONFORMING = re.compile(r"^SET standard_conforming_strings = (on|off);$", re.MULTILINE)
_LITERAL = rf"(?:[eE]{_ESCAPED}|{_PLAIN})"
_LIMIT = re.compile(r" (?:CONNECTION LIMIT = -?\d+|(?:IS_TEMPLATE|ALLOW_CONNECTIONS) = (?:true|false));\Z")
_FORMS = tuple(
    re.compile(form.replace("{name}", f"(?P<name>{IDENTIFIER})").replace("{role}", f"(?:{IDENTIFIER})"), re.DOTALL)
    for form in (
        r"CREATE DATABASE {name}(?: WITH)? .*;",
        r"ALTER DATABASE {name} OWNER TO {role};",
        r"(?:GRANT|REVOKE)(?: GRANT OPTION FOR)? [A-Z, ]+? ON DATABASE {name} (?:TO|FROM) (?:PUBLIC|{role})(?: WITH GRANT OPTION)?;",
        rf"COMMENT ON DATABASE {{name}} IS {_LITERAL};",
        rf"SECURITY LABEL FOR {{role}} ON DATABASE {{name}} IS {_LITERAL};",
        r"ALTER DATABASE {name} (?:SET .*|CONNECTION LIMIT = -?\d+|(?:IS_TEMPLATE|ALLOW_CONNECTIONS) = (?:true|false)|TABLESPACE {role});",
        r"ALTER ROLE {role} IN DATABASE {name} SET .*;",
        # The grantor of a privilege that is not the owner's.
        r"SET SESSION AUTHORIZATION {role};",
        r"RESET SESSION AUTHORIZATION;",
    )
)


class Header(t.NamedTuple):
    """The comment that pg_restore writes before each object, and where in the text it is."""

    kind: str
    schema: str
    name: str
    start: int
    end: int
    fixed: int = 0
    """Where the last literal with line breaks ends that follows it: nothing before that is cut off as a setting."""
    owner: str = ""


def find_headers(text: str) -> list[Header]:
    """Return the headers of the objects in the text of a dump; what looks like one inside of a literal is none."""
    match = _CONFORMING.search(text)
    headers: list[Header] = []
    for lexeme in _TEXTS[match is None or match[1] == "on"].finditer(text):
        if lexeme["open"] is not None:
            raise refuse(text[lexeme.start() :], "a literal or a name in it has no end")
        if lexeme["header"] is not None:
            kind = lexeme["kind"]
            # A name may look like the rest of a header. Then it is not known what this is, and it is none of the database.
            if "; Type: " in lexeme["owner"] or "; Type: " in lexeme["schema"]:
                kind = f"AMBIGUOUS {kind}"
            headers.append(Header(kind, lexeme["schema"], lexeme["name"], *lexeme.span(), owner=lexeme["owner"]))
        elif headers and "\n" in lexeme[0]:
            headers[-1] = headers[-1]._replace(fixed=lexeme.end())
    return headers


def split_statements(text: str) -> list[str]:
    """Return the statements in a text as the server divides them; literals may have line breaks and semicolons.

    Comments and commands of psql between them are left out.
    """
    statements, start = [], 0
    for lexeme in _STANDARD.finditer(text):
        if lexeme["open"] is not None:
            raise refuse(text[start:], "a literal or a name in it has no end")
        if (lexeme["comment"] or lexeme["command"]) and not text[start : lexeme.start()].strip():
            start = lexeme.end()
        elif lexeme["sign"] == ";":
            statements.append(text[start : lexeme.end()].strip())
            start = lexeme.end()
    if text[start:].strip():
        raise refuse(text[start:], "it has no end")
    return statements


def rename_database(statement: str, name: str, quoted: str) -> str:
    """Return one statement of a dump on the database ``name`` for the one named ``quoted``; a Refusal of any other statement.

    ``name`` is as the dump writes it, in quotes where they are needed.
    """
    if split_statements(statement) != [statement]:
        raise refuse(statement, "it is not one statement")
    for form in _FORMS:
        match = form.fullmatch(statement)
        if match is None:
            continue
        if "name" not in form.groupindex:
            return statement
        if match["name"] == name:
            return statement[: match.start("name")] + quoted + statement[match.end("name") :]
    raise refuse(statement, f"it is none of the statements that pg_dump writes of the database {name}")


def read_created(statement: str) -> str | None:
    """Return the name in ``CREATE DATABASE``, as it is written; None of another statement."""
    match = _FORMS[0].fullmatch(statement)
    return None if match is None else match["name"]


def blank_literals(text: str) -> str:
    """Return a text without what is in its literals and comments, bodies of functions included: somebody else's words."""
    return _STANDARD.sub(_blank, text)


def _blank(lexeme: re.Match[str]) -> str:
    if lexeme["comment"]:
        return ""
    return "''" if lexeme["escaped"] or lexeme["literal"] or lexeme["dollar"] else lexeme[0]


def is_limit(statement: str) -> bool:
    """Return whether a statement on a database says who may come in, or makes it a template."""
    return _LIMIT.search(statement) is not None


def read_literal(literal: str) -> str:
    """Return what a literal says, plain or with escapes as pg_dump writes them (backslashes twice)."""
    text = literal.lstrip("E")[1:-1].replace("''", "'")
    return text.replace("\\\\", "\\") if literal.startswith("E") else text


def refuse(text: str, problem: str) -> Refusal:
    """Return why a statement of a dump is not accepted."""
    words = " ".join(text.split())
    return Refusal(
        obj=f"statement {words[:80]!r} of the dump",
        problem=problem,
        next_step="It is not executed. Find out who has made the dump, and who has written this into the database",
    )
