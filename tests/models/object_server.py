"""A directory served as an S3 bucket: enough of the protocol for anonymous reading."""

import contextlib
import email.utils
import hashlib
import http.server
import json
import pathlib
import threading
import urllib.parse
from collections.abc import Iterator


@contextlib.contextmanager
def serve(directory: pathlib.Path) -> Iterator[str]:
    """Yields the TensorStore spec of the directory as a bucket, as JSON text."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            key = urllib.parse.unquote(url.path).removeprefix("/bucket/")
            if not key:
                self.reply(200, list_keys(directory, urllib.parse.parse_qs(url.query)["prefix"][0]), {})
            elif not (directory / key).is_file():
                self.reply(404, b"<Error><Code>NoSuchKey</Code></Error>", {})
            else:
                self.send_file((directory / key).read_bytes())

        do_HEAD = do_GET

        def send_file(self, data: bytes) -> None:
            headers = {
                "ETag": f'"{hashlib.md5(data).hexdigest()}"',
                "Last-Modified": email.utils.formatdate(1_700_000_000, usegmt=True),
            }
            asked = self.headers.get("Range")
            if asked is None:
                return self.reply(200, data, headers)
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = (int(first), int(last or len(data) - 1)) if first else (len(data) - int(last), len(data) - 1)
            if start >= len(data):
                return self.reply(416, b"", headers)
            part = data[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
            return self.reply(206, part, headers)

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield json.dumps(
            {
                "driver": "s3",
                "bucket": "bucket",
                "endpoint": f"http://127.0.0.1:{server.server_port}",
                "aws_region": "nowhere",
                "aws_credentials": {"type": "anonymous"},
            }
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def list_keys(directory: pathlib.Path, prefix: str) -> bytes:
    keys = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    found = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys if key.startswith(prefix))
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()
