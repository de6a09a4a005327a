# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take secrets out of logs and documents before they reach a result or a file.

Two ways together: values that are known to be secret, in every form in which programs print them, and what looks like
a secret by its name or its form. Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import base64
import json
import re
import typing as t
from urllib.parse import quote, quote_plus, unquote

MARKER = "[redacted]"
"""What stands in the place of a secret. Nothing of the secret is left, not its length either."""
MINIMUM = 4
"""Known values with fewer characters are not looked for: they occur everywhere, and are no secret to anybody."""
MINIMUM_LINE = 8
"""A line of a known value of several lines is looked for by itself from this many characters: logs come by lines."""
_ORDINARY = frozenset({"true", "false", "null", "none"})

_WORDS = (
    r"pass(?:word|wd|phrase|code)|pwd(?!=/)|secret|token(?!s\b|iz|ing)|api[_.-]?key|access[_.-]?key|private[_.-]?key"
    r"|account[_.-]?key|encryption[_.-]?key|signing[_.-]?key|credential|signature"
    r"|authorization|cookie|x-auth"
    # Short words only where they stand as a name: DB_PASS, db.pass, "auth" of a registry, sig of a signed URL.
    r"|(?:(?<=[_.\"'-])|(?<![\s\S])|(?<!\w)(?==?pass=)|(?<=db)|(?<=user)|(?<=smtp))pass(?![a-z])"
    r"|(?<![\w.-])auth(?=\\*[\"']|\Z)|(?<=[?&])sig(?==)|requirepass|masterauth|cli_auth"
)
# What a name with such a word may end in when it names or measures something: secretName, TOKEN_FILE, passwordPolicy.
_HARMLESS = r"(?:names?|refs?|files?|paths?|types?|policy|policies|ttl|seconds|expir\w*|length|count|limit|version)"
_NAME = rf"(?:{_WORDS})(?![\w.-]{{0,40}}?{_HARMLESS}(?![\w.-]))[\w.-]{{0,60}}"
_MARK = re.escape(MARKER)
_QUOTED = (
    r"(?P<quote>\\{1,127}[\"'])(?:(?!(?P=quote))[^\r\n])*(?:(?P=quote)|$)"
    r"|\"(?:[^\"\\\r\n]|\\.)*(?:\"|\\?$)"
    r"|'(?:[^'\\\r\n]|\\.)*(?:'|\\?$)"
)
_BARE = rf"(?:{_MARK}|[^\s,;&\"'\\}}\])]|\\(?![\"'nrt])|[,;&](?!\s|[\w.-]+[=:]|$)|[\]}})](?=\w))+"

_HEADER = re.compile(
    rf"(?P<keep>(?P<around>[\"'])(?:proxy-)?(?:authorization|(?:set-)?cookie)\s*:[ \t]*)(?:(?!(?P=around))[^\r\n])+"
    rf"|(?P<keep2>\b(?:proxy-)?(?:authorization|(?:set-)?cookie)\"?\s*[:=][ \t]*)(?:{_QUOTED}|[^\s\"'][^\r\n\"']*)",
    re.IGNORECASE | re.MULTILINE,
)
_PAIR = re.compile(
    rf"(?P<keep>{_NAME}(?:\\*[\"'])?[ \t]*(?:=>|[:=])[ \t]*)(?P<value>{_QUOTED}|{_BARE})", re.IGNORECASE | re.MULTILINE
)
# YAML's text of several lines, which ends where a line is not indented more than its name.
_BLOCK = re.compile(
    rf"(?P<keep>^(?P<indent>[ \t]*)(?![ \t])[^\r\n]{{0,300}}?{_NAME}[\"']?:[ \t]+)"
    r"(?P<value>[|>][-+0-9]{0,2}[ \t]*\r?\n(?P=indent)[ \t]+[^\n]*(?:\n(?:(?P=indent)[ \t]+[^\n]*|(?=\n)))*)",
    re.IGNORECASE | re.MULTILINE,
)
_BELOW = re.compile(
    rf"(?P<keep>{_NAME}\\*[\"']\s{{0,40}}:[ \t]{{0,40}}\r?\n\s{{0,200}})(?P<value>{_QUOTED})",
    re.IGNORECASE | re.MULTILINE,
)
_SQL = re.compile(
    r"(?P<keep>\b(?:password|identified\s{1,20}(?:with\s{1,20}\S{1,60}\s{1,20})?(?:by|as))"
    r"(?:\s{1,20}(?:for\s{1,20}[^\s=]{1,200}|password))?\s{0,20}(?:=\s{0,20})?(?:password\s{0,20})?\(?\s{0,20}[en]?)"
    # A quotation mark in it is written twice.
    r"(?P<value>(?:'(?:[^'\\\r\n]|\\.)*(?:'|\\?$))+|(?<=by )\"[^\"\r\n]*(?:\"|$))",
    re.IGNORECASE | re.MULTILINE,
)
# Between two arguments: blanks, or what a list in JSON, Python or Go has between them.
_GAP = r"(?:[ \t]+|\\{0,8}[\"'],?[ \t]{0,4}\\{0,8}[\"'])"
_LOGIN = re.compile(
    rf"(?P<keep>(?<![\w-])(?:-[uU](?:{_GAP}|=)?|-[a-zA-Z]{{1,10}}[uU]{_GAP}|--(?:proxy-)?user(?:{_GAP}|=)))"
    r"(?P<value>\"[^\":\r\n]{1,100}:[^\"\r\n]*\"?|'[^':\r\n]{1,100}:[^'\r\n]*'?"
    r"|(?!\d+:\d+(?!\S))[^\s:\"'/]{1,100}:(?!//)[^\s\"']+)"
)
_ANY_VALUE = r"[^\s\"']+"


