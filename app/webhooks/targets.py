"""Decides to which hosts webhooks may be sent, and sends them.

They may go to public addresses, and to hosts that the operator names in STYLEFILTER_WEBHOOK_HOSTS.
A host name is resolved here once, and the connection goes to the addresses that were found: a
second look-up could be answered with an address inside the service's own network.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ssl import SSLContext

import httpx

_UNICAST_IPV6 = ipaddress.ip_network("2000::/3")
_IPV4_IN_IPV6 = ipaddress.ip_network("2002::/16")
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Answer:
    """The answer of a receiver, without its body, which is not read."""

    status: int
    retry_after: str | None


@dataclass(frozen=True)
class Receiver:
    """A URL that webhooks may be sent to, and the addresses to connect to."""

    url: httpx.URL
    addresses: tuple[str, ...]

    @property
    def host(self) -> str:
        return self.url.raw_host.decode()

    def post(
        self, body: bytes, headers: Mapping[str, str], *, tls: SSLContext, seconds: float
    ) -> Answer:
        """Send a request, and follow no redirect.

        Raises:
            httpx.HTTPError: no address could be reached.
            TimeoutError: the answer did not come within ``seconds``.
        """
        return asyncio.run(self._post(body, headers, tls, seconds))

    async def _post(
        self, body: bytes, headers: Mapping[str, str], tls: SSLContext, seconds: float
    ) -> Answer:
        # Only asynchronous code can limit the whole request. A thread can limit each read, so a
        # receiver that sends a byte now and then would hold it for days.
        client = httpx.AsyncClient(
            verify=tls,
            trust_env=False,  # a proxy would look the name up again by itself
            follow_redirects=False,
            timeout=httpx.Timeout(seconds, connect=_CONNECT_SECONDS),
        )
        failures = []
        async with asyncio.timeout(seconds), client:
            for address in self.addresses:
                request = client.build_request(
                    "POST",
                    self.url.copy_with(host=address),
                    headers={**headers, "host": self.url.netloc.decode()},
                    content=body,
                    extensions={"sni_hostname": self.host},  # the name that TLS verifies
                )
                try:
                    response = await client.send(request, stream=True)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    failures.append(f"{address}: {error}")
                else:
                    await response.aclose()
                    return Answer(response.status_code, response.headers.get("retry-after"))
        raise httpx.ConnectError("; ".join(failures))


def find(url: str, allowed_hosts: Collection[str]) -> Receiver:
    """Resolve the host of a URL.

    Raises:
        ValueError: no webhook may be sent there. The message goes on after "the webhook's URL".
    """
    parsed = _parsed(url)
    host = parsed.raw_host.decode()
    addresses = _resolved(host)
    if host in allowed_hosts:
        if not addresses:
            raise ValueError(f"has the host {host!r}, which cannot be found: check its spelling")
    elif not are_public(addresses):
        # Both cases have the same message, so that nobody learns the names of an inner network.
        raise ValueError(
            f"has the host {host!r}, whose addresses are not all public: use a host of the public "
            "internet, or ask the operator to add this one to STYLEFILTER_WEBHOOK_HOSTS"
        )
    return Receiver(parsed, addresses)


def are_public(addresses: Collection[str]) -> bool:
    """Return True if there are addresses and all belong to machines of the public internet."""
    return bool(addresses) and all(_is_public(address) for address in addresses)


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and (
        # Outside of unicast lie the ways to write an IPv4 address: mapped, compatible, NAT64.
        parsed not in _UNICAST_IPV6 or parsed in _IPV4_IN_IPV6
    ):
        return False
    return parsed.is_global and not parsed.is_multicast


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("must be a URL that begins with https:// or http:// and has a host")
    if parsed.userinfo:
        raise ValueError("must hold no user name and no password")
    if parsed.port is not None and not 0 < parsed.port < 1 << 16:
        raise ValueError(f"has the port {parsed.port}, which does not exist")
    return parsed


def _resolved(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # no host has this name, or no host can have it
        return ()
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
