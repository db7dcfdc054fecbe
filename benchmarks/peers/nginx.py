"""nginx with grpc_pass and one worker: a proxy that speaks HTTP/2 on both sides, as the relay does.

Tuned as an operator would who knows what passes: no log, no request limit on a connection, long
timeouts, large buffers. A subscriber names the node it wants by its authority, "node0" and so on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks.load.secure import CIPHER, NAME, VERSION, Secured
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
        listen 127.0.0.1:{port} {ssl} http2 backlog=1024;
{tls}        location / {{ grpc_pass {scheme}://$node; }}
    }}
}}
"""
_TLS = """\
        ssl_protocols {version};
        ssl_conf_command Ciphersuites {cipher};
        ssl_certificate {folder}/server.crt;
        ssl_certificate_key {folder}/server.key;
        ssl_client_certificate {folder}/ca.crt;
        ssl_verify_client on;
        grpc_ssl_protocols {version};
        grpc_ssl_conf_command Ciphersuites {cipher};
        grpc_ssl_certificate {folder}/client.crt;
        grpc_ssl_certificate_key {folder}/client.key;
        grpc_ssl_trusted_certificate {folder}/ca.crt;
        grpc_ssl_verify on;
        grpc_ssl_name {name};
"""


@contextlib.contextmanager
def start(
    nodes: list[int], *, buffer: str = "64k", chunk: str = "16k", tls: Secured | None = None
) -> Iterator[process.Contender]:
    """One port for all nodes."""
    program = process.find("nginx")
    port = process.free_ports()[0]
    with process.folder() as folder:
        text = _CONFIGURATION.format(
            folder=folder, port=port, buffer=buffer, chunk=chunk, ssl="ssl" if tls else "",
            scheme="grpcs" if tls else "grpc",
            tls=_TLS.format(folder=tls.folder, name=NAME, cipher=CIPHER, version=VERSION) if tls else "",
            map="".join(f"        node{i} node{i};\n" for i in range(len(nodes))),
            upstreams="".join(
                f"    upstream node{i} {{ server 127.0.0.1:{node}; keepalive 4; keepalive_requests 1000000000; }}\n"
                for i, node in enumerate(nodes)
            ),
        )  # fmt: skip
        (folder / "nginx.conf").write_text(text)
        argv = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        environment = tls and tls.environment
        with process.program(argv, cpus=process.contender_cpus(), folder=folder, environment=environment) as (
            child,
            log,
        ):
            process.wait_listening(port, child, log)
            # Of TLS it sends whole records, and headers alone make none.
            yield process.Contender("nginx", [port], child, log, holds_headers=tls is not None)


@contextlib.contextmanager
def start_large(nodes: list[int], *, tls: Secured | None = None) -> Iterator[process.Contender]:
    """A buffer of 1 MiB for each stream instead of 64 KiB."""
    with start(nodes, buffer="1m", tls=tls) as contender:
        yield contender
