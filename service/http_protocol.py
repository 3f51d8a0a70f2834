"""uvicorn's HTTP protocol, with a time-out also for connections whose body came after the answer."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpProtocol(HttpToolsProtocol):
    """A request may be answered by its headers alone; what comes of its body afterwards is thrown away.

    uvicorn stops the keep-alive timer whenever something arrives, and starts it when it has answered: without this, a body
    that comes later would leave its connection open for as long as the client likes.
    """

    def on_message_begin(self) -> None:
        """A request begins; it may be in the same piece of data as the end of the one before."""
        self._unset_keepalive_if_required()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """The request is here; if its answer has gone already, the connection is idle from now on."""
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
