"""Serves replay tables with dm-reverb. Runs in its own environment (`make reverb-env`), which knows nothing of this project.

    python launch/reverb/serve.py --port 8000 --tables '[{"name": "pick/online", "max_size": 1000, ...}]'

`--tables` is what `sop_jax.replay.tables.tables_to_json` writes, or `@FILE` to read it from a file. Once the port answers,
a line `reverb serving on port N` is printed. SIGTERM, SIGINT and (with --until-stdin-closes) the end of standard input
or the death of the parent stop the server.

Reverb has no TLS, no passwords and no bind address: it listens on every interface of the machine. So once it listens its
sockets are tied to the loopback interface, and only this machine reaches them. Other machines come
through a proxy that asks for certificates (`sop replay --tls`); or --all-interfaces leaves the port open to everybody.
"""

import argparse
import ctypes
import ipaddress
import json
import os
import pathlib
import select
import signal
import socket
import struct
import sys
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import portpicker
import reverb
from reverb.platform import checkpointers_lib

_PARENT_POLL_S = 1.0
_SO_ATTACH_FILTER = 26
_INTERFACE_OF_PACKET = 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX
_ACCEPTING_S = 0.1
"""How long a connection may take from the kernel's queue to Reverb."""


def make_table(config: dict) -> reverb.Table:
    """One table from its JSON object; a missing or unknown key is an error."""
    limiter = config["rate_limiter"]
    samplers = {
        "uniform": reverb.selectors.Uniform,
        "fifo": reverb.selectors.Fifo,
        "prioritized": lambda: reverb.selectors.Prioritized(config["priority_exponent"]),
    }
    return reverb.Table(
        name=config["name"],
        sampler=samplers[config["sampler"]](),
        remover=reverb.selectors.Fifo(),
        max_size=config["max_size"],
        max_times_sampled=config["max_times_sampled"],
        rate_limiter=reverb.rate_limiters.SampleToInsertRatio(
            samples_per_insert=limiter["samples_per_insert"],
            min_size_to_sample=limiter["min_size"],
            error_buffer=(limiter["min_diff"], limiter["max_diff"]),
        ),
    )


def read_tables(argument: str) -> list:
    text = pathlib.Path(argument[1:]).read_text() if argument.startswith("@") else argument
    return [make_table(config) for config in json.loads(text)]


def check_port_is_free(port: int) -> None:
    """Exits if somebody listens there. Two gRPC servers would otherwise share a port and split its calls silently."""
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            sys.exit(f"reverb can't serve on port {port}: {error}. Stop what listens there, or choose another --port.")


def sockets_at(port: int) -> list:
    """This process's sockets with that local port, as copies that may be closed."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptor = os.dup(int(name))
        except OSError:  # the folder's own
            continue
        try:
            copy = socket.socket(fileno=descriptor)
        except OSError:  # no socket
            os.close(descriptor)
            continue
        if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.getsockname()[1] == port:
            found.append(copy)
        else:
            copy.close()
    return found


def accept_from_loopback_only(listener: socket.socket) -> None:
    """Before Linux 5.7 root alone may tie a socket to a device; there a packet filter (classic BPF) does the same."""
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    except PermissionError:
        steps = (
            (0x20, 0, 0, _INTERFACE_OF_PACKET),
            (0x15, 0, 1, socket.if_nametoindex("lo")),
            (6, 0, 0, 2**32 - 1),
            (6, 0, 0, 0),
        )
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(steps), ctypes.addressof(program))
        )


def keep_to_loopback(port: int) -> None:
    """Ties the port to the loopback interface, and hangs up on whoever came from elsewhere in between. Exits if it can't."""
    listening = [s for s in sockets_at(port) if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
    try:
        for found in listening:
            accept_from_loopback_only(found)
            found.close()
    except OSError as error:
        sys.exit(f"reverb can't keep port {port} to this machine: {error}. Another kernel can; else --all-interfaces.")
    if not listening:
        sys.exit(f"reverb can't keep port {port} to this machine: no listening socket found. Else --all-interfaces.")
    time.sleep(_ACCEPTING_S)
    for found in sockets_at(port):
        if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            peer = ipaddress.ip_address(found.getpeername()[0].partition("%")[0])
            if not (getattr(peer, "ipv4_mapped", None) or peer).is_loopback:
                found.shutdown(socket.SHUT_RDWR)
        found.close()


def watch_parent(stop: threading.Event) -> None:
    """Sets `stop` once standard input closes or the parent is gone."""
    parent = os.getppid()
    while not stop.is_set():
        readable, _, _ = select.select([sys.stdin], [], [], _PARENT_POLL_S)
        if (readable and not os.read(sys.stdin.fileno(), 4096)) or os.getppid() != parent:
            stop.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 = any free port")
    parser.add_argument("--tables", required=True, help="JSON list of tables, or @FILE")
    parser.add_argument(
        "--checkpoint-dir", default="", help="where Checkpoint calls write; the newest is loaded at start"
    )
    parser.add_argument("--all-interfaces", action="store_true", help="anybody who reaches the port may read and write")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if arguments.until_stdin_closes:
        threading.Thread(target=watch_parent, args=(stop,), daemon=True).start()

    tables = read_tables(arguments.tables)
    port = arguments.port or portpicker.pick_unused_port()
    check_port_is_free(port)
    checkpointer = checkpointers_lib.DefaultCheckpointer(arguments.checkpoint_dir) if arguments.checkpoint_dir else None
    server = reverb.Server(tables=tables, port=port, checkpointer=checkpointer)
    if not arguments.all_interfaces:
        keep_to_loopback(port)
    sys.stdout.write(f"reverb serving on port {port}\n")
    sys.stdout.flush()
    stop.wait()
    server.stop()


if __name__ == "__main__":
    main()
