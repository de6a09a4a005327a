# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove objects that were listed, and no others. Private to lowtide.ops: do not import from other collections.

A version goes by its id. Where there are none, an object goes under the condition that it still has the ETag that was
listed: by DeleteObjects, if the server looks at the ETags in it, and else one by one. What is set in a bucket with
versions is a delete marker, below which everything stays.
"""

from __future__ import annotations

import typing as t
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .._common.errors import OpsError, Refusal
from .._common.retry import Backoff, Deadline
from .._s3.errors import S3Error
from .._s3.versions import PAGE, Answer, Version, VersionedBucket, fits_xml

WORKERS = 10
BUSY = ("SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted", "RequestTimeout")
"""Codes of one object in the answer to DeleteObjects that another attempt may do away with."""
ATTEMPTS = 4
UNBULKED = (
    "AccessDenied",
    "InternalError",
    "InvalidRequest",
    "MalformedXML",
    "MethodNotAllowed",
    "NotImplemented",
    "SlowDown",
)
"""Answers to a whole DeleteObjects that may be the fault of one object in it: versitygw's to one that is locked."""
NO_ETAG = "0" * 32


@dataclass
class Removal:
    """What has been done so far: versions that are removed, those that another client had removed, and the others."""

    removed: list[Version] = field(default_factory=list)
    gone: list[Version] = field(default_factory=list)
    replaced: list[Answer] = field(default_factory=list)
    failed: list[Answer] = field(default_factory=list)

    def add(self, answer: Answer, *, was_tried: bool = False) -> None:
        """Count an answer. What is gone after an attempt whose answer did not say so was removed by it."""
        if answer.is_removed or (answer.is_gone and was_tried):
            self.removed.append(answer.version)
        elif answer.is_gone:
            self.gone.append(answer.version)
        elif answer.is_replaced:
            self.replaced.append(answer)
        else:
            self.failed.append(answer)

    @property
    def stuck_keys(self) -> set[str]:
        """Return the keys of which something stays."""
        return {answer.version.key for answer in [*self.failed, *self.replaced]}


class Remover:
    """Removes versions of one bucket. ``before_write`` is called once, before the first request that may change it."""

    def __init__(
        self,
        bucket: VersionedBucket,
        *,
        versioning: str,
        condition: str,
        deadline: Deadline,
        before_write: t.Callable[[], None],
    ) -> None:
        self._bucket = bucket
        self._versioning = versioning
        self._condition = condition
        self._deadline = deadline
        self._before_write = before_write
        self.removal = Removal()

    def remove(self, phases: t.Iterable[t.Sequence[Version]], *, prefix: str) -> None:
        """Remove the versions of each phase, and of no key of which something of an earlier phase stays."""
        for phase in phases:
            stuck = self.removal.stuck_keys
            versions = [version for version in phase if version.key not in stuck]
            self._remove_many([version for version in versions if version.version_id is not None], with_etags=False)
            current = [version for version in versions if version.version_id is None]
            if not current:
                continue
            if self._versioning == "Enabled" or self._condition != "etag":
                self._remove_many(current, with_etags=self._condition == "etag")
            elif not self._versioning and self._looks_at_etags(prefix):
                self._remove_many(current, with_etags=True)
            else:
                self._prove_condition(current)
                self._remove_singly(current, with_etags=True)

    def _looks_at_etags(self, prefix: str) -> bool:
        """Ask to remove an object that cannot be there under an ETag that it cannot have: whether that is an error.

        Only where there have never been versions; elsewhere a server may set a delete marker for it.
        """
        self._begin()
        key = f"{prefix}lowtide-ops-{uuid.uuid4().hex}"
        probe = Version(key, 0, NO_ETAG, self._bucket.server_time or datetime.now(UTC))
        try:
            answer = self._bucket.delete_versions([probe], with_etags=True)[0]
        except S3Error as error:
            if error.code in UNBULKED:
                return False
            raise
        return not answer.is_removed and answer.code != "Unanswered" and (answer.is_gone or answer.is_replaced)

    def _prove_condition(self, versions: t.Iterable[Version]) -> None:
        """Ask to remove an object that is there under an ETag that is not its own: a server that does so is left alone.

        versitygw answers as if it had done so for an object that is not there.
        """
        present = (version for version in versions if self._bucket.read_metadata(version) is not None)
        version = next(present, None)
        if version is None or not self._bucket.delete_version(version, etag=NO_ETAG).is_removed:
            return
        self.removal.removed.append(version)
        raise OpsError(
            obj=self._bucket.url(version.key),
            problem="it was due, and the server has removed it although another ETag was asked for: it ignores the"
            " condition If-Match, and an object that is replaced while this runs would be lost. No other was removed",
            next_step="Turn on versions for the bucket, or set condition to none where no object is ever written twice",
        )

    def _begin(self) -> None:
        if self._deadline.passed:
            raise OpsError(
                obj=f"bucket {self._bucket.name}",
                problem=f"the time of {self._deadline.seconds:.0f} s is over, and objects that are due are left",
                next_step="Run again: it goes on with what is left; or raise timeout",
            )
        self._before_write()

    def _remove_many(self, versions: t.Sequence[Version], *, with_etags: bool) -> None:
        """Remove versions, 1,000 by a request; those whose key no XML can hold one by one."""
        plain = [version for version in versions if fits_xml(version.key)]
        for start in range(0, len(plain), PAGE):
            self._remove_page(plain[start : start + PAGE], with_etags=with_etags)
        odd = [version for version in versions if not fits_xml(version.key)]
        self._remove_singly(odd, with_etags=with_etags)

    def _remove_page(self, page: t.Sequence[Version], *, with_etags: bool) -> None:
        backoff = Backoff(first=0.2)
        pending = list(page)
        for attempt in range(ATTEMPTS):
            self._begin()
            try:
                answers = self._bucket.delete_versions(pending, with_etags=with_etags)
            except S3Error as error:
                if error.code not in UNBULKED:
                    raise
                self._remove_singly(pending, with_etags=with_etags, was_tried=True, refusal=error)
                return
            is_last = attempt + 1 == ATTEMPTS
            unclear = [answer.version for answer in answers if answer.code == "Unanswered"]
            pending = [answer.version for answer in answers if answer.code in BUSY and not is_last]
            for answer in answers:
                if answer.code != "Unanswered" and (is_last or answer.code not in BUSY):
                    self.removal.add(answer, was_tried=attempt > 0)
            self._remove_singly(unclear, with_etags=with_etags, was_tried=True)
            if not pending:
                return
            self._deadline.pause(backoff.take_pause())

    def _remove_singly(
        self,
        versions: t.Sequence[Version],
        *,
        with_etags: bool,
        was_tried: bool = False,
        refusal: S3Error | None = None,
    ) -> None:
        """Remove versions by a request each, some at a time. Where none of a page may go, the others are left."""

        def remove(version: Version) -> Answer:
            self._begin()
            condition = version.etag if with_etags and version.version_id is None else None
            answer = self._bucket.delete_version(version, etag=condition)
            self.removal.add(answer, was_tried=was_tried)
            return answer

        with ThreadPoolExecutor(WORKERS) as pool:
            for start in range(0, len(versions), PAGE):
                answers = list(pool.map(remove, versions[start : start + PAGE]))
                is_locked = any("lock" in answer.message.lower() for answer in answers)
                is_denied = all(answer.code == "AccessDenied" for answer in answers) and not is_locked
                if is_denied and (refusal or start + PAGE < len(versions)):
                    raise refuse_denied(self._bucket, answers[0], len(answers))


def refuse_denied(bucket: VersionedBucket, answer: Answer, count: int) -> OpsError:
    """Return the error for credentials that may not remove anything."""
    return OpsError(
        obj=bucket.url(answer.version.key),
        problem=f"{answer.message}; it is the same for all {count} that were tried, and no others were",
        next_step="Grant these credentials s3:DeleteObject and s3:DeleteObjectVersion, see docs/s3-policy-expiry.json",
    )


def refuse_old_library(bucket: VersionedBucket, condition: str) -> None:
    """Refuse a condition that the installed botocore cannot send."""
    if condition == "etag" and not bucket.knows_conditions:
        raise Refusal(
            obj="Python library botocore",
            problem="it cannot send If-Match with a deletion; an object that is replaced while this runs would be lost",
            next_step="Install boto3 1.36 or newer, or set condition to none where no object is ever written twice",
        )