class _Client(t.NamedTuple):
    """A program whose short option takes a secret: ``programs`` and ``value`` are patterns.

    In a text the program may need more to be told by (``text``), such as ``docker login``.
    """

    programs: str
    option: str
    separate: bool = True
    attached: bool = True
    value: str = _ANY_VALUE
    text: str = ""


_CLIENTS = (
    _Client(r"(?:redis|valkey)-cli", "a", attached=False),
    _Client(r"(?:mysql|mariadb)[\w-]{0,20}", "p", separate=False),
    _Client(r"sshpass|rabbitmqadmin|mongo(?:sh|dump|restore|export|import|stat|top)?", "p"),
    _Client(r"ldap(?:search|add|modify|delete|whoami|passwd|compare)", "w"),
    _Client(r"sqlcmd|bcp", "P"),
    _Client(r"smbclient|rpcclient", "U", value=r"[^\s\"'%]+%[^\s\"']+"),
    _Client(r"curl", "b", value=r"[^\s\"'=]+=[^\s\"']+"),
    _Client(r"login", "p", text=r"(?:docker|podman|nerdctl|buildah|skopeo|helm|oras|crane)\b[^\r\n]{0,100}?\blogin"),
)


def _compile_client(client: _Client) -> re.Pattern[str]:
    gap = (_GAP if client.separate else "") + ("?" if client.separate and client.attached else "")
    return re.compile(
        rf"(?P<keep>\b(?:{client.text or client.programs})(?![\w-])(?:[^\r\n]{{0,200}}?[ \t\"'])?-{client.option}{gap})"
        rf"(?P<value>{_QUOTED}|{client.value})",
        re.MULTILINE,
    )


