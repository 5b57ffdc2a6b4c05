"""Where an endpoint is and what opens it: an address without secrets, and a key from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from modelsat_engine.errors import OptionError

HIDDEN = "[key]"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class ApiKey:
    """The key to an endpoint, from an environment variable and from nowhere else; never printed.

    Attributes:
        variable: the variable's name, for messages.
        value: the key; "" when the variable is not set.
    """

    variable: str
    value: str

    def __repr__(self) -> str:
        return f"ApiKey({self.variable!r})"

    @classmethod
    def from_environment(cls, variable: str, *, required: bool) -> ApiKey:
        """Read the variable.

        Raises:
            OptionError: it is required and not set, or holds what no key can hold; the message never shows it.
        """
        value = os.environ.get(variable, "").strip()
        if required and not value:
            raise OptionError(f"the environment variable {variable} (--api-key-env) is not set; export the key in it")
        if not all("!" <= character <= "~" for character in value):
            raise OptionError(
                f"the key in {variable} holds a space, a line break or another character that no key has; copy it again"
            )
        return cls(variable, value)

    def hidden_in(self, text: str) -> str:
        """The text without the key, should a server have repeated it."""
        return text.replace(self.value, HIDDEN) if self.value else text

    @property
    def hint(self) -> str:
        """What to do when a server refuses the key."""
        if self.value:
            return f"check the key in {self.variable}"
        return f"export the key in {self.variable}, or name another variable with --api-key-env"


def check_url(url: str) -> str:
    """The base address without a trailing slash.

    Raises:
        OptionError: not an http or https address, or one that carries a name, a key, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, usable = urlsplit(""), False
    if parts.username or parts.password or parts.query or parts.fragment:
        raise OptionError(
            "the endpoint's address must not carry a user, a password or a query; give it as "
            "http://HOST:PORT/v1 and the key in an environment variable (--api-key-env)"
        )
    if not usable:
        raise OptionError(f"{url!r} is no endpoint; give its base address, such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def in_the_clear(url: str) -> bool:
    """Whether a key sent to this address can be read on the way."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK
