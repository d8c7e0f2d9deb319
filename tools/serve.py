"""Serve the built site on this machine and print its address: the second half of `make book`."""

from __future__ import annotations

import errno
import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).resolve().parent.parent / "_build" / "html"
PREFERRED = range(8000, 8020)


class Handler(SimpleHTTPRequestHandler):
    """Files of the site, silently, and never from the browser's memory: the next build must be seen at once."""

    def log_message(self, *arguments) -> None:
        pass

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """A reader who leaves a page before it has loaded is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def open_server(ports, folder: Path = SITE) -> Server | None:
    """A server on the first of these ports that is free, or None."""
    for port in ports:
        try:
            return Server(("127.0.0.1", port), partial(Handler, directory=folder))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    return None


def chosen_server() -> Server:
    """On the port that PORT names, or else on a free one."""
    wanted = os.environ.get("PORT")
    if not wanted:
        return open_server([*PREFERRED, 0])
    if not wanted.isdecimal() or not 0 < int(wanted) < 65536:
        sys.exit(f"PORT must be a number between 1 and 65535, not {wanted!r}.")
    server = open_server([int(wanted)])
    if server is None:
        sys.exit(f"Port {wanted} is in use (or reserved); leave PORT out, and a free one is chosen.")
    return server


def serve() -> None:
    server = chosen_server()
    print(f"The book is at http://localhost:{server.server_port}/ (stop with Ctrl-C)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    serve()
