"""The one boundary at which a server's refusal becomes a message of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ModelError


@contextmanager
def answered(name: str) -> Iterator[None]:
    """Say in one line that a server cannot be asked, or what it answered instead."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError
    from nnsight.intervention.backends.remote import RemoteError

    try:
        yield
    except (RemoteError, httpx.HTTPError, HfHubHTTPError, OSError, ValueError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{name!r} on NDIF: {said[-1]} (running models: nnsight.ndif_status())") from error
