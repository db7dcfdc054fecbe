"""Make relay/kubearmor_pb2*.py(i) from protos/kubearmor.proto, when they are missing or older."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "protos" / "kubearmor.proto"
PACKAGE = ROOT / "relay"
MADE = [PACKAGE / name for name in ("kubearmor_pb2.py", "kubearmor_pb2.pyi", "kubearmor_pb2_grpc.py")]


def current() -> bool:
    newest = max(SOURCE.stat().st_mtime, Path(__file__).stat().st_mtime)
    return all(path.exists() and path.stat().st_mtime >= newest for path in MADE)


def make() -> None:
    import grpc_tools
    from grpc_tools import protoc

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{SOURCE.parent}",
        f"-I{well_known}",
        f"--python_out={PACKAGE}",
        f"--pyi_out={PACKAGE}",
        f"--grpc_python_out={PACKAGE}",
        str(SOURCE),
    ]
    if protoc.main(arguments) != 0:
        sys.exit(f"error: protoc could not read {SOURCE}")
    # protoc writes imports for modules at the top level; these live in the package.
    stub = MADE[2]
    text = re.sub(r"^import kubearmor_pb2 as", "from relay import kubearmor_pb2 as", stub.read_text(), flags=re.M)
    stub.write_text(text)


if __name__ == "__main__":
    if not current():
        make()
