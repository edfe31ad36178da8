"""`serve`: the portal and the HTTP API."""

from __future__ import annotations

import os
import socket
from contextlib import closing, suppress

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import say
from lightkeep.cli.session import Session
from lightkeep.model.errors import ConfigError


@click.command(
    cls=Command,
    short_help="Serve the portal and the HTTP API.",
    examples=("lightkeep serve", "lightkeep serve --host 0.0.0.0 --port 8000"),
)
@click.option("--host", help="Address to listen on; the configured one otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port; 0 means any free one.")
@click.pass_obj
def serve(session: Session, host: str | None, port: int | None) -> None:
    """Serve the portal and the HTTP API, and work through the queued runs, until interrupted."""
    settings = session.load()
    with session.opened():  # an unknown person or a broken facility is an error before the server starts
        pass
    host = host or settings.http.host
    port = settings.http.port if port is None else port
    listener = listen(host, port)
    if settings.file:
        os.environ["LIGHTKEEP_CONFIG"] = str(settings.file)
    say(f"Portal: {address(host, listener)}")
    run_server(listener)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises
    ------
    ConfigError: the port is taken, or the address is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # whoever connects before the server is up waits instead of being refused
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}",
            remedy="stop what listens there, or choose another: --port 0 takes any free one",
        ) from error
    return listener


def listen_anywhere(host: str, port: int) -> socket.socket:
    """Return a listening socket on the port, or on any free one when it is taken."""
    try:
        return listen(host, port)
    except ConfigError:
        return listen(host, 0)


def address(host: str, listener: socket.socket) -> str:
    """Return the address to open in a browser."""
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}/"


def run_server(listener: socket.socket) -> None:
    """Serve on a socket until interrupted: Ctrl-C is how a server ends, not an error.

    Raises
    ------
    ConfigError: the server did not start; it has said why.
    """
    import uvicorn

    settings = uvicorn.Config(
        "lightkeep.asgi:create", factory=True, log_level="warning", timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(settings)
    with closing(listener), suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if not server.started:
        raise ConfigError(
            "the server did not start", remedy="the lines above say why; `lightkeep doctor` may help"
        )
