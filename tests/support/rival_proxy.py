# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let another writer act at one exact moment: between two requests of a client to a real Kubernetes API server.

``KubernetesProxy`` injects faults; this one injects rivals, and can speak to the server as a restricted account.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .http_proxy import ApiProxy, Exchange, choose_headers


@dataclass
class Rival:
    """Acts before a request with this method whose path ends in ``path`` reaches the server, or after it was answered.

    It acts ``times`` times; the request, or its answer, waits for it. A rival that raises CutOffError keeps the request
    from the server, or the answer from the client.
    """

    method: str
    path: str
    act: Callable[[], object]
    when: str = "before"
    times: int = 1


class RivalProxy(ApiProxy):
    """Passes requests on, as the lab's administrator or with ``token``.

    ``answers`` has paths that it answers by itself, each with a status. While it ``is_silent``, watches are begun and
    then pass on nothing, as on a connection that one side has forgotten.
    """

    def __init__(
        self, facts: Mapping[str, Any], *rivals: Rival, token: str = "", answers: Mapping[str, int] | None = None
    ) -> None:
        self.rivals = list(rivals)
        self.answers = dict(answers or {})
        self.is_silent = False
        super().__init__(facts["kubeconfig"], token=token)

    def respond(self, exchange: Exchange) -> None:
        """Pass it on between the rivals' actions."""
        status = self.answers.get(urlsplit(exchange.path).path)
        if status is not None:
            exchange.answer_status(status, "answered by a test", {})
            return
        self._let_rivals_act(exchange, "before")
        with self.ask_server(exchange) as response:
            if exchange.is_watch and response.status == http.client.OK:
                exchange.stream(self._list_events(exchange, response))
                return
            content = response.read()
            self._let_rivals_act(exchange, "after")
            exchange.answer(response.status, content, choose_headers(response))

    def _let_rivals_act(self, exchange: Exchange, when: str) -> None:
        """Have every rival act whose moment this is."""
        moment, path = (exchange.command, when), urlsplit(exchange.path).path
        for rival in self.rivals:
            with self.lock:
                is_due = rival.times > 0 and (rival.method, rival.when) == moment and path.endswith(rival.path)
                rival.times -= is_due
            if is_due:
                rival.act()

    def _list_events(self, exchange: Exchange, response: http.client.HTTPResponse) -> Iterator[bytes]:
        if self.is_silent:
            exchange.rfile.read(1)  # until the client closes the connection
        else:
            yield from response
