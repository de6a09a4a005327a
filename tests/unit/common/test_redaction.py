# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""No secret passes, known or recognised, in whatever form it is printed; what is no secret stays readable."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.redaction import (
    MARKER,
    Redactor,
    is_secret_name,
    list_argument_secrets,
)

SAFE = string.ascii_letters + string.digits
# No character of a known value is one of the marker's brackets: a replacement could put such a value together again.
VALUES = st.text(
    st.characters(exclude_characters="[]", exclude_categories=["Cs", "Zl", "Zp"]), min_size=4, max_size=40
).filter(lambda text: text.strip("\r\n") == text and len(text.strip()) >= 4 and text.strip() not in MARKER)
AROUND = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PLANTED = st.text(SAFE, min_size=6, max_size=40).map(lambda text: f"Pl4{text}")

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda value: value,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64url": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "url": lambda value: quote(value, safe=""),
    "form": quote_plus,
    "json": lambda value: json.dumps(value)[1:-1],
    "json in unicode": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "go": lambda value: json.dumps(value)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
    "xml": lambda value: value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
}


def is_ordinary(value: str) -> bool:
    return value.lower() in ("true", "false", "null", "none")


@settings(deadline=None, max_examples=300)
@given(VALUES, AROUND, AROUND, st.sampled_from(sorted(ENCODINGS)))
def test_a_known_value_never_passes(value: str, before: str, after: str, encoding: str) -> None:
    """Whatever stands around it, however it is encoded."""
    if is_ordinary(value):
        return
    printed = ENCODINGS[encoding](value)
    redacted = Redactor([value]).redact(f"{before} {printed} {after}")
    assert printed not in redacted.replace(MARKER, "\x00") or printed in f"{before}{after}"
    assert MARKER in redacted
    assert value not in redacted.replace(MARKER, "\x00")


@settings(deadline=None, max_examples=200)
@given(VALUES, st.binary(max_size=7), st.binary(max_size=7))
def test_a_known_value_inside_of_base64_never_passes(value: str, before: bytes, after: bytes) -> None:
    """As in basic authentication, at any offset; the whole text goes, since a rest of it would be readable."""
    if len(value.encode()) < 6 or is_ordinary(value):
        return
    printed = base64.b64encode(before + value.encode() + after).decode()
    assert Redactor([value]).redact(f"got {printed}, ok") == f"got {MARKER}, ok"


@settings(deadline=None, max_examples=200)
@given(st.lists(VALUES, min_size=1, max_size=4), AROUND)
def test_known_values_that_overlap_leave_no_rest(values: list[str], around: str) -> None:
    """None of them is in the result, in whatever order they are known."""
    text = around.join(values) + "".join(values)
    redacted = Redactor(values).redact(text).replace(MARKER, "\x00")
    assert [value for value in values if value in redacted and not is_ordinary(value)] == []


def test_overlapping_values_go_together() -> None:
    """The tail of the second would be left when only the first was taken."""
    assert Redactor(["abcdefgh", "efghijkl"]).redact("-abcdefghijkl-") == f"-{MARKER}-"


