# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patroni's REST interface. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from .._common.errors import OutcomeUnknown, Refusal
from .._common.retry import Deadline
from .._common.text import join_some
from .state import Cluster, Json, Member, Status

MAX_BYTES = 4 * 1024 * 1024
"""No answer is longer."""
DENIED = (401, 403)
PATIENT, AT_ONCE = "/patroni", "/health"
"""Both have a member's status in their body. For the first Patroni asks a PostgreSQL that does not answer again, with
pauses of a second, so that a server that starts is heard of late; not for the second (patroni/api.py, do_GET)."""
GRACE = 0.2
"""Seconds that one look waits for a member that was silent at the last one, beyond those that answer."""


class Answer(t.NamedTuple):
    """The status code and body of an answer, and who gave it."""

    code: int
    text: str
    url: str
    date: float | None = None
    """When it was given, by the clock of who gave it."""

    def parse(self) -> t.Any:
        """Return the JSON of the body, None if it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class NoAnswer(Exception):
    """Nobody answered in time; ``was_sent`` unless the request certainly did not arrive."""

    def __init__(self, text: str, *, was_sent: bool = True) -> None:
        super().__init__(text)
        self.was_sent = was_sent


class Question(threading.Thread):
    """A question to one member that nobody has to wait for: its thread ends with the process."""

    def __init__(self, ask: t.Callable[[str], Status], url: str) -> None:
        super().__init__(daemon=True)
        self._ask, self._url = ask, url
        self.status = Status(error="its REST interface has not answered yet")
        self.problem: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Keep the answer, or what went wrong."""
        try:
            self.status = self._ask(self._url)
        except BaseException as error:  # pylint: disable=broad-exception-caught
            self.problem = error

    @property
    def is_answered(self) -> bool:
        """Whether the member has said something of itself."""
        return not self.is_alive() and self.problem is None and not self.status.error

    def get(self) -> Status:
        """Return the answer. Raises what the question has raised."""
        if self.problem is not None:
            raise self.problem
        return self.status


