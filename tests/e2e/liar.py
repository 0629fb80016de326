"""A JSON-RPC proxy before a real node that leaves logs out, limits the rate, or shows an older chain."""

import json
import threading
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

Call = dict[str, Any]
LOGS: Final = "eth_getLogs"
RECEIPTS: Final = "eth_getBlockReceipts"


class Liar:
    """Answers what the node answers, after `change` has been at it.

    Args:
        target: the node.

    Attributes:
        change: gets each call and its answer, and gives the answer that is sent.
        refuse: with this HTTP status, while it is set.
        asked: methods that were asked for.
    """

    def __init__(self, target: str) -> None:
        self.change: Callable[[Call, Call], Call] = lambda _call, answer: answer
        self.refuse = 0
        self.asked: list[str] = []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = liar._answer(target, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_words: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _answer(self, target: str, body: bytes) -> tuple[int, bytes]:
        if self.refuse:
            return self.refuse, b'{"error":"no"}'
        request = urllib.request.Request(target, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            answers = json.load(reply)
        calls = json.loads(body)
        if isinstance(calls, list):
            by_id = {answer["id"]: answer for answer in answers}
            return 200, json.dumps([self._told(call, by_id[call["id"]]) for call in calls]).encode()
        return 200, json.dumps(self._told(calls, answers)).encode()

    def _told(self, call: Call, answer: Call) -> Call:
        self.asked.append(call["method"])
        return self.change(call, answer)


def without_last_log(call: Call, answer: Call) -> Call:
    """`eth_getLogs` of one block loses its last log."""
    if call["method"] == LOGS and "blockHash" in call["params"][0] and answer.get("result"):
        return {**answer, "result": answer["result"][:-1]}
    return answer


def without_logs(call: Call, answer: Call) -> Call:
    """`eth_getLogs` knows nothing."""
    return {**answer, "result": []} if call["method"] == LOGS else answer