PLACES = [
    "password={}",
    "DB_PASSWORD={} next=1",
    "db.password = {}",
    "Password: {}",
    'password="{} with spaces" next',
    "passwd='{}'",
    '{{"password": "{}", "user": "u"}}',
    '{{"db_passwd":"a\\"{}\\" b"}}',
    '{{\\"password\\":\\"{}\\",\\"user\\":\\"u\\"}}',
    '"password": "cut off {}',
    "secret: {}",
    "CLIENT_SECRET={}",
    "token={}&next=1",
    "access_token={}",
    "https://host/path?api_key={}&x=1",
    "apiKey: {}",
    "X-API-Key: {}",
    "Authorization: Basic {}",
    "authorization: {} and more",
    'curl -H "Authorization: Token {}" https://host/',
    "headers=map[Authorization:[Bearer {}] Host:[x]]",
    "Cookie: session={}; theme=dark",
    "Set-Cookie: a=b; session={}",
    "cookie={}",
    "Bearer {}",
    "bearer {} was refused",
    "postgres://user:{}@db:5432/app",
    "amqp://{}@bus/",
    "redis://:{}@cache:6379/0",
    "https://user:p@{}@host/",
    "user:{}@tcp(db:3306)/app",
    "--password {} --verbose",
    "--db-token={}",
    "app -api-key '{}' run",
    '{{"name":"DB_PASSWORD","value":"{}"}}',
    "<db:password>{}</db:password>",
    "AWS_SECRET_ACCESS_KEY={}",
    "aws_session_token: {}",
    "https://b.s3/x?X-Amz-Signature={}",
    "passphrase: several words and {}",
    "password=a,b{}",
    "password=a]b{}",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx{}.{}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\\n{}\\n-----END PRIVATE KEY-----\\n",
    "-----BEGIN OPENSSH PRIVATE KEY-----\n{}",
    "MIIEvgIBADANBgkqhkiG9w0B{}\n-----END PRIVATE KEY-----",
    "ghp_0123456789abcdef{}",
    "DB_PASS={} next=1",
    "db.pass={}",
    "dbpass: {}",
    "pass={}",
    '{{"pass": "{}"}}',
    "app --db-pass {} run",
    "ALTER USER app WITH PASSWORD '{}';",
    "CREATE ROLE app LOGIN ENCRYPTED PASSWORD 'it''s{}'",
    "create user 'a'@'%' identified by '{}'",
    "CREATE USER a IDENTIFIED WITH caching_sha2_password BY '{}' REQUIRE SSL",
    "SET PASSWORD FOR 'a'@'%' = PASSWORD('{}')",
    'ALTER USER a IDENTIFIED BY "{}"',
    '{{"stmt":"ALTER USER app PASSWORD \'{}\'"}}',
    "STATEMENT: ALTER USER app PASSWORD 'cut off {}",
    "curl -u admin:{} https://host/",
    "curl -uadmin:{} https://host/",
    'curl --user "admin:{} x" https://host/',
    "redis-cli -h cache -a {} ping",
    "mysqldump -h db -p{} shop",
    "mysql -p'{}' shop",
    "sshpass -p {} ssh host",
    "curl -sSu admin:{} https://host/",
    "curl --proxy-user admin:{} https://host/",
    "curl -b session={} https://host/",
    "curl --oauth2-bearer {} https://host/",
    'curl -H "X-Api-Key: {}" https://host/',
    "redis-cli --pass {} ping",
    "redis-cli --pass={} ping",
    "redis-server --requirepass {}",
    "REDISCLI_AUTH={} redis-cli ping",
    "mongosh --username u -p {} shop",
    "mongodump -u u -p{}",
    "ldapsearch -D cn=a -w {} -b dc=x",
    "sqlcmd -U sa -P {} -Q x",
    "docker login -u u -p {} r.example",
    "smbclient -U u%{} //h/s",
    "rabbitmqadmin -u u -p {} list queues",
    "sh -c 'PGPASSWORD={} psql -h db'",
    'exec: ["curl","-u","user:{}","https://h"]',
    'exec: ["redis-cli", "-a", "{}", "ping"]',
    "exec: ['redis-cli', '-a', '{}', 'ping']",
    'exec: ["redis-cli" "-a" "{}"]',
    "probe [redis-cli -a {} ping] failed",
    '{{"m":"[\\"redis-cli\\",\\"-a\\",\\"{}\\"]"}}',
    '["mysqladmin","-uroot","-p{}","ping"]',
    '{{"auths":{{"r.example":{{"auth":"{}"}}}}}}',
    "https://a.blob.core.windows.net/c/b?sv=2024-01-01&sig={}&se=2026",
    "sk_live_0123456789abcdef{}",
    "hvs.0123456789abcdef{}",
    "SG.0123456789abcdef{}.0123456789abcdef{}",
    "xoxc-0123456789abcdef{}",
    "https://hooks.slack.com/services/T0/B0/{}",
    '{{\n  "password":\n    "{}"\n}}',
    "password: |\n  {}\n  second {}\nuser: u",
    "db:\n  token: >-\n    {}\n\n    {}\n  user: u",
]


@pytest.mark.parametrize("place", PLACES)
@settings(deadline=None, max_examples=20)
@given(planted=PLANTED, before=st.sampled_from(["", "level=info ", "2026-01-01T00:00:00Z ", "a\n", '{"m": "x"} ']))
def test_a_secret_is_recognised_by_its_place(place: str, planted: str, before: str) -> None:
    """Nobody has named its value; what has been redacted once stays as it is."""
    redacted = Redactor().redact(before + place.format(planted, planted))
    assert planted not in redacted
    assert MARKER in redacted
    assert redacted.startswith(before)
    assert Redactor().redact(redacted) == redacted


