"""Credential plugins: commands that a kubeconfig file names, and that print a token or a certificate.

The `kubernetes` package runs them, too, but goes on without credentials where one fails, and leaves
one that hangs behind. Source: the Kubernetes API, client.authentication.k8s.io, ExecCredential.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import signal
from collections.abc import Mapping, Sequence
from subprocess import DEVNULL, PIPE
from typing import Annotated, NamedTuple

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import Decoder

SAID_MOST = 300  # characters of what a plugin says of its failure, the last ones


class PluginError(Exception):
    """A plugin gave no credentials; the text is one line and holds none."""


class Credential(NamedTuple):
    """A token, a certificate with its key (PEM), or both, and until when they are good."""

    token: str
    certificate: str
    key: str
    expires: dt.datetime | None


class _Status(Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: Annotated[dt.datetime, Meta(tz=True)] | None = None


class _Answer(Struct, rename="camel"):
    api_version: str
    status: _Status


_answer = Decoder(_Answer).decode


async def run(command: Sequence[str], environment: Mapping[str, str], api_version: str) -> Credential:
    """Run a plugin; one that has not ended when the caller is cancelled is killed, with its children.

    Raises:
        PluginError: it failed, or printed something else.
        OSError: there is no such command.
    """
    asked = {"apiVersion": api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *command,
            env={**environment, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,  # a group of its own, to be killed as one
        )
    )
    try:
        # Shielded, because asyncio, cancelled while it starts a process, kills that one and not its children.
        process = await asyncio.shield(starting)
        printed, complained = await process.communicate()
    except BaseException:
        process = await starting
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # Its pipes, too, which another process may hold open; asyncio offers no other way.
        process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001
        await process.wait()
        raise
    name = os.path.basename(command[0])  # noqa: PTH119 - a command, which may be no path
    if process.returncode:
        said = " ".join(complained.decode(errors="replace").split())[-SAID_MOST:]
        raise PluginError(f"exec: {name} failed with {process.returncode}: {said}")
    try:
        answer = _answer(printed)
    except MsgspecError as error:
        raise PluginError(f"exec: {name} printed no ExecCredential: {error}") from None
    if answer.api_version != api_version:
        raise PluginError(f"exec: {name} answers with {answer.api_version}; {api_version} was asked for")
    status = answer.status
    certificate, key = status.client_certificate_data or "", status.client_key_data or ""
    if bool(certificate) != bool(key):
        raise PluginError(f"exec: {name} printed a certificate without its key, or a key alone")
    if not (status.token or certificate):
        raise PluginError(f"exec: {name} printed neither a token nor a certificate")
    return Credential(status.token or "", certificate, key, status.expiration_timestamp)
