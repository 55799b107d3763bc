"""A local server with as much of Google Cloud Storage's JSON API as TensorStore's gcs driver uses: objects with generations,
their preconditions, byte ranges and listings in pages. After Google's reference; it has never been held against the real one.
"""

import contextlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator

BUCKET = "test-bucket"
_OBJECTS = f"/storage/v1/b/{BUCKET}/o"
_PAGE = 3
"""Objects per page of a listing: few, so that clients must turn pages."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def held(self) -> "_Server":
        assert isinstance(self.server, _Server)
        return self.server

    def do_POST(self) -> None:
        path, query = self._parse()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if path != f"/upload{_OBJECTS}" or query["uploadType"] != "media":
            return self._answer(404)
        with self.held.lock:
            name = query["name"]
            if not self._may(name, query):
                return self._answer(412)
            self.held.next_generation += 1
            self.held.objects[name] = (self.held.next_generation, data)
            return self._answer_json({"name": name, "generation": str(self.held.next_generation)})

    def do_GET(self) -> None:
        path, query = self._parse()
        with self.held.lock:
            if path == _OBJECTS:
                return self._list(query)
            name = urllib.parse.unquote(path.removeprefix(f"{_OBJECTS}/"))
            generation, data = self.held.objects.get(name, (0, b""))
        if query["alt"] != "media" or generation == 0:
            return self._answer(404)
        if query.get("ifGenerationNotMatch") == str(generation):
            return self._answer(304, generation=generation)
        if query.get("ifGenerationMatch", str(generation)) != str(generation):
            return self._answer(412)
        asked = self.headers.get("Range")
        if asked is None:
            return self._answer(200, data, generation)
        first, last = asked.removeprefix("bytes=").split("-")
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(len(data), int(last) + 1) if first and last else len(data)
        if start >= len(data):
            return self._answer(416)
        return self._answer(206, data[start:stop], generation, f"bytes {start}-{stop - 1}/{len(data)}")

    def do_DELETE(self) -> None:
        path, query = self._parse()
        name = urllib.parse.unquote(path.removeprefix(f"{_OBJECTS}/"))
        with self.held.lock:
            if not self._may(name, query):
                return self._answer(412)
            return self._answer(204 if self.held.objects.pop(name, None) else 404)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _parse(self) -> tuple[str, dict[str, str]]:
        if self.headers["Authorization"] != "Bearer a-token":
            raise AssertionError("the client sent no token")
        path, _, query = self.path.partition("?")
        return path, dict(urllib.parse.parse_qsl(query))

    def _may(self, name: str, query: dict[str, str]) -> bool:
        generation = self.held.objects.get(name, (0, b""))[0]
        return query.get("ifGenerationMatch", str(generation)) == str(generation)

    def _list(self, query: dict[str, str]) -> None:
        first, stop = query.get("startOffset", ""), query.get("endOffset")
        after, prefix = query.get("pageToken", ""), query.get("prefix", "")
        names = sorted(
            name for name in self.held.objects
            if name.startswith(prefix) and name >= first and name > after and (stop is None or name < stop)
        )  # fmt: skip
        items = [{"name": n, "size": str(len(self.held.objects[n][1]))} for n in names[:_PAGE]]
        token = {"nextPageToken": names[_PAGE - 1]} if len(names) > _PAGE else {}
        self._answer_json({"items": items, **token})

    def _answer_json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode())

    def _answer(self, status: int, body: bytes = b"", generation: int = 0, content_range: str = "") -> None:
        self.send_response(status)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        if generation:
            self.send_header("x-goog-generation", str(generation))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.next_generation = 0
        self.objects: dict[str, tuple[int, bytes]] = {}


@contextlib.contextmanager
def gcs_server() -> Iterator[dict[str, str]]:
    """The environment variables that lead TensorStore to a server with one empty bucket, `BUCKET`."""
    with _Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {
            "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{server.server_address[1]}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "a-token",
        }
        server.shutdown()