@settings(deadline=None, max_examples=200)
@given(AROUND, st.lists(VALUES, max_size=3))
def test_a_second_time_changes_nothing(text: str, values: list[str]) -> None:
    """What a module has redacted may be redacted again by a role."""
    redactor = Redactor(values)
    redacted = redactor.redact(text)
    assert redactor.redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        'secret "db-credentials" not found',
        "couldn't find key url in Secret shop/db",
        'MountVolume.SetUp failed for volume "tls" : secret "tls" not found',
        "Back-off restarting failed container app in pod api-0_shop(4c1f)",
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
        "secretName: db-credentials",
        "TOKEN_FILE=/var/run/secrets/kubernetes.io/serviceaccount/token",
        "total_tokens: 4096, max_tokens=512",
        "PWD=/srv/app",
        "https://host:8080/path?x=1 user@example.org",
        "0/3 nodes are available: 3 Insufficient memory.",
        "the token is invalid",
        "basic authentication failed",
        "bearer token expired",
        "--- PASS: TestMigrate (0.01s)",
        "3 passed, passthrough=on, bypass: 1",
        "docker run -u 1000:1000 image",
        "docker run -p 8080:80 image",
        "helm upgrade -p x",
        "ssh -p 22 host",
        "curl -b cookies.txt https://host/x",
        "sort -u https://host/x",
        'password authentication failed for user "app"',
        "mysql -P3306 -h db",
        "user: u\nmode: |\n  plain\n",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """The evidence of a verdict has to stay readable."""
    assert Redactor(["abc", "true", "", "red", "redacted"]).redact(text) == text


@pytest.mark.parametrize("value", ["redacted", "[redacted]", "acte", "act"])
def test_the_marker_itself_is_left_alone(value: str) -> None:
    """Although somebody's password is a part of it."""
    assert Redactor([value]).redact("password=x") == f"password={MARKER}"


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ("first-line-of-it\nsecond-line-of-it", "got second-line-of-it"),
        ("postgres://app:s3cr%3Fet@db/x", "login with s3cr?et failed"),
        ("postgres://app:s3cr%3Fet@db/x", "login with s3cr%3Fet failed"),
        ('{"user": "app", "password": "s3cr3t!"}', "login with s3cr3t! failed"),
        ("user=app\npassword=s3cr3t!\n", "login with s3cr3t! failed"),
        ("s3cr3t!\n", "login with s3cr3t! failed"),
    ],
)
def test_what_a_known_value_holds_is_known(known: str, text: str) -> None:
    """A Secret may hold a URL, a configuration file, or a line break at its end."""
    assert MARKER in Redactor([known]).redact(text)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True),
        ("DB_PASSWORD", True),
        ("dbPassword", True),
        ("spring.datasource.password", True),
        ("apiKey", True),
        ("SECRET_KEY_BASE", True),
        ("aws_secret_access_key", True),
        ("token", True),
        ("DB_PASS", True),
        ("pass", True),
        ("auth", True),
        ("bypass", False),
        ("author", False),
        ("TOKEN_2", True),
        ("secretName", False),
        ("imagePullSecretName", False),
        ("secretRef", False),
        ("secretKeyRef", False),
        ("PASSWORD_FILE", False),
        ("max_tokens", False),
        ("tokenExpirationSeconds", False),
        ("user", False),
        ("key", False),
    ],
)
def test_a_name_tells_whether_its_value_is_secret(name: str, secret: bool) -> None:
    """Names of secrets, files and lifetimes are no secrets."""
    assert is_secret_name(name) is secret


def test_a_document_keeps_its_names() -> None:
    """Which Secret and key are used is evidence; what is in it is none."""
    document = {
        "kind": "Pod",
        "metadata": {
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": json.dumps(
                    {"env": [{"value": "hunter22", "name": "DB_PASSWORD"}]}
                )
            }
        },
        "env": [
            {"name": "DB_PASSWORD", "value": "hunter22"},
            {"name": "LOG_LEVEL", "value": "debug"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "db", "key": "token"}}},
            {"name": "URL", "value": "postgres://u:hunter22@db/x"},
        ],
        "args": ["--db-password", "hunter22", "--verbose", "--token=hunter22", "--password", "--x"],
        "volumes": [{"secret": {"secretName": "db", "items": [{"key": "token", "path": "t"}]}}],
        "automountServiceAccountToken": False,
        "passwords": ["hunter22", 7],
        "pin": 123456,
        "password": 99,
        "items": [{"kind": "Secret", "data": {"url": "aHVudGVyMjI=", "x": None}, "type": "Opaque"}],
        "none": None,
    }
    assert Redactor(["123456"]).redact_document(document) == {
        "kind": "Pod",
        "metadata": {
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": json.dumps(
                    {"env": [{"value": MARKER, "name": "DB_PASSWORD"}]}
                )
            }
        },
        "env": [
            {"name": "DB_PASSWORD", "value": MARKER},
            {"name": "LOG_LEVEL", "value": "debug"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "db", "key": "token"}}},
            {"name": "URL", "value": f"postgres://{MARKER}@db/x"},
        ],
        "args": ["--db-password", MARKER, "--verbose", f"--token={MARKER}", "--password", "--x"],
        "volumes": [{"secret": {"secretName": "db", "items": [{"key": "token", "path": "t"}]}}],
        "automountServiceAccountToken": False,
        "passwords": [MARKER, MARKER],
        "pin": MARKER,
        "password": MARKER,
        "items": [{"kind": "Secret", "data": {"url": MARKER, "x": MARKER}, "type": "Opaque"}],
        "none": None,
    }


