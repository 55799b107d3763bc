"""Where a desk is, and the token that opens it."""

import dataclasses
import ipaddress
import secrets
import socket
import urllib.parse

from sop_jax.specs.errors import ConfigError

PING_S, PONG_S = 2.0, 3.0
"""Both ends of a line ask so often whether the other is still there, and hang up if no answer comes within so long: a network
that vanishes closes nothing by itself.
"""


@dataclasses.dataclass(frozen=True)
class DeskAddress:
    """One desk. The token is in the fragment of `link`, which browsers keep to themselves: no log and no proxy sees it."""

    host: str
    port: int
    token: str = dataclasses.field(repr=False)

    @property
    def link(self) -> str:
        """What a person opens."""
        return f"http://{self._host}:{self.port}/#{self.token}"

    @property
    def socket_url(self) -> str:
        """Where robots and devices call."""
        return f"ws://{self._host}:{self.port}/line"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def seen_from_elsewhere(address: DeskAddress) -> DeskAddress:
    """The address as other computers have it: where the desk listens on all of this one's addresses, this one's name."""
    try:
        is_any = ipaddress.ip_address(address.host).is_unspecified
    except ValueError:
        is_any = False
    return dataclasses.replace(address, host=socket.gethostname()) if is_any else address


def new_token() -> str:
    """A fresh token, 192 bits."""
    return secrets.token_urlsafe(24)


def parse_link(link: str) -> DeskAddress:
    """The address in a link that a desk printed. Raises ConfigError, without the token in its message."""
    place, _, token = link.strip().partition("#")
    try:
        parts = urllib.parse.urlsplit(place)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme != "http" or not host or not port or not token:
        raise ConfigError(
            "the operator's link must be http://HOST:PORT/#TOKEN, as `sop act --operator` prints it; got "
            f"{place!r} and {'a' if token else 'no'} token"
        )
    return DeskAddress(host, port, token)
