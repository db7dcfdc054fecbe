"""nginx with grpc_pass and one worker: a proxy that speaks HTTP/2 on both sides, as the relay does.

Tuned as an operator would who knows what passes: no log, no request limit on a connection, long
timeouts, large buffers. A subscriber names the node it wants by its authority, "node0" and so on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks.peers import process

_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; multi_accept on; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    http2_max_concurrent_streams 1024;
    http2_recv_buffer_size 256k;
    http2_chunk_size {chunk};
    grpc_buffer_size {buffer};
    grpc_read_timeout 1h;
    grpc_send_timeout 1h;
    grpc_socket_keepalive on;
    client_body_timeout 1h;
    client_header_timeout 1h;
    send_timeout 1h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $host $node {{
        default node0;
{map}    }}
{upstreams}    server {{
        listen 127.0.0.1:{port} http2 backlog=1024;
        location / {{ grpc_pass grpc://$node; }}
    }}
}}
"""


@contextlib.contextmanager
def start(nodes: list[int], *, buffer: str = "64k", chunk: str = "16k") -> Iterator[process.Contender]:
    """One port for all nodes."""
    program = process.find("nginx")
    port = process.free_ports()[0]
    with process.folder() as folder:
        text = _CONFIGURATION.format(
            folder=folder, port=port, buffer=buffer, chunk=chunk,
            map="".join(f"        node{i} node{i};\n" for i in range(len(nodes))),
            upstreams="".join(
                f"    upstream node{i} {{ server 127.0.0.1:{node}; keepalive 4; keepalive_requests 1000000000; }}\n"
                for i, node in enumerate(nodes)
            ),
        )  # fmt: skip
        (folder / "nginx.conf").write_text(text)
        argv = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        with process.program(argv, cpus=process.contender_cpus(), folder=folder) as (child, log):
            process.wait_listening(port, child, log)
            yield process.Contender("nginx", [port], child, log)


@contextlib.contextmanager
def start_large(nodes: list[int]) -> Iterator[process.Contender]:
    """A buffer of 1 MiB for each stream instead of 64 KiB."""
    with start(nodes, buffer="1m") as contender:
        yield contender