ARGUMENTS: list[list[str]] = [
    ["curl", "-u", "user:{}", "https://h"],
    ["curl", "-sSu", "user:{}"],
    ["curl", "-uuser:{}"],
    ["curl", "--user", "user:{}"],
    ["curl", "--user=user:{}"],
    ["curl", "--proxy-user", "user:with a blank {}"],
    ["curl", "-H", "Authorization: Bearer {}"],
    ["curl", "-H", "Authorization:Bearer {}"],
    ["curl", "--cookie", "s={}"],
    ["curl", "-b", "s={}"],
    ["redis-cli", "-h", "c", "-a", "{}", "ping"],
    ["redis-cli", "-a", "-{}"],
    ["/usr/bin/redis-cli", "--pass", "{}"],
    ["redis-server", "--requirepass", "{}"],
    ["mysql", "-uroot", "-p{}"],
    ["mysqladmin", "--password", "{}"],
    ["mysqladmin", "--password={}"],
    ["mongosh", "-u", "u", "-p", "{}"],
    ["sshpass", "-p", "{}", "ssh"],
    ["ldapsearch", "-w", "{}"],
    ["sqlcmd", "-P", "{}"],
    ["docker", "login", "-u", "u", "-p", "{}"],
    ["sh", "-c", "PGPASSWORD={} psql -h db"],
    ["sh", "-c", "exec redis-cli -a {} ping"],
    ["env", "PGPASSWORD={}", "psql"],
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
@settings(deadline=None, max_examples=20)
@given(planted=PLANTED, before=st.sampled_from([[], ["exec"], ["/bin/tini", "--"]]), split=st.integers(0, 4))
def test_a_secret_among_arguments_is_recognised(
    arguments: list[str], planted: str, before: list[str], split: int
) -> None:
    """As a list, as a command with args that go on with it, in JSON; and it is known for where a program prints it."""
    words = [*before, *(word.format(planted) for word in arguments)]
    redactor = Redactor()
    for document in (words, {"command": words[:split], "args": words[split:]}, json.dumps({"command": words})):
        redacted = redactor.redact_document(document)
        assert planted not in json.dumps(redacted)
        assert MARKER in json.dumps(redacted)
        assert redactor.redact_document(redacted) == redacted
    assert redactor.redact_document(words)[: len(before)] == before
    known = [value for value in list_argument_secrets(words) if planted in value]
    assert known
    assert planted not in Redactor(known).redact(f"cannot login: {min(known, key=len)} is refused")


@pytest.mark.parametrize(
    "arguments",
    [
        ["docker", "run", "-u", "1000:1000", "-p", "80:80"],
        ["mysql", "-P", "3306", "-p"],
        ["ssh", "-p", "22"],
        ["curl", "-b", "cookies.txt", "-H", "Accept: x"],
        ["app", "-u", "http://x:80/y"],
        ["redis-cli", "-a"],
        ["x", 5, None, "-u", 7],
    ],
)
def test_arguments_that_are_no_secret_stay(arguments: list[Any]) -> None:
    """What a program is told is evidence, and nothing of it is known as a secret."""
    assert Redactor().redact_document({"command": arguments[:1], "args": arguments[1:]}) == {
        "command": arguments[:1],
        "args": arguments[1:],
    }
    assert list(list_argument_secrets(arguments)) == []


def test_a_scheme_is_no_secret() -> None:
    """Only what follows it is."""
    assert list(list_argument_secrets(["curl", "-H", "Authorization: Bearer abcdef99"])) == ["abcdef99"]


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(SAFE + " =:,", max_size=12),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(SAFE, max_size=8), children, max_size=3),
    max_leaves=10,
)


@settings(deadline=None, max_examples=100)
@given(DOCUMENTS, PLANTED)
def test_a_known_value_is_in_no_document(document: object, planted: str) -> None:
    """Deep inside, as a key and as a value."""
    whole = {"a": document, planted: [{"b": {"c": f"x{planted}y"}}, planted], "j": json.dumps({"k": planted})}
    redacted = Redactor([planted]).redact_document(whole)
    assert planted not in json.dumps(redacted)
    assert Redactor([planted]).redact_document(redacted) == redacted


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(
        [
            "a",
            "eyJ",
            "password",
            "-",
            '"',
            "=",
            "A1+/",
            "token=",
            '\\"',
            "key: ",
            "mysql ",
            "-u a",
            "password '",
            "pass",
            "token: |\n ",
            "identified by ",
            "SG.",
            "password:\n",
        ]
    )
)
def test_long_texts_take_no_time_to_the_power_of_their_length(part: str) -> None:
    """Each pattern is bounded: a log of a hundred thousand characters is done within the test's own limit."""
    text = part * (100_000 // len(part))
    assert isinstance(Redactor(["s3cr3t-value"]).redact(text), str)
