"""Generates `reverb_pb2.py` and its type stub from `reverb.proto`: `python -m sop_jax.replay.proto.generate`.

Needs grpcio-tools. The generated files are committed, so only a change of `reverb.proto` calls for this.
"""

import pathlib
import sys

from grpc_tools import protoc

_PROTO = "sop_jax/replay/proto/reverb.proto"


def generate(output: pathlib.Path, root: pathlib.Path) -> None:
    """Writes the generated modules below `output`, at the proto's own path. Raises RuntimeError if protoc fails."""
    status = protoc.main(["protoc", f"-I{root}", f"--python_out={output}", f"--pyi_out={output}", _PROTO])
    if status != 0:
        raise RuntimeError(f"protoc failed on {_PROTO} with status {status}")
    stub = output / _PROTO.replace(".proto", "_pb2.pyi")
    stub.write_text("# ruff: noqa\n# fmt: off\n" + stub.read_text())


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[3]
    generate(root, root)
    sys.stdout.write(f"generated {_PROTO.removesuffix('.proto')}_pb2.py\n")


if __name__ == "__main__":
    main()
