"""Generates the gRPC stubs `evocache.v1` from the project's .proto files when the package is built, so that nobody
needs `protoc` to run it. A source archive has the generated files and no .proto files; nothing is generated from there.
"""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parents[1] / "proto"
TARGET = HERE / "src"


def generate() -> None:
    files = sorted(PROTOS.glob("evocache/v1/*.proto"))
    package = TARGET / "evocache" / "v1"
    if not files:
        if not (package / "types_pb2.py").exists():
            raise SystemExit(f"no .proto files in '{PROTOS}': build from a clone or from a source archive")
        return
    import grpc_tools
    from grpc_tools import protoc

    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text('"""The messages and services of evocache, generated from `proto/`."""\n')
    includes = [f"-I{PROTOS}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    outputs = [f"--{kind}_out={TARGET}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    if protoc.main(["protoc", *includes, *outputs, *map(str, files)]) != 0:
        raise SystemExit("protoc failed")


# Packages are listed when `setup` begins, so the generated one must be there by then.
generate()
setup()
