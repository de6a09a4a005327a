# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Signatures, credentials, XML answers and TLS of the S3 reader."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._s3.api import Reader
from ansible_collections.lowtide.ops.plugins.module_utils._s3.connection import Connection, resolve_credentials
from ansible_collections.lowtide.ops.plugins.module_utils._s3.errors import S3Error
from ansible_collections.lowtide.ops.plugins.module_utils._s3.parse import error_of, objects_page
from ansible_collections.lowtide.ops.plugins.module_utils._s3.signing import Credentials, encode, query_string, sign

OPTIONS = {"access_key": None, "secret_key": None, "session_token": None, "credentials_file": None, "profile": None}


def test_the_documented_example_gets_the_documented_signature() -> None:
    """Amazon S3 API reference, "Signature Calculations for the Authorization Header", example GET Object."""
    headers = sign(
        method="GET",
        host="examplebucket.s3.amazonaws.com",
        path="/test.txt",
        query={},
        headers={"Range": "bytes=0-9"},
        credentials=Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        region="us-east-1",
        moment=datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert headers["authorization"].endswith(
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    st.sampled_from([None, "to/ken=="]),
)
def test_signatures_are_those_of_botocore(key: str, prefix: str, token: str | None) -> None:
    """On any key, query and token."""

    path, query = "/bucket/" + encode(key, safe="/"), {"list-type": "2", "prefix": prefix}
    request = botocore.awsrequest.AWSRequest(
        "GET", f"http://10.77.0.1:7070{path}?{query_string(query)}", headers={"host": "10.77.0.1:7070"}
    )
    signer = botocore.auth.S3SigV4Auth(botocore.credentials.Credentials("AKID", "secret", token), "s3", "eu-x-1")
    request.context["client_config"] = None
    signer.add_auth(request)
    moment = datetime.strptime(request.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    headers = sign(
        method="GET",
        host="10.77.0.1:7070",
        path=path,
        query=query,
        headers={},
        credentials=Credentials("AKID", "secret", token),
        region="eu-x-1",
        moment=moment,
        payload_sha256=request.headers["X-Amz-Content-SHA256"],
    )
    assert headers["authorization"] == request.headers["Authorization"]


def test_credentials_show_nothing() -> None:
    """Not even in a traceback."""
    assert "secret" not in repr(Credentials("key", "secret", "token"))


def test_credentials_in_order(tmp_path: Path) -> None:
    """Options, then the named profile, then the environment, then the default file."""
    file = tmp_path / "keys"
    file.write_text(
        "[default]\naws_access_key_id = fd\naws_secret_access_key = s\n[other]\naws_access_key_id=fo\naws_secret_access_key=s\naws_session_token=t\n"
    )
    environ = {"AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    cases = [
        ({"access_key": "opt", "secret_key": "s", "profile": "other"}, "opt"),
        ({"profile": "other"}, "fo"),
        ({"credentials_file": str(file)}, "fd"),
        ({}, "env"),
    ]
    for options, expected in cases:
        found, refreshable = resolve_credentials(OPTIONS | options, environ)
        assert (found.access_key, refreshable) == (expected, False)
    without = {name: value for name, value in environ.items() if "KEY" not in name}
    assert resolve_credentials(OPTIONS, without)[0].access_key == "fd"
    assert resolve_credentials(OPTIONS | {"profile": "other"}, without)[0] == Credentials("fo", "s", "t")


def test_a_broken_credentials_file_is_refused_without_its_text(tmp_path: Path) -> None:
    """The line that cannot be parsed may be the secret."""
    file = tmp_path / "keys"
    file.write_text("canary-secret\n")
    with pytest.raises(Refusal) as caught:
        resolve_credentials(OPTIONS | {"credentials_file": str(file)}, {})
    assert str(file) in str(caught.value)
    assert "canary" not in str(caught.value)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), max_size=5), st.booleans())
def test_listed_keys_are_byte_exact(names: list[str], plus: bool) -> None:
    """Spaces come as ``+`` from some servers and as ``%20`` from others."""
    entries = "".join(
        f"<Contents><Key>{quote(name, safe='').replace('%20', '+') if plus else quote(name, safe='')}</Key><Size>3</Size><ETag>&quot;e&quot;</ETag></Contents>"
        for name in names
    )
    body = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>'
    found, following = objects_page(body.encode())
    assert [one.key for one in found] == names
    assert [(one.size, one.etag) for one in found] == [(3, "e")] * len(names)
    assert following is None


def test_an_answer_that_is_no_listing_is_an_error() -> None:
    """A proxy's page, for one."""
    for body in (b"<html><body>hello</body></html>", b"not xml", b""):
        with pytest.raises(OpsError, match="endpoint_url"):
            objects_page(body)
        assert error_of(body)[0] == ""


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A fake S3 server with a self-signed certificate for ``localhost``: an empty listing for everybody."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is http.server's
            body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.server_address[1], certificate
    server.shutdown()
    server.server_close()


def reader(url: str, *, ca_bundle: str | None = None, validate_certs: bool = True) -> Reader:
    """A reader of any bucket at ``url``."""
    connection = Connection(
        endpoint_url=url,
        region="us-east-1",
        credentials=Credentials("k", "s"),
        ca_bundle=ca_bundle,
        validate_certs=validate_certs,
    )
    return Reader(connection, "bucket", sleep=lambda _seconds: None)


def test_tls_is_verified(tls_server: tuple[int, Path]) -> None:
    """Self-signed and wrong name are refused, once and not retried; the authority or an explicit no makes it work."""
    port, certificate = tls_server
    for url, ca_bundle in ((f"https://localhost:{port}", None), (f"https://127.0.0.1:{port}", str(certificate))):
        refused = reader(url, ca_bundle=ca_bundle)
        with pytest.raises(S3Error, match="TLS certificate is not trusted") as caught:
            refused.objects("")
        assert "ca_bundle" in caught.value.next_step
        assert refused.requests == 1
    assert reader(f"https://localhost:{port}", ca_bundle=str(certificate)).objects("") == []
    assert reader(f"https://127.0.0.1:{port}", validate_certs=False).objects("") == []


def test_clear_text_and_tls_mixed_up_is_said(tls_server: tuple[int, Path]) -> None:
    """Bounded attempts, and the endpoint in the message."""
    port, _certificate = tls_server
    with pytest.raises(S3Error, match=f"http://127.0.0.1:{port}"):
        reader(f"http://127.0.0.1:{port}").objects("")
