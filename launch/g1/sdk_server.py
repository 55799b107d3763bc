"""The vendor's SDK for a Python that can't import it: run this with the SDK's own Python, beside the actor.

    . a2d_sdk/env.sh && python3.10 launch/g1/sdk_server.py /run/sop-sdk/sdk.sock head hand_left hand_right

Then `"sdk_socket": "/run/sop-sdk/sdk.sock"` under `"g1"` in the station's file. It passes on the calls that the adapter
makes and decides nothing: all limits and watchdogs are on the other side. One caller at a time. Python 3.8 or newer, no
packages.

On the wire, both ways: length of a JSON object (4 bytes, big-endian), the object, a picture's `num_bytes` if it has any.
"""

import importlib
import json
import os
import socket
import struct
import sys

CALLS = {
    "robot": (
        "arm_joint_states", "gripper_states", "head_joint_states", "waist_joint_states", "arm_joint_states_nearest",
        "gripper_states_nearest", "head_joint_states_nearest", "waist_joint_states_nearest", "move_arm", "move_gripper",
        "move_head", "move_waist",
    ),
    "camera": ("get_latest_image", "get_image_nearest"),
    "controller": ("get_motion_status",),
}  # fmt: skip
MAX_REQUEST_BYTES = 4096


def answer(parts, request):
    """What one call gives: a JSON object and a picture's bytes. Errors of the SDK become {"error": text}."""
    part, name = request["part"], request["call"]
    if name not in CALLS.get(part, ()):
        return {"error": f"unknown call {part}.{name}"}, b""
    try:
        value = getattr(parts[part], name)(*request["arguments"])
        if part != "camera":
            return {"value": plain(value)}, b""
        image, stamp = value
        if image is None or stamp is None:
            return {"value": None}, b""
        pixels = image.tobytes()
        head = {"value": int(stamp), "shape": list(image.shape), "dtype": str(image.dtype), "num_bytes": len(pixels)}
        return head, pixels
    except Exception as error:  # The SDK documents none, so any of them is its answer.
        return {"error": f"{type(error).__name__}: {error}"}, b""


def plain(value):
    """Tuples, arrays and their numbers as JSON knows them."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def serve_caller(connection, parts):
    """Answers one caller until it hangs up."""
    while True:
        head = receive(connection, 4)
        if head is None:
            return
        (length,) = struct.unpack(">I", head)
        if length > MAX_REQUEST_BYTES:
            return
        body = receive(connection, length)
        if body is None:
            return
        reply, pixels = answer(parts, json.loads(body))
        text = json.dumps(reply).encode()
        connection.sendall(struct.pack(">I", len(text)) + text + pixels)


def receive(connection, count):
    """So many bytes, or None if the caller hung up before."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            return None
        data += more
    return data


def listen(path):
    """A socket that this user alone may call."""
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(1)
    return listener


def main(path, cameras):
    sdk = importlib.import_module("a2d_sdk.robot")
    parts = {"robot": sdk.RobotDds(), "camera": sdk.CosineCamera(list(cameras)), "controller": sdk.RobotController()}
    listener = listen(path)
    try:
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    serve_caller(connection, parts)
                except (OSError, ValueError, KeyError, TypeError) as error:
                    sys.stderr.write(f"caller dropped: {error}\n")
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
        os.unlink(path)
        try:
            parts["camera"].close()
        finally:
            parts["robot"].shutdown()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: sdk_server.py SOCKET CAMERA...")
    main(sys.argv[1], sys.argv[2:])
