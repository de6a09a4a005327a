# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told of runs that could not be removed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup import catalogue, keys
from ansible_collections.lowtide.ops.plugins.module_utils._backup.cleaning import Cleaning
from ansible_collections.lowtide.ops.plugins.module_utils._s3.bucket import Listed, Upload
from ansible_collections.lowtide.ops.plugins.module_utils._s3.errors import S3Error, answer_error

NOW = datetime(2026, 11, 21, 4, 0, 0, tzinfo=UTC)
PLACE = keys.Place(bucket="b", prefix="p", database="d", system_identifier="7")
NAMES = [f"20261121T02000{number}Z-00000000" for number in range(3)]


class Deletions:
    """The S3 server of a bucket that answers deletions by ``codes``, by run or for all; it keeps what it was asked."""

    def __init__(self, codes: dict[str, str], *, uploads: str = "") -> None:
        self.codes = codes
        self.uploads = uploads
        self.asked: list[str] = []

    def _refuse(self, code: str, key: str, action: str) -> None:
        if code:
            raise answer_error(
                obj=f"s3://b/{key}", operation="delete", status=403, code=code, message="no", action=action
            )

    def delete(self, key: str) -> None:
        """One object."""
        self.asked.append(key)
        self._refuse(self.codes.get(key.split("/")[3], self.codes.get("*", "")), key, "s3:DeleteObject")

    def list_uploads(self, _prefix: str) -> list[Upload]:
        """None, or refused."""
        self._refuse(self.uploads, "", "s3:ListBucketMultipartUploads")
        return []

    def abort(self, upload: Upload) -> None:
        """Never asked here."""


def clean(bucket: Deletions) -> Cleaning:
    """Remove three interrupted runs, of a dump in three objects each."""
    listed = [
        Listed(key=PLACE.key(name, part), size=1, etag="e", modified=NOW)
        for name in NAMES
        for part in (keys.STARTED, keys.DUMP, keys.name_data(1), keys.name_data(2))
    ]
    runs = catalogue.group(listed, "p")
    cleaning = Cleaning(bucket, PLACE)  # type: ignore[arg-type]
    cleaning.abort_uploads(runs)
    cleaning.remove(runs)
    return cleaning


def test_all_that_is_removed_is_named() -> None:
    """And nothing is warned of. What says that a run has begun goes last, so that an interruption leaves no orphan."""
    bucket = Deletions({})
    cleaning = clean(bucket)
    assert [key.rpartition("/")[2] for key in bucket.asked[:4]] == [
        "data-2.pgc.zst",
        "data-1.pgc.zst",
        keys.DUMP,
        keys.STARTED,
    ]
    assert cleaning.removed == [PLACE.url(PLACE.key(name, "")) for name in reversed(NAMES)]
    assert cleaning.warning is None


def test_an_account_that_may_only_add_gets_one_warning_and_is_asked_once() -> None:
    """The action that is missing is named, and what to do without it."""
    bucket = Deletions({"*": "AccessDenied"}, uploads="AccessDenied")
    cleaning = clean(bucket)
    assert cleaning.removed == []
    assert len(bucket.asked) == 1
    warning = str(cleaning.warning)
    assert "3 older or unfinished runs could not be removed" in warning
    assert "unfinished uploads could not be aborted" in warning
    assert "s3:DeleteObject" in warning
    assert "s3:ListBucketMultipartUploads" in warning
    assert "keep and keep_for" in warning


def test_another_refusal_concerns_one_run() -> None:
    """The others are removed, and the warning says how many were not."""
    cleaning = clean(Deletions({NAMES[1]: "ObjectLocked"}))
    assert cleaning.removed == [PLACE.url(PLACE.key(NAMES[number], "")) for number in (2, 0)]
    assert "1 older or unfinished run could not be removed" in str(cleaning.warning)
    assert NAMES[1] in str(cleaning.warning)


@pytest.mark.parametrize(
    ("action", "words"),
    [("s3:DeleteObject", "Grant these credentials s3:DeleteObject"), ("", "Grant these credentials the action")],
)
def test_a_denied_action_is_named(action: str, words: str) -> None:
    """Where it is known."""
    error = answer_error(obj="o", operation="x", status=403, code="AccessDenied", message="", action=action)
    assert isinstance(error, S3Error)
    assert words in error.next_step
