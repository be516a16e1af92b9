"""A server for one page on this machine, which answers that page and nothing else.

It listens on 127.0.0.1. A page of another site in the same browser can reach that address too. Every request therefore
has to name it as its host (no DNS rebinding), and has to come from no other origin. It has to bring a token, too, that
only the address printed on the terminal has.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tzk_core.errors import TzkError

ADDRESS = "127.0.0.1"
LARGEST = 20_000_000
"""Bytes of a request."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class PageServer(ThreadingHTTPServer):
    """A server of `page` at /.

    It answers POSTs of JSON at the paths of `answers`, one at a time.

    Args:
        port: 0 takes one that is free.
    """

    daemon_threads = True

    def __init__(self, page: str, answers: Mapping[str, Answer], port: int = 0) -> None:
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise TzkError(f"port {port} of {ADDRESS} cannot be used: {error}; --port 0 takes a free one") from error
        self.page = page.encode()
        self.answers = answers
        self.token = secrets.token_urlsafe(24)
        self.turn = threading.Lock()

    @property
    def hosts(self) -> tuple[str, str]:
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"

    @property
    def url(self) -> str:
        """The address with the token that opens it."""
        return f"http://{self.hosts[0]}/?token={self.token}"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "tzk", ""
    timeout = 60

    def do_GET(self) -> None:
        """The page, for who has the token."""
        url = urlsplit(self.path)
        if not self._is_ours(parse_qs(url.query).get("token", [""])[0]):
            return
        if url.path != "/":
            self._refuse(404, "there is no such page")
            return
        self._send(200, self.server.page, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """An answer of the model."""
        if not self._is_ours(self.headers.get("X-TzK-Token", "")):
            return
        answer = self.server.answers.get(urlsplit(self.path).path)
        if answer is None:
            self._refuse(404, "there is no such question")
            return
        try:
            asked = self._asked()
            with self.server.turn:
                answered = answer(asked)
        except TzkError as error:
            self._refuse(400, str(error))
        except Exception as error:  # the server goes on
            self._refuse(500, f"{type(error).__name__}: {error}")
        else:
            self._send(200, json.dumps(answered).encode(), "application/json")

    def _is_ours(self, token: str) -> bool:
        """Whether a request comes from the page that we served; else it is refused."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host not in self.server.hosts:
            self._refuse(403, f"this server is {self.server.hosts[0]} and no other")
        elif origin is not None and origin not in [f"http://{name}" for name in self.server.hosts]:
            self._refuse(403, "pages of other sites are not answered")
        elif not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(403, "the token is missing or wrong: open the address that the terminal shows")
        else:
            return True
        return False

    def _asked(self) -> Mapping[str, Any]:
        """The JSON object of the request.

        Raises:
            TzkError: if it is none, or too large.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST:
            raise TzkError(f"expected at most {LARGEST:,} bytes, with their number in Content-Length")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise TzkError(f"expected JSON: {error}") from None
        if not isinstance(asked, dict):
            raise TzkError("expected a JSON object")
        return asked

    def _refuse(self, status: int, reason: str) -> None:
        self.close_connection = True  # what else was sent is not read
        self._send(status, json.dumps({"error": reason}).encode(), "application/json")

    def _send(self, status: int, content: bytes, mime: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": mime, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        """Nothing: the terminal is for the address."""


def decoded_file(asked: Mapping[str, Any]) -> bytes:
    """The bytes under "content", in base 64.

    Raises:
        TzkError: if there are none.
    """
    try:
        return base64.b64decode(asked.get("content", ""), validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise TzkError(f"content: expected a file in base 64: {error}") from None
