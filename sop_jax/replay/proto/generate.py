"""Generates a `_pb2.py` and its type stub from each `.proto` of this folder: `python -m sop_jax.replay.proto.generate`.

Needs grpcio-tools. The generated files are committed, so only a change of a `.proto` calls for this.
"""

import pathlib
import sys

from grpc_tools import protoc

PROTOS = ("sop_jax/replay/proto/reverb.proto", "sop_jax/replay/proto/segment.proto")


def generate(output: pathlib.Path, root: pathlib.Path) -> None:
    """Writes the generated modules below `output`, at the protos' own paths. Raises RuntimeError if protoc fails."""
    status = protoc.main(["protoc", f"-I{root}", f"--python_out={output}", f"--pyi_out={output}", *PROTOS])
    if status != 0:
        raise RuntimeError(f"protoc failed on {PROTOS} with status {status}")
    for proto in PROTOS:
        stub = output / proto.replace(".proto", "_pb2.pyi")
        stub.write_text("# ruff: noqa\n# fmt: off\n" + stub.read_text())


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[3]
    generate(root, root)
    sys.stdout.write(f"generated the modules of {', '.join(PROTOS)}\n")


if __name__ == "__main__":
    main()
