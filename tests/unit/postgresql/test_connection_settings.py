# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What carries a password or a key shows it in no text of its own, however deep it is in another one's."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup.pipeline import Command
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.credentials import Credentials, make_basic
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.files import PemSource
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.proxies import ProxyUrl
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import Settings

SECRET = "canary-of-a-secret"  # noqa: S105 - nobody's
SETTINGS = Settings(host="db.example", port=5432, user="ops", dbname="shop", password=SECRET)
PEM = PemSource(text=f"-----BEGIN PRIVATE KEY-----\n{SECRET}")


@pytest.mark.parametrize(
    ("carrier", "words"),
    [
        (SETTINGS, "db.example"),
        (Command(("pg_dump",), env=SETTINGS.environment(primary=True)), "pg_dump"),
        (PEM, "PemSource"),
        (PemSource(path="/etc/pki/key.pem"), "/etc/pki/key.pem"),
        (make_basic("ops", SECRET), "Credentials"),
        (Credentials({"Authorization": f"Bearer {SECRET}"}, key=PEM, secrets=(SECRET,)), "Credentials"),
        (ProxyUrl("http", "proxy.example", 3128, "ops", SECRET), "http://proxy.example:3128"),
    ],
    ids=["settings", "command", "key", "key file", "basic", "token", "proxy"],
)
def test_no_secret_is_in_the_text_of_what_carries_it(carrier: object, words: str) -> None:
    """By repr, by str, in a format and in a list of others; what is no secret is still told."""
    texts = [repr(carrier), str(carrier), f"{carrier}", repr([carrier])]
    assert not [text for text in texts if SECRET in text or "Authorization" in text or "b3BzOm" in text]
    assert all(words in text for text in texts)


def test_the_password_still_reaches_the_program() -> None:
    """It is hidden from people only."""
    assert SETTINGS.environment(primary=True)["PGPASSWORD"] == SECRET
