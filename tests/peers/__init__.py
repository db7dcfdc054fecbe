"""The other sides of the relay, for tests: nodes and subscribers, well-behaved and not."""

import os

# grpcio would start threads in the child of every fork, before its exec, where no thread may be started
# (the thread sanitizer ends a process for it). Read when the first channel or server is made.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
