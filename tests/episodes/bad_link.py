"""A network link with delay, loss and cuts between this machine and a network namespace, for whoever may make one (root).

Many kernels lack netem. So the packets of two TUN devices are moved by a process of ours: TCP above it loses, waits and
retransmits as on any bad link. The order of packets is kept.

    with BadLink(LinkQuality(delay_s=0.1, jitter_s=0.02, loss=0.02)) as link:
        subprocess.run([*link.far, "curl", link.near_address])    # from the other side
        link.set_up(False)                                        # cut
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

import pytest

NEAR, FAR = "10.213.7.1", "10.213.7.2"
NAMESPACE = "sop-far"
_DEVICES = ("sopnear", "sopfar")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_CLONE_NEWNET = 0x40000000
_MTU = 2048


@dataclasses.dataclass(frozen=True)
class LinkQuality:
    """Each way: a delay of delay_s, give or take jitter_s (uniform); a share `loss` of the packets is lost."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0


class BadLink:
    """The link, for the length of a `with` block. Skips the test where no namespace or TUN device can be made."""

    near_address = NEAR
    far = ("ip", "netns", "exec", NAMESPACE)

    def __init__(self, quality: LinkQuality):
        self._quality = quality
        self._process: subprocess.Popen[str] | None = None

    def set_up(self, is_up: bool) -> None:
        """Lets packets through, or none."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("up\n" if is_up else "down\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        _run("ip", "netns", "del", NAMESPACE, check=False)
        if _run("ip", "netns", "add", NAMESPACE, check=False):
            pytest.skip("network namespaces can't be made here (root and `ip` make them)")
        words = [sys.executable, __file__, json.dumps(dataclasses.asdict(self._quality))]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.__exit__(None, None, None)
            pytest.skip("no TUN device can be made here (/dev/net/tun)")
        for device, address, peer, words in (
            (_DEVICES[0], NEAR, FAR, ()),
            (_DEVICES[1], FAR, NEAR, self.far),
        ):
            _run(*words, "ip", "address", "add", address, "peer", peer, "dev", device)
            _run(*words, "ip", "link", "set", device, "up")
        _run(*self.far, "ip", "link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        _run("ip", "netns", "del", NAMESPACE, check=False)


def _run(*words: str, check: bool = True) -> int:
    try:
        return subprocess.run(words, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    except FileNotFoundError:
        return 127


def _open_tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _move_packets(quality: LinkQuality, devices: tuple[int, int]) -> None:
    """Until standard input ends."""
    rng, is_up = random.Random(0), True
    other = {devices[0]: devices[1], devices[1]: devices[0]}
    last_due_s = dict.fromkeys(devices, 0.0)
    waiting: list[tuple[float, int, int, bytes]] = []
    num_seen = 0
    while True:
        wait_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([sys.stdin, *devices], [], [], wait_s)
        if sys.stdin in readable:
            word = os.read(sys.stdin.fileno(), 64).decode().split()
            if not word:
                return
            is_up = word[-1] == "up"
        for device in devices:
            if device not in readable:
                continue
            packet = os.read(device, _MTU)
            num_seen += 1
            if is_up and rng.random() >= quality.loss:
                due_s = time.monotonic() + quality.delay_s + rng.uniform(-1, 1) * quality.jitter_s
                last_due_s[device] = max(due_s, last_due_s[device])
                heapq.heappush(waiting, (last_due_s[device], num_seen, other[device], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            *_, target, packet = heapq.heappop(waiting)
            with contextlib.suppress(OSError):  # a device that isn't up yet
                if is_up:
                    os.write(target, packet)


def main() -> None:
    near = _open_tun(_DEVICES[0])
    namespace = os.open(f"/var/run/netns/{NAMESPACE}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    far = _open_tun(_DEVICES[1])
    print("ready", flush=True)
    _move_packets(LinkQuality(**json.loads(sys.argv[1])), (near, far))


if __name__ == "__main__":
    main()