_OF_CLIENTS = tuple((re.compile(client.programs), client, re.compile(client.value)) for client in _CLIENTS)
_IN_TEXT = tuple(_compile_client(client) for client in _CLIENTS)
_LOGIN_OPTION = re.compile(r"-[a-zA-Z]{0,10}[uU]|--(?:proxy-)?user")
_LOGIN_VALUE = re.compile(r"(?!\d+:\d+$)[^:/\s]{1,100}:(?!//).+", re.DOTALL)
_PHRASE = re.compile(r"(?P<keep>passphrase[ \t]*[:=][ \t]*)(?P<value>[^\s\"'][^\r\n\"']*)", re.IGNORECASE)
_FLAG = re.compile(
    rf"(?P<keep>(?<![\w-])--?(?:[\w-]{{0,40}}[-_])?{_NAME}[ \t]+)(?P<value>{_QUOTED}|(?!-)[^\s\"']+)",
    re.IGNORECASE | re.MULTILINE,
)
_ENTRY = re.compile(
    rf"(?P<keep>\"(?:name|key)\\*\"\s*:\s*\\*\"[\w.-]{{0,60}}?{_NAME}\\*\"\s*,\s*\\*\"value\\*\"\s*:\s*)(?P<value>{_QUOTED})",
    re.IGNORECASE | re.MULTILINE,
)
_TAG = re.compile(rf"(?P<keep><[\w.:-]{{0,40}}?{_NAME}>)(?P<value>[^<\r\n]+)(?=</)", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<keep>\b[A-Za-z][A-Za-z0-9+.-]{0,30}://)(?P<value>[^\s/?#\"'<>]+)(?=@)")
_DSN = re.compile(r"(?P<keep>(?<![\w.-])[\w.-]{1,60}:)(?P<value>[^\s/\"']{1,200})(?=@(?:tcp|unix)\()")
_SCHEME = re.compile(
    r"(?P<keep>\b(?:(?i:bearer)[ \t]+(?!(?i:tokens?|auth\w*|realm|scheme|credentials)\b)"
    r"|(?i:basic|negotiate)[ \t]+(?![a-z]+(?![\w+/=]))))"
    rf"(?P<value>(?:{_MARK}|[A-Za-z0-9._~+/=-])+)"
)
_SCHEMES = frozenset({"bearer", "basic", "negotiate", "token"})
_PEM_END = r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?"
    rf"(?:{_PEM_END}|\Z)"
    # With the lines of one whose beginning is cut off.
    r"|(?:(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/=]{16,}(?:\s|\\[nr])+){1,120})?"
    rf"{_PEM_END}",
    re.DOTALL,
)
_FORMS = re.compile(
    r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}"  # JWT and JWE
    r"|\b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA|AIPA)[A-Z0-9]{16}(?![A-Z0-9])"  # AWS
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[a-z]-|xapp-|sk-|hf_|npm_|[sr]k_(?:live|test)_|whsec_|hv[sbr]\.|SG\.)"
    r"[A-Za-z0-9_.-]{16,}|\bAIza[A-Za-z0-9_-]{30,}"
    r"|(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/-]+"
)
# Headers first: their values hold what other patterns would take only parts of.
_WITH_KEPT = (
    _BLOCK,
    _HEADER,
    _PHRASE,
    _BELOW,
    _SQL,
    _PAIR,
    _LOGIN,
    *_IN_TEXT,
    _FLAG,
    _ENTRY,
    _TAG,
    _USERINFO,
    _DSN,
    _SCHEME,
)

_SECRET_NAME = re.compile(rf"{_NAME}$", re.IGNORECASE)
_SECRET_FLAG = re.compile(rf"--?(?:[\w-]{{0,40}}[-_])?{_NAME}$", re.IGNORECASE)


