"""Certificates for the way to the replay server, in both directions: who may call it, and whether it is the right one."""

import dataclasses
import pathlib
import socket
import ssl
from typing import Self

import grpc
import grpc.experimental

from sop_jax.specs.errors import ConfigError

_CHANNEL_OPTIONS = (
    # Whoever samples reads the stream itself: handing each message over from a thread of gRPC's costs a quarter of the speed.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name the least time that one attempt gets: TCP, TLS and HTTP/2 need three round trips.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)
# A silent link is found dead in 15 s instead of a quarter of an hour, and after 5 s (the timeout is the socket's too) if
# something was sent: TCP on a flapping link waits ever longer before it sends again, while a new connection needs a moment.
# Reverb itself would hang up on so many pings.
_KEEPALIVE_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_OTHERS_MAY_READ = 0o004


@dataclasses.dataclass(frozen=True)
class TlsFiles:
    """PEM files: the private CA, this side's certificate, and its key, which nobody else may read. None is read here."""

    ca: pathlib.Path
    certificate: pathlib.Path
    key: pathlib.Path

    @classmethod
    def in_folder(cls, folder: pathlib.Path) -> Self:
        """The files of a folder that `launch/tls/ca.sh` made (or a Kubernetes TLS secret). Raises ConfigError."""
        files = cls(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")
        files.check()
        return files

    def check(self) -> None:
        """Raises ConfigError if a file is missing, the key isn't the certificate's or may be read by everybody."""
        for path in (self.ca, self.certificate, self.key):
            if not path.is_file():
                raise ConfigError(f"no {path}: certificates come from `launch/tls/ca.sh` (ca.crt, tls.crt, tls.key)")
        if self.key.stat().st_mode & _OTHERS_MAY_READ:
            raise ConfigError(f"{self.key} is a private key that everybody may read: chmod 600 {self.key}")
        self.client_context()

    def client_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"{self.ca}, {self.certificate} and {self.key} are no CA, certificate and key of each other: {error}. "
                "Copy the folder that `launch/tls/ca.sh` made once more"
            ) from error
        context.set_alpn_protocols(["h2"])
        return context


def open_channel(address: str, files: TlsFiles | None) -> grpc.Channel:
    """A channel to "host:port", encrypted and with this side's certificate if there is one. Contacts nobody yet."""
    if files is None:
        return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
    files.check()
    credentials = grpc.ssl_channel_credentials(
        files.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )
    return grpc.secure_channel(address, credentials, options=(*_CHANNEL_OPTIONS, *_KEEPALIVE_OPTIONS))


def why_not_trusted(address: str, files: TlsFiles | None, timeout_s: float = 2.0) -> str:
    """Why this side can't trust, or be encrypted with, who listens at "host:port"; "" if it can, or nobody answers.

    gRPC doesn't tell: to it, a server with a wrong certificate is just not there.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s) as connection:
            if files is None:
                return _speaks_tls_only(connection)
            with files.client_context().wrap_socket(connection, server_hostname=host.strip("[]")):
                return ""
    except ssl.SSLCertVerificationError as error:
        return (
            f"its certificate is not one that {files and files.ca} vouches for: {error.verify_message.rstrip('.')}. Is this "
            "the right server, was its certificate made for this address, and do both sides have the same ca.crt?"
        )
    except ssl.SSLError as error:
        if "EOF" in (error.reason or "EOF"):  # the other side died, or the link did
            return ""
        return f"it speaks no TLS that we understand ({error.reason}); does `sop replay --tls` serve there?"
    except (OSError, ValueError):
        return ""


def _speaks_tls_only(connection: socket.socket) -> str:
    """Sends the beginning of an HTTP/2 connection: nginx complains in HTTP/1, Reverb sends settings."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    answer = connection.recv(64)
    if answer.startswith((b"HTTP/1", b"\x15\x03", b"<html")):
        return "it wants TLS: give a certificate (--replay-tls)"
    return ""