class Client:
    """The members of a cluster behind their REST interfaces; any of them answers for the whole."""

    def __init__(
        self,
        urls: t.Sequence[str],
        *,
        username: str | None = None,
        password: str | None = None,
        password_file: str | None = None,
        ca_path: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        validate_certs: bool = True,
        request_timeout: float = 5.0,
    ) -> None:
        self.urls = [check_url(url) for url in urls]
        if not self.urls:
            raise Refusal(obj="option urls", problem="it is empty", next_step="Give the REST address of each member")
        self.request_timeout = request_timeout
        self._clock_offset = 0.0
        self.validate_certs = validate_certs
        self._headers = {"User-Agent": "lowtide.ops", **_make_authorization(username, password, password_file)}
        self._opener = _make_opener(ca_path, client_cert, client_key, validate_certs=validate_certs)
        self._silent: dict[str, Status] = {}
        self._open_questions: dict[str, Question] = {}

    @property
    def now(self) -> float:
        """Return the time by the clock of the member that has answered last, to a second."""
        return time.time() + self._clock_offset

    def send(
        self, url: str, path: str, *, method: str = "GET", body: Json | None = None, timeout: float | None = None
    ) -> Answer:
        """Return the answer of one member, whatever its status code. Raises NoAnswer where there is none."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({} if data is None else {"Content-Type": "application/json"})}
        request = Request(f"{url}{path}", data=data, headers=headers, method=method)  # noqa: S310 (check_url)
        try:
            with self._opener.open(request, timeout=timeout or self.request_timeout) as response:
                text = response.read(MAX_BYTES).decode("utf-8", "replace")
                date = _read_date(response.headers)
                self._clock_offset = 0.0 if date is None else date - time.time()
                return Answer(response.status, text, url, date)
        except HTTPError as error:
            return Answer(error.code, _read_error(error), url, _read_date(error.headers))
        except URLError as error:
            refused = isinstance(error.reason, (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError))
            raise NoAnswer(f"{url}: {error.reason}", was_sent=not refused) from error
        except (OSError, HTTPException) as error:
            raise NoAnswer(f"{url}: {str(error) or type(error).__name__}") from error

    def read(self, path: str, *, urls: t.Sequence[str] = ()) -> Json:
        """Return the JSON that the first member which has it gives. Raises Refusal where none does."""
        problems = []
        for url in urls or self.urls:
            try:
                answer = self.send(url, path)
            except NoAnswer as error:
                problems.append(str(error))
                continue
            self.check_allowed(answer)
            document = answer.parse()
            if answer.code == 200 and isinstance(document, dict):
                # Who has answered is asked first from now on.
                self.urls.sort(key=lambda known: known != url)
                return document
            problems.append(f"{url}: {answer.code} {join_some(answer.text.split()[:12], limit=12)}")
        raise Unreadable(path, problems)

    def read_status(self, url: str, path: str = PATIENT) -> Status:
        """Return what a member says of itself, or why it does not."""
        if not is_address(url):
            return Status(error="it has published no address of its REST interface")
        try:
            answer = self.send(url, path)
        except NoAnswer as error:
            return Status(error=f"its REST interface does not answer ({error})")
        document = answer.parse()
        if not isinstance(document, dict):
            return Status(error=f"{url} answers {answer.code} and nothing that Patroni would say")
        return Status.from_answer(document, answer.date)

    def read_statuses(self, urls: t.Sequence[str], path: str = PATIENT) -> list[Status]:
        """Return what each of these says of itself, all asked at once.

        Who was silent at the last look is waited for only ``GRACE`` longer than for the others, so that one host that
        drops packets does not slow each look down. Its question goes on; once that has been answered it is not silent
        any more: it is asked anew, and waited for as the others are.
        """
        ask = partial(self.read_status, path=path)
        for url in [url for url, question in self._open_questions.items() if question.is_answered]:
            del self._open_questions[url]
            self._silent.pop(url, None)
        questions = {url: Question(ask, url) for url in {*urls} if url not in self._silent}
        for url in self._silent.keys() & {*urls}:
            waiting = self._open_questions.get(url)
            self._open_questions[url] = waiting if waiting and waiting.is_alive() else Question(ask, url)
        for question in questions.values():
            question.join()
        patience = Deadline(GRACE)
        statuses = {url: question.get() for url, question in questions.items()}
        for url in self._silent.keys() & {*urls}:
            question = self._open_questions[url]
            question.join(patience.remaining)
            statuses[url] = self._silent[url] if question.is_alive() else question.get()
        for url, status in statuses.items():
            if status.error:
                self._silent[url] = status
            else:
                self._silent.pop(url, None)
        return [statuses[url] for url in urls]

    def list_answers(self) -> list[str]:
        """Return how each address shows that somebody is there: an answer of any kind, or only a connection."""
        with ThreadPoolExecutor(max_workers=min(16, len(self.urls))) as pool:
            return [answer for answer in pool.map(self._describe_answer, self.urls) if answer]

    def list_silent(self) -> list[str]:
        """Return why each address that does not answer as a member of Patroni does not."""
        urls = list(self.urls)
        pairs = zip(urls, self.read_statuses(urls), strict=True)
        return [f"{url}: {status.error}" for url, status in pairs if status.error]

    def _describe_answer(self, url: str) -> str:
        """Return what an address answers, empty where no connection to it can be made."""
        try:
            return f"{url} answers {self.send(url, '/patroni').code}"
        except NoAnswer as error:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            try:
                socket.create_connection((str(parts.hostname), port), self.request_timeout).close()
            except OSError:
                return ""
            return f"{url} takes connections ({error})"

    def read_cluster(self, config: Json | None = None) -> Cluster:
        """Return the cluster as the DCS and each member have it now.

        With ``config`` given this is one look of many: that is not read again, and members say at once what they know.
        """
        path = PATIENT if config is None else AT_ONCE
        document = self.read("/cluster")
        config = self.read("/config") if config is None else config
        entries = [entry for entry in document.get("members") or [] if isinstance(entry, dict) and entry.get("name")]
        if not entries:
            raise Refusal(
                obj=self.urls[0],
                problem="/cluster has no member, so that this is no Patroni cluster that was ever ready",
                next_step="Correct urls, or look at the log of Patroni there",
            )
        urls = [strip_api_url(entry.get("api_url")) for entry in entries]
        check_addresses([str(entry["name"]) for entry in entries], urls)
        statuses = self.read_statuses(urls, path)
        for entry, url, status in zip(entries, urls, statuses, strict=True):
            check_name(str(entry["name"]), url, status)
        return Cluster(
            members=tuple(Member.from_answer(entry, status) for entry, status in zip(entries, statuses, strict=True)),
            paused=bool(document.get("pause")),
            config=config,
            scheduled_switchover=dict(document.get("scheduled_switchover") or {}),
        )

    def write(self, path: str, body: Json, *, method: str = "POST", url: str = "", timeout: float) -> Answer:
        """Send a write once, to ``url`` or to the first member that can be reached.

        Raises OutcomeUnknown where it may have arrived and no answer came.
        """
        problems = []
        for address in [url] if url else self.urls:
            try:
                answer = self.send(address, path, method=method, body=body, timeout=timeout)
            except NoAnswer as error:
                problems.append(str(error))
                if error.was_sent:
                    raise OutcomeUnknown(
                        obj=f"{method} {path}",
                        problem=f"no answer came: {error}",
                        next_step="Look at /cluster before anything is sent again",
                    ) from error
                continue
            self.check_allowed(answer)
            return answer
        raise Unreadable(path, problems)

    def check_allowed(self, answer: Answer) -> None:
        """Raise Refusal where the credentials are not accepted."""
        if answer.code in DENIED:
            raise Refusal(
                obj=answer.url,
                problem=f"it answers {answer.code} {answer.text[:200].strip()}",
                next_step="Correct username and password (restapi.authentication), client_cert and client_key"
                " (restapi.verify_client), or add this host to restapi.allowlist",
            )


class Unreadable(Refusal):
    """No member gave what was asked for."""

    def __init__(self, path: str, problems: t.Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__(
            obj="Patroni's REST interface",
            problem=f"no member answers {path}: {'; '.join(problems)}",
            next_step="Look whether Patroni runs there, and correct urls, ca_path and client_cert",
        )


def check_addresses(names: t.Sequence[str], urls: t.Sequence[str]) -> None:
    """Raise Refusal where two members have published one address: one of them would be taken for the other."""
    for name, url in zip(names, urls, strict=True):
        others = [other for other, its in zip(names, urls, strict=True) if its == url and other != name]
        if others and is_address(url):
            raise Refusal(
                obj=f"member {name}",
                problem=f"{' and '.join(others)} has published the same address of its REST interface, {url}, so that"
                " nobody can say which of them answers",
                next_step="Set restapi.connect_address of each member to its own address, not to 127.0.0.1, 0.0.0.0 or"
                " that of a proxy, and reload Patroni",
            )


def check_name(name: str, url: str, status: Status) -> None:
    """Raise Refusal where another member answers than the one that has published the address."""
    if status.name and status.name != name:
        raise Refusal(
            obj=f"member {name}",
            problem=f"it has published {url}, and {status.name} answers there",
            next_step="Set restapi.connect_address of each member to its own address, and reload Patroni",
        )


def is_address(url: str) -> bool:
    """Return whether this is an address at all: a member may have published none."""
    return url.startswith(("http://", "https://"))


def check_url(url: str) -> str:
    """Return an address without what follows host and port. Raises Refusal for what is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise Refusal(
            obj="option urls",
            problem=f"{url!r} is not an address of the shape https://host:8008",
            next_step="Give the REST address of each member (restapi.connect_address)",
        )
    if parts.username or parts.password:
        raise Refusal(
            obj="option urls",
            problem="an address has a login in it, which would be in messages",
            next_step="Give username and password_file",
        )
    return f"{parts.scheme}://{parts.netloc}"