class Redactor:
    """Replaces secrets by ``MARKER``: the known ones, and what looks like one.

    ``known`` are secret values as they are used. They are also recognised encoded (base64 at any offset, URL, JSON,
    XML), and so are their lines, the passwords in their URLs and the secret entries of a configuration file.
    """

    def __init__(self, known: t.Iterable[str] = ()) -> None:
        values = {part for value in known for part in _expand(value)}
        values = {value for value in values if _is_searchable(value)}
        forms = {(form, False) for value in values for form in _list_forms(value) if _is_searchable(form)}
        forms |= {(core, True) for value in values for core in _list_base64(value)}
        self._forms: dict[str, list[tuple[str, bool]]] = {}
        for form, is_encoded in forms:
            self._forms.setdefault(form[:MINIMUM], []).append((form, is_encoded))
        self._values = values

    def redact(self, text: str) -> str:
        """Return the text with ``MARKER`` in the place of every secret."""
        text = self._replace_known(text)
        text = _PEM.sub(MARKER, text)
        for pattern in _WITH_KEPT:
            text = pattern.sub(_replace_value, text)
        return _FORMS.sub(MARKER, text)

    def redact_document(self, document: t.Any) -> t.Any:
        """Return a copy of a JSON value without secrets: what is under a secret name, in a Secret, or in any text.

        Names and structure stay, so that it can still be told which Secret and which key are used.
        """
        if isinstance(document, str):
            return self._redact_string(document)
        if isinstance(document, dict):
            return self._redact_mapping(document)
        if isinstance(document, (list, tuple)):
            return self._redact_items(document)
        if isinstance(document, (int, float)) and not isinstance(document, bool) and str(document) in self._values:
            return MARKER
        return document

    def _redact_mapping(self, document: t.Mapping[t.Any, t.Any]) -> dict[t.Any, t.Any]:
        is_secret = document.get("kind") == "Secret"
        named = document.get("name", document.get("key"))
        is_secret_entry = "value" in document and isinstance(named, str) and is_secret_name(named)
        redacted = {}
        words = self._redact_command(document)
        for key, value in document.items():
            if key in words:
                redacted[key] = words[key]
            elif is_secret and key in ("data", "stringData") and isinstance(value, dict):
                redacted[key] = dict.fromkeys((self._redact_key(name) for name in value), MARKER)
            elif (isinstance(key, str) and is_secret_name(key)) or (key == "value" and is_secret_entry):
                redacted[self._redact_key(key)] = self._redact_secret(value)
            else:
                redacted[self._redact_key(key)] = self.redact_document(value)
        return redacted

    def _redact_key(self, key: t.Any) -> t.Any:
        return self.redact(key) if isinstance(key, str) else key

    def _redact_secret(self, value: t.Any) -> t.Any:
        """Return ``MARKER`` for a value under a secret name; what is below it is looked at, as in secretKeyRef."""
        if value is None or isinstance(value, bool) or value == "":
            return value
        if isinstance(value, dict):
            return self.redact_document(value)
        if isinstance(value, (list, tuple)):
            return [self._redact_secret(item) for item in value]
        return MARKER

    def _redact_command(self, document: t.Mapping[t.Any, t.Any]) -> dict[t.Any, t.Any]:
        """Return the command and args of a container without secrets: the second goes on with the first."""
        command, args = document.get("command"), document.get("args")
        if not isinstance(command, (list, tuple)) or not isinstance(args, (list, tuple)):
            return {}
        words = self._redact_items([*command, *args])
        return {"command": words[: len(command)], "args": words[len(command) :]}

    def _redact_items(self, items: t.Sequence[t.Any]) -> list[t.Any]:
        return [
            self.redact_document(item) if split is None else split[0] + MARKER
            for item, split in _split_arguments(items)
        ]

    def _redact_string(self, text: str) -> str:
        """Return text without secrets; JSON in it (kubectl's last-applied-configuration) is taken as a document."""
        parsed = _parse_json(text)
        if parsed is None:
            return self.redact(text)
        redacted = self.redact_document(parsed)
        return self.redact(json.dumps(redacted, ensure_ascii=False) if redacted != parsed else text)

    def _replace_known(self, text: str) -> str:
        """Replace known values. Those that overlap go together, so that no rest of either is left."""
        # Most texts hold not even the beginning of a known value.
        beginnings = {text[start : start + MINIMUM] for start in range(len(text) - MINIMUM + 1)} & self._forms.keys()
        if not beginnings:
            return text
        marks = _find_all(text, MARKER)
        spans = []
        for form, is_encoded in (entry for beginning in beginnings for entry in self._forms[beginning]):
            for span in _find_all(text, form):
                if is_encoded:
                    spans.append(_widen(text, span))
                elif not _is_inside(span, marks):
                    spans.append(span)
        if not spans:
            return text
        parts = []
        position = 0
        for start, end in _merge(spans + marks):
            parts += [text[position:start], MARKER]
            position = end
        return "".join([*parts, text[position:]])


def is_secret_name(name: str) -> bool:
    """Return whether a field, key or variable of this name holds a secret, and not a secret's name or file."""
    return _SECRET_NAME.search(name) is not None


def _split_arguments(items: t.Iterable[t.Any]) -> t.Iterator[tuple[t.Any, tuple[str, str] | None]]:
    """Yield each argument with what of it may stay and the secret that follows; None where it has none.

    What an argument means is told by the option before it, and a short option by the program.
    """
    clients: list[tuple[_Client, re.Pattern[str]]] = []
    expected: re.Pattern[str] | None = None
    for item in items:
        if not isinstance(item, str):
            expected = None
            yield item, None
            continue
        if expected is not None and expected.fullmatch(item):
            expected = None
            yield item, ("", item)
            continue
        expected = _expect_secret(item, clients)
        attached = [
            item
            for client, value in clients
            if client.attached and item.startswith(f"-{client.option}") and value.fullmatch(item[2:])
        ]
        yield item, (item[:2], item[2:]) if attached and expected is None else None
        program = item.rpartition("/")[2]
        clients += [(client, value) for programs, client, value in _OF_CLIENTS if programs.fullmatch(program)]


_ANY = re.compile(r".+", re.DOTALL)
_NO_OPTION = re.compile(r"(?!-).+", re.DOTALL)


def _expect_secret(item: str, clients: t.Iterable[tuple[_Client, re.Pattern[str]]]) -> re.Pattern[str] | None:
    """Return what the argument after this one looks like if it is a secret; None where it is none."""
    for client, value in clients:
        if client.separate and item == f"-{client.option}":
            return _ANY if client.value == _ANY_VALUE else value
    if _SECRET_FLAG.match(item):
        return _NO_OPTION
    return _LOGIN_VALUE if _LOGIN_OPTION.fullmatch(item) else None


