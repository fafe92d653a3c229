"""A TCP proxy that breaks connections by a seeded plan."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator

__all__ = ["faulty"]

_FATES = ["reset", "truncate", "drop", "reset", "truncate", "drop", "reset", "truncate", "drop", "delay"]
"""Faults to choose from. A delay costs a test a second of waiting, so it is the rarest."""


class _Proxy:
    """Forwards TCP to a port and breaks a share of the connections, each at a random byte."""

    def __init__(self, port: int, seed: int, share: float, host: str) -> None:
        self.struck: dict[str, int] = {}
        self._host = host
        self._port, self._share, self._random = port, share, random.Random(seed)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection from a client."""
        fate = "pass"
        if self._random.random() < self._share:
            fate = self._random.choice(_FATES)
        at = self._random.randrange(200, 60_000) if fate == "reset" else self._random.randrange(0, 400)
        try:
            if fate == "drop":
                self._strike(fate)
                return
            server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
            try:
                up = self._pump(reader, server_writer, at if fate == "reset" else None, fate, 0.0)
                slow = 1.0 if fate == "delay" else 0.0
                down = self._pump(server_reader, writer, at if fate == "truncate" else None, fate, slow)
                pumps = [asyncio.ensure_future(up), asyncio.ensure_future(down)]
                with contextlib.suppress(asyncio.CancelledError):  # the proxy is stopping
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
            finally:
                server_writer.transport.abort()
        finally:
            writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None, fate: str, wait: float
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                if wait:
                    self._strike(fate)
                    await asyncio.sleep(wait)
                if limit is not None and passed + len(data) > limit:
                    self._strike(fate)
                    writer.write(data[: limit - passed])
                    await writer.drain()
                    return
                passed += len(data)
                writer.write(data)
                await writer.drain()

    def _strike(self, fate: str) -> None:
        self.struck[fate] = self.struck.get(fate, 0) + 1


@contextlib.contextmanager
def faulty(port: int, seed: int, share: float, host: str = "127.0.0.1") -> Iterator[tuple[int, dict[str, int]]]:
    """Run a proxy that forwards to a port; yields its port and the number of faults so far by kind.

    Args:
        port: Port to forward to.
        seed: Seed of the faults.
        share: Share of connections that get a fault: reset, truncate, delay or drop.
        host: Host to forward to.
    """
    proxy = _Proxy(port, seed, share, host)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.handle, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1]), proxy.struck
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