def strip_api_url(api_url: t.Any) -> str:
    """Return the address of a member's REST interface from its api_url, which ends in /patroni."""
    parts = urlsplit(str(api_url or ""))
    return f"{parts.scheme}://{parts.netloc}"


def _make_authorization(username: str | None, password: str | None, password_file: str | None) -> dict[str, str]:
    if password_file:
        try:
            password = Path(password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal(
                obj=f"password_file {password_file}",
                problem=f"it cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}",
                next_step="Correct the path, or its permissions",
            ) from error
    if not username:
        return {}
    login = base64.b64encode(f"{username}:{password or ''}".encode()).decode()
    return {"Authorization": f"Basic {login}"}


class _NoRedirects(HTTPRedirectHandler):
    """A password is for the server that was named, not for another one."""

    def redirect_request(self, *_arguments: t.Any) -> None:
        """Return no request, so that the answer is an error."""


def _make_opener(
    ca_path: str | None, client_cert: str | None, client_key: str | None, *, validate_certs: bool
) -> OpenerDirector:
    try:
        context = ssl.create_default_context(cafile=ca_path)
    except (OSError, ssl.SSLError) as error:
        raise Refusal(
            obj=f"ca_path {ca_path}",
            problem=f"it cannot be read as certificates: {error}",
            next_step="Give a file of certificates in PEM",
        ) from error
    if client_cert:
        try:
            context.load_cert_chain(client_cert, client_key)
        except (OSError, ssl.SSLError) as error:
            raise Refusal(
                obj=f"client_cert {client_cert}",
                problem=f"it cannot be used with client_key {client_key}: {error}",
                next_step="Give a certificate and its key without a passphrase, both in PEM",
            ) from error
    if not validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return build_opener(HTTPSHandler(context=context), _NoRedirects())


def _read_date(headers: t.Any) -> float | None:
    try:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    except (TypeError, ValueError):
        return None


def _read_error(error: HTTPError) -> str:
    try:
        return error.read(MAX_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException):
        return str(error.reason)
