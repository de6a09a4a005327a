# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""versitygw's restricted account and locked bucket, and what makes it answer as other servers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from labkit.versitygw_setup import connect, create_account, delete_account, make_policy, read_keys

from support.credential_source_stand_in import CredentialSourceStandIn
from support.s3_proxy import Fault, Request, s3_proxy
from support.s3_servers import (
    ExpiringKeys,
    apply_first,
    break_lists,
    deny_deletion,
    ignore_ranges,
    leave_out_length,
    name_key_by_arn,
    require_content_md5,
)

pytestmark = pytest.mark.lab("versitygw")
Json = dict[str, Any]
NO_RETRIES = Config(retries={"total_max_attempts": 1})


@pytest.fixture
def facts(lab: Json) -> Json:
    """The server's facts."""
    found: Json = lab["versitygw"]
    return found


@pytest.fixture
def client(facts: Json) -> Any:
    """A client that may do all."""
    return connect(facts["endpoint_url"], read_keys(facts["credentials_file"]))


@pytest.fixture
def appender(facts: Json) -> Any:
    """A client that may not delete."""
    return connect(facts["endpoint_url"], read_keys(facts["append_only"]["credentials_file"]))


@pytest.fixture
def bucket(client: Any, unique_name: Callable[..., str]) -> Iterator[str]:
    """A bucket of the test with two objects."""
    name = unique_name("s3").lower()
    client.create_bucket(Bucket=name)
    for key in ("a", "b/c"):
        client.put_object(Bucket=name, Key=key, Body=b"0123456789")
    yield name
    for entry in client.list_objects_v2(Bucket=name).get("Contents", []):
        client.delete_object(Bucket=name, Key=entry["Key"])
    client.delete_bucket(Bucket=name)


def read_refusal(call: Callable[[], object]) -> tuple[int, str]:
    """Status and code by which a call is refused."""
    with pytest.raises(ClientError) as refused:
        call()
    response = refused.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def connect_through(facts: Json, url: str) -> Any:
    """A client that may do all, through a proxy, which asks once."""
    keys = read_keys(facts["credentials_file"])
    session = boto3.Session(keys.access_key, keys.secret_key)
    return session.client("s3", endpoint_url=url, region_name=facts["region"], config=NO_RETRIES)


def test_append_only_account(facts: Json, client: Any, appender: Any, unique_name: Callable[..., str]) -> None:
    """It writes, reads, lists, ends and aborts uploads, and deletes nothing; it has no other bucket."""
    bucket, key = facts["append_only"]["bucket"], unique_name("key")
    appender.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert appender.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
    listed = appender.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]
    assert [entry["Key"] for entry in listed] == [key]
    upload = appender.create_multipart_upload(Bucket=bucket, Key=f"{key}-2")["UploadId"]
    part = {"Bucket": bucket, "Key": f"{key}-2", "UploadId": upload}
    appender.upload_part(**part, PartNumber=1, Body=b"y")
    assert len(appender.list_multipart_uploads(Bucket=bucket, Prefix=key)["Uploads"]) == 1
    appender.abort_multipart_upload(**part)
    assert read_refusal(lambda: appender.delete_object(Bucket=bucket, Key=key)) == (403, "AccessDenied")
    several = {"Objects": [{"Key": key}]}
    assert read_refusal(lambda: appender.delete_objects(Bucket=bucket, Delete=several)) == (403, "AccessDenied")
    assert read_refusal(lambda: appender.create_bucket(Bucket=unique_name("other"))) == (403, "AccessDenied")
    client.delete_object(Bucket=bucket, Key=key)


def test_policy_on_a_bucket_of_a_test(facts: Json, client: Any, appender: Any, bucket: str) -> None:
    """Each test can give the account a bucket."""
    assert read_refusal(lambda: appender.get_object(Bucket=bucket, Key="a")) == (403, "AccessDenied")
    client.put_bucket_policy(Bucket=bucket, Policy=make_policy(bucket, facts["append_only"]["access_key"]))
    assert appender.get_object(Bucket=bucket, Key="a")["Body"].read() == b"0123456789"
    assert read_refusal(lambda: appender.delete_object(Bucket=bucket, Key="a")) == (403, "AccessDenied")


def test_locked_bucket(facts: Json, client: Any, unique_name: Callable[..., str]) -> None:
    """Deleting an object there hides it; the version stays, also for who may do all."""
    bucket, key = facts["locked_bucket"], unique_name("key")
    version = client.put_object(Bucket=bucket, Key=key, Body=b"x")["VersionId"]
    client.delete_object(Bucket=bucket, Key=key)
    refusal = read_refusal(lambda: client.delete_object(Bucket=bucket, Key=key, VersionId=version))
    assert refusal == (403, "AccessDenied")
    assert client.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read() == b"x"


def test_deleted_account(facts: Json, client: Any) -> None:
    """What was made for a test is refused at once when it is gone."""
    root = read_keys(facts["credentials_file"])
    keys = read_keys(facts["credentials_file"])
    keys.access_key, keys.secret_key = "LABGONE", "not a secret"
    create_account(facts["endpoint_url"], root, keys, role="admin")
    gone = connect(facts["endpoint_url"], keys)
    assert len(gone.list_buckets()["Buckets"]) == len(client.list_buckets()["Buckets"])
    delete_account(facts["endpoint_url"], root, keys.access_key)
    assert read_refusal(gone.list_buckets) == (403, "InvalidAccessKeyId")


