"""Where webhooks may go: to public addresses, and to hosts that the operator names.

A name is resolved here, and the connection goes to what was found: whoever looked the name up a
second time could be answered with an address of the service's own network.
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
    """What a receiver said; its body is not read."""

    status: int
    retry_after: str | None


@dataclass(frozen=True)
class Receiver:
    """A URL that may be sent to, and the addresses to connect to."""

    url: httpx.URL
    addresses: tuple[str, ...]

    @property
    def host(self) -> str:
        return self.url.raw_host.decode()

    def post(
        self, body: bytes, headers: Mapping[str, str], *, tls: SSLContext, seconds: float
    ) -> Answer:
        """Send it; redirects are not followed."""
        return asyncio.run(self._post(body, headers, tls, seconds))

    async def _post(
        self, body: bytes, headers: Mapping[str, str], tls: SSLContext, seconds: float
    ) -> Answer:
        # Asynchronous for the limit on the whole: a thread can limit each read only, and who sends
        # a byte now and then would hold it for days.
        client = httpx.AsyncClient(
            verify=tls,
            trust_env=False,  # a proxy would connect to what it finds under the name itself
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
    """Resolve the host of a URL; ValueError, in words for who gave it, if it is refused."""
    parsed = _parsed(url)
    host = parsed.raw_host.decode()
    addresses = _resolved(host)
    if host in allowed_hosts:
        if not addresses:
            raise ValueError(f"has the host {host!r}, which cannot be found")
    elif not are_public(addresses):
        # The same words for both: nobody shall learn which names an inner network has.
        raise ValueError(
            f"has the host {host!r}, which has no public address, or an inner one too, and is "
            "none of STYLEFILTER_WEBHOOK_HOSTS"
        )
    return Receiver(parsed, addresses)


def are_public(addresses: Collection[str]) -> bool:
    """Whether each of the addresses, and there is one, is a machine of the public internet."""
    return bool(addresses) and all(_is_public(address) for address in addresses)


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and (
        # Beyond unicast are the ways to write IPv4 addresses: mapped, compatible, NAT64.
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
    except (OSError, UnicodeError):  # there is none, or no name can be like this
        return ()
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
