"""A proxy in front of an S3 server that is slow, throttles, breaks off, or lists late, as it is told.

    python proxy.py PORT SERVER:PORT

`POST /-/faults` sets what is wrong from then on (JSON, fields of `Faults`), `GET /-/log` tells what was asked
since the last time. Standard library only: it runs on a host that has no code of ours.
"""

import http.client
import json
import random
import re
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Faults:
    """None by default."""

    delay_s: float = 0.0
    """Before each answer."""
    throttled: float = 0.0
    """Share of the requests that is answered by 503 SlowDown."""
    broken: float = 0.0
    """Share of the uploads that is broken off in the middle."""
    late_s: float = 0.0
    """Objects are in no list for so long after they were written."""


FAULTS = Faults()
LOG: list[dict[str, object]] = []
WRITTEN: dict[str, float] = {}
CHANCE = random.Random(0)
LOCK = threading.Lock()
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
PASSED = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        if self.path.startswith("/-/"):
            return self._told()
        began, faults = time.time(), FAULTS
        upload = self.command in {"PUT", "POST"}
        length = int(self.headers.get("Content-Length") or 0)
        with LOCK:
            throttled = CHANCE.random() < faults.throttled
            broken = upload and length > 0 and CHANCE.random() < faults.broken
        if broken:
            self.rfile.read(length // 2)
            self._note(began, 0)
            self.close_connection = True
            self.connection.close()
            return None
        body = self._body(length)
        time.sleep(faults.delay_s)
        if throttled:
            self._note(began, 503)
            return self._send(503, [("Content-Type", "application/xml")], SLOW_DOWN)
        status, headers, data = self._pass_on(body)
        key = unquote(urlsplit(self.path).path)
        if upload and status < 300:
            with LOCK:
                WRITTEN[key] = time.monotonic()
        if self.command == "GET" and b"<ListBucketResult" in data[:300] and faults.late_s:
            data = _without(data, key.strip("/"), faults.late_s)
        self._note(began, status)
        return self._send(status, headers, data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815  # the base class's names

    def _body(self, length: int) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(length)
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        local = threading.current_thread().__dict__
        server: http.client.HTTPConnection | None = local.get("server")
        for _ in range(2):  # a connection that lay idle may be closed
            if server is None:
                server = local["server"] = http.client.HTTPConnection(SERVER, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in PASSED and k != "Expect"}
            try:
                server.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
                answer = server.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            except (OSError, http.client.HTTPException):
                server.close()
                server = None
        return 500, [], b""

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response(status)
        length = next((v for k, v in headers if k.lower() == "content-length"), "0")
        for name, value in headers:
            if name.lower() not in PASSED:
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _note(self, began: float, status: int) -> None:
        path, query = urlsplit(self.path).path, urlsplit(self.path).query
        if "list-type" in query or "prefix" in parse_qs(query):
            path += "?list"
        with LOCK:
            LOG.append({
                "at": began, "took": time.time() - began, "from": self.client_address[0],
                "method": self.command, "path": unquote(path), "status": status,
            })  # fmt: skip

    def _told(self) -> None:
        global FAULTS
        body = self._body(int(self.headers.get("Content-Length") or 0))
        with LOCK:
            if self.command == "POST":
                FAULTS = Faults(**json.loads(body))
                CHANCE.seed(0)
                answer = b"{}"
            else:
                answer = json.dumps(LOG).encode()
                LOG.clear()
        self._send(200, [], answer)


def _without(data: bytes, bucket: str, late_s: float) -> bytes:
    """A list without the objects that were written just now."""
    with LOCK:
        young = {key for key, at in WRITTEN.items() if time.monotonic() - at < late_s}

    def kept(found: re.Match[bytes]) -> bytes:
        key = re.search(rb"<Key>(.*?)</Key>", found[0], re.DOTALL)
        name = f"/{bucket}/{unquote(key[1].decode())}" if key else ""
        return b"" if name in young else found[0]

    return re.sub(rb"<Contents>.*?</Contents>", kept, data, flags=re.DOTALL)


if __name__ == "__main__":
    PORT, SERVER = int(sys.argv[1]), sys.argv[2]
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever()