@pytest.mark.parametrize(
    ("lifetime", "fetched", "refusal"), [(timedelta(hours=1), 1, "InvalidAccessKeyId"), (timedelta(seconds=30), 3, "")]
)
def test_credentials_that_expire(
    facts: Json, bucket: str, monkeypatch: pytest.MonkeyPatch, *, lifetime: timedelta, fetched: int, refusal: str
) -> None:
    """The SDK takes them from the source, and where they are short new ones for each request; the server refuses those
    that are over."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with CredentialSourceStandIn(facts, lifetime=lifetime) as source:
        for name, value in source.environment.items():
            monkeypatch.setenv(name, value)
        client: Any = boto3.Session().client("s3", endpoint_url=facts["endpoint_url"], region_name="us-east-1")
        for _number in range(2):
            assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"0123456789"
        assert len(source.issued) == fetched, "one for the client, then one for each request"
        source.expire()
        if refusal:
            assert read_refusal(lambda: client.get_object(Bucket=bucket, Key="a")) == (403, refusal)
        else:
            assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"0123456789"


def test_server_that_wants_content_md5(facts: Json, bucket: str) -> None:
    """Objects are deleted one by one there, not several at once."""
    with s3_proxy(facts["endpoint_url"], require_content_md5) as proxy:
        client = connect_through(facts, proxy.url)
        several = {"Objects": [{"Key": "a"}]}
        refusal = read_refusal(lambda: client.delete_objects(Bucket=bucket, Delete=several))
        assert refusal == (400, "MissingContentMD5")
        client.delete_object(Bucket=bucket, Key="a")
        assert [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["b/c"]


def test_server_that_denies_deletion(facts: Json, bucket: str) -> None:
    """Each object's deletion is refused, of several in the answer; an upload is aborted all the same."""
    with s3_proxy(facts["endpoint_url"], deny_deletion) as proxy:
        client = connect_through(facts, proxy.url)
        assert read_refusal(lambda: client.delete_object(Bucket=bucket, Key="b/c")) == (403, "AccessDenied")
        errors = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "b/c"}]})["Errors"]
        assert [(error["Key"], error["Code"]) for error in errors] == [("a", "AccessDenied"), ("b/c", "AccessDenied")]
        upload = client.create_multipart_upload(Bucket=bucket, Key="d")["UploadId"]
        client.abort_multipart_upload(Bucket=bucket, Key="d", UploadId=upload)
        assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 2


def test_keys_that_expire_after_some_requests(facts: Json, bucket: str) -> None:
    """Counted by key; the first requests succeed."""
    keys = ExpiringKeys(2)
    with s3_proxy(facts["endpoint_url"], keys) as proxy:
        client = connect_through(facts, proxy.url)
        for _number in range(2):
            client.get_object(Bucket=bucket, Key="a")["Body"].read()
        assert read_refusal(lambda: client.get_object(Bucket=bucket, Key="a")) == (400, "ExpiredToken")
    assert dict(keys.requests) == {read_keys(facts["credentials_file"]).access_key: 3}


def test_server_without_ranges(facts: Json, client: Any, bucket: str) -> None:
    """It answers with the whole object, and says so by its status."""
    with s3_proxy(facts["endpoint_url"], ignore_ranges(client)) as proxy:
        answer = connect_through(facts, proxy.url).get_object(Bucket=bucket, Key="a", Range="bytes=5-")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert answer["Body"].read() == b"0123456789"


def test_server_without_lengths(facts: Json, bucket: str) -> None:
    """The object comes whole, and nothing says beforehand how long it is."""
    with s3_proxy(facts["endpoint_url"], leave_out_length) as proxy:
        answer = connect_through(facts, proxy.url).get_object(Bucket=bucket, Key="a")
        assert "ContentLength" not in answer
        assert answer["Body"].read() == b"0123456789"


def test_server_with_broken_lists(facts: Json, bucket: str) -> None:
    """There is more, and no way to it."""
    with s3_proxy(facts["endpoint_url"], break_lists) as proxy:
        answer = connect_through(facts, proxy.url).list_objects_v2(Bucket=bucket)
        assert answer["IsTruncated"]
        assert "NextContinuationToken" not in answer


def test_server_that_names_a_key_by_its_arn(facts: Json, bucket: str) -> None:
    """Whatever the key was called by the client."""
    arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    with s3_proxy(facts["endpoint_url"], name_key_by_arn(arn)) as proxy:
        answer = connect_through(facts, proxy.url).head_object(Bucket=bucket, Key="a")
        assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", arn)


def test_rules_together(facts: Json, bucket: str) -> None:
    """The first that has something to say decides; the others have seen the request."""
    keys = ExpiringKeys(1)
    seen: list[Request] = []

    def keep(request: Request) -> Fault | None:
        seen.append(request)
        return None

    with s3_proxy(facts["endpoint_url"], apply_first(keep, deny_deletion, keys)) as proxy:
        client = connect_through(facts, proxy.url)
        assert read_refusal(lambda: client.delete_object(Bucket=bucket, Key="a")) == (403, "AccessDenied")
        assert read_refusal(lambda: client.get_object(Bucket=bucket, Key="a")) == (400, "ExpiredToken")
    assert [request.method for request in seen] == ["DELETE", "GET"]
