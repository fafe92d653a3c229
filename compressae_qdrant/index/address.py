"""The address of a collection on a Qdrant server, parsed from a URL."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from ..checks import check_text
from ..errors import ConfigError

__all__ = ["Address", "is_directory", "parse_address"]

_SCHEMES: Final = ("http", "https", "grpc", "grpcs")
_DEFAULT_PORTS: Final = {"http": 6333, "https": 443, "grpc": 6334, "grpcs": 6334}
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}(/|$)|(https?|grpcs?):/(?!/)")


@dataclass(frozen=True)
class Address:
    """A collection or an alias on a server, and how to reach the server."""

    scheme: str
    """http, https, grpc or grpcs."""
    host: str
    """Name or address of the host; an IPv6 address is in brackets."""
    port: int
    prefix: str
    """Path before the collection, as a reverse proxy serves it: `qdrant`. Empty for most servers."""
    collection: str
    """Name of the collection, with percent escapes decoded."""

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("https", "grpcs")

    @property
    def grpc(self) -> bool:
        """Whether requests go by gRPC."""
        return self.scheme in ("grpc", "grpcs")

    @property
    def server(self) -> str:
        """Scheme, host and port of the server."""
        return f"{self.scheme}://{self.host}:{self.port}"


def is_directory(location: str) -> bool:
    """Whether a location is a directory, and not the address of a collection. A `Path` is a directory.

    Raises:
        ConfigError: it is no text, or it looks like an address that lacks its scheme or a slash and no such directory
            exists.
    """
    if isinstance(location, os.PathLike):
        return True
    check_text("location", location, error=ConfigError)
    if "\0" in location:
        raise ConfigError(f"location {location!r} has a null character; write the path of a directory or an address")
    if "://" in location:
        return False
    if _HOST_AND_PORT.match(location) and not Path(location).exists():
        address = re.sub(r"^(https?|grpcs?):/+", "", location).partition("?")[0]
        raise ConfigError(
            f"location {location.partition('?')[0]!r} looks like the address of a server without a scheme; write "
            f"http://{address}, or ./{address} for a directory of this name"
        )
    return True


def parse_address(location: str) -> Address:
    """Parse `scheme://host:port/prefix/collection`.

    Raises:
        ConfigError: the location is not valid. The message does not repeat parts that may contain a secret.
    """
    try:
        url = urlsplit(location)
        host = url.hostname
    except ValueError as exc:
        raise ConfigError(
            f"the location is not a valid URL ({exc}); an IPv6 address is written in brackets: "
            "http://[::1]:6333/collection"
        ) from exc
    if url.username or url.password:
        raise ConfigError("the location holds a user name or password; set QDRANT_API_KEY in the environment instead")
    shown = f"{url.scheme}://{host}{url.path}"  # the rest may contain a secret
    if url.scheme not in _SCHEMES or not host:
        raise ConfigError(
            f"location {shown!r} is neither a directory nor http(s)://host:port/collection or grpc(s)://..."
        )
    if any(character.isspace() for character in host):
        raise ConfigError(f"location {shown!r} has the host {host!r}, which is not valid: it has a space")
    *prefix, name = [segment for segment in url.path.split("/") if segment] or [""]
    if not name or url.query or url.fragment:
        raise ConfigError(
            f"location {shown!r} must name one collection, {url.scheme}://host:port/collection, and may end with "
            "?shard_key=KEY; in a name, write # as %23 and ? as %3F; the API key comes from QDRANT_API_KEY"
        )
    if prefix and url.scheme in ("grpc", "grpcs"):
        raise ConfigError(
            f"location {shown!r} must name one collection, {url.scheme}://host:port/collection; gRPC has no path "
            "prefixes, so use http(s):// for a server behind one"
        )
    if prefix and prefix[-1] == "collections":
        raise ConfigError(
            f"location {shown!r} must name one collection, {url.scheme}://host:port/collection; remove '/collections', "
            "which belongs to the server's REST API"
        )
    return Address(
        scheme=url.scheme,
        host=f"[{host}]" if ":" in host else host,
        port=_port(url, shown),
        prefix="/".join(prefix),
        collection=_name(name, shown),
    )


def _port(url: SplitResult, shown: str) -> int:
    try:
        port = url.port
    except ValueError as exc:
        raise ConfigError(f"location {shown!r} has an invalid port ({exc})") from exc
    if port == 0:
        raise ConfigError(f"location {shown!r} has an invalid port (0)")
    return port or _DEFAULT_PORTS[url.scheme]


def _name(segment: str, shown: str) -> str:
    """The name of a collection, from the last segment of a path."""
    try:
        name = unquote(segment, errors="strict")
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"location {shown!r} has a name whose percent escapes are not UTF-8; encode it again"
        ) from exc
    if name in (".", "..") or not name.strip() or not name.isprintable():
        raise ConfigError(f"location {shown!r} has the name {name!r}, which no collection can have")
    return name