def list_argument_secrets(arguments: t.Sequence[t.Any]) -> t.Iterator[str]:
    """Yield the secrets in the arguments of a program, as programs print them: of a login also its password."""
    for item, split in _split_arguments(arguments):
        if split is not None:
            yield split[1]
            yield from re.split("[:%=]", split[1], maxsplit=1)[1:]
        elif isinstance(item, str):
            yield from list_secret_parts(item)


def _replace_value(match: re.Match[str]) -> str:
    groups = match.groupdict()
    keep = groups["keep"] or groups.get("keep2") or ""
    value = groups.get("value") or match.group()[len(keep) :]
    mark = re.match(r"\\*[\"']", value)
    if mark is None:
        return keep + MARKER
    sign = mark.group()
    is_closed = value.endswith(sign) and len(value) >= 2 * len(sign)
    return f"{keep}{sign}{MARKER}{sign if is_closed else ''}"


def _expand(value: str) -> t.Iterator[str]:
    """Yield a known value, its lines, and the secrets in it: passwords of URLs, secret entries of configuration."""
    value = value.strip("\r\n")
    yield value
    if value.strip() != value:
        yield value.strip()
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= MINIMUM_LINE)
    yield from list_secret_parts(value)


def list_secret_parts(text: str) -> t.Iterator[str]:
    """Yield the secrets in a text that is none as a whole: secret entries of configuration, passwords of URLs."""
    for pattern in (_PAIR, _FLAG, _ENTRY, _SQL, _SCHEME, *_IN_TEXT):
        values = (match["value"].strip("\\\"'") for match in pattern.finditer(text))
        yield from (value for value in values if value.lower() not in _SCHEMES)
    yield from (match["value"].strip("\\\"'").partition(":")[2] for match in _LOGIN.finditer(text))
    for pattern in (_USERINFO, _DSN):
        for match in pattern.finditer(text):
            password = match["value"].partition(":")[2] if pattern is _USERINFO else match["value"]
            yield from {password, unquote(password)}


def _is_searchable(value: str) -> bool:
    return len(value) >= MINIMUM and value.lower() not in _ORDINARY and value not in MARKER


def _list_forms(value: str) -> set[str]:
    """Return the forms in which programs print a text: as it is, in URLs, in JSON (also Go's) and XML."""
    in_json = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]]
    in_go = [_replace_all(form, {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}) for form in in_json[:2]]
    encodable = value.encode("utf-8", "replace")
    in_url = [quote(encodable, safe=""), quote(encodable, safe="/"), quote_plus(encodable)]
    in_url += [re.sub("%[0-9A-F]{2}", lambda match: match.group().lower(), form) for form in in_url]
    in_xml = _replace_all(value, {"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    in_html = [_replace_all(in_xml, {'"': sign, "'": "&#39;"}) for sign in ("&quot;", "&#34;")]
    return {value, *in_json, *in_go, *in_url, in_xml, *in_html}


def _replace_all(text: str, table: t.Mapping[str, str]) -> str:
    for old, new in table.items():
        text = text.replace(old, new)
    return text


def _list_base64(value: str) -> set[str]:
    """Return what is in every base64 text of something that contains the value, at each of its three offsets."""
    data = value.encode("utf-8", "replace")
    cores = set()
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        start = (0, 2, 3)[offset]
        end = len(encoded) if (offset + len(data)) % 3 == 0 else len(encoded) - 1
        core = encoded[start:end]
        if len(core) > MINIMUM:
            cores |= {core, core.replace("+", "-").replace("/", "_")}
    return cores


def _find_all(text: str, part: str) -> list[tuple[int, int]]:
    spans = []
    start = text.find(part)
    while start >= 0:
        spans.append((start, start + len(part)))
        start = text.find(part, start + 1)
    return spans


def _is_inside(span: tuple[int, int], marks: t.Iterable[tuple[int, int]]) -> bool:
    return any(start <= span[0] and span[1] <= end for start, end in marks)


_BASE64_AFTER = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")


def _widen(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """Return the whole base64 text around a part of it: its rest would still show most of the secret."""
    start, end = span
    while start > 0 and _is_base64(text[start - 1]):
        start -= 1
    after = _BASE64_AFTER.match(text, end)
    return start, after.end() if after is not None else end


def _is_base64(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in "+/_-")


def _merge(spans: t.Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _parse_json(text: str) -> t.Any:
    """Return the object or list that a text is in JSON; None when it is anything else."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None
