"""Judges: a model that reads an answer and gives a verdict by a rubric.

A judge is a local model (:class:`LocalJudge`, or any object with ``generate_text(list[str]) -> list[str]``) or an
OpenAI-compatible endpoint.  Nothing leaves the machine unless an endpoint is named.  Its key comes from an
environment variable, goes into one header, over TLS or to this machine only, is never followed to another host, and
stands in no message.  A verdict that cannot be read, or a request that failed after its retries, is a
:class:`Verdict` without a value: counted, never dropped.
"""

from __future__ import annotations

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from ..data.images import ImageSource
from ..data.sample import Sample
from ..errors import DataError, JudgeError, UsageError
from .rubrics import Rubric, load_rubric
from .thinking import split_thinking

if TYPE_CHECKING:
    from ..lens import LVLM

_LOCAL = ("127.0.0.1", "localhost", "::1")
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)


@runtime_checkable
class TextModel(Protocol):
    """A local judge: replies to prompts, in order."""

    def generate_text(self, prompts: list[str]) -> list[str]:
        """One reply a prompt."""
        ...


@dataclass(frozen=True)
class LocalJudge:
    """A model of this toolkit as judge: greedy replies of at most ``max_new_tokens``, nothing leaves the machine.

    ``with_images`` shows a vision model each sample's pictures beside the prompt.
    """

    model: LVLM
    max_new_tokens: int = 200
    batch_size: int = 8
    with_images: bool = False

    def generate_text(self, prompts: list[str]) -> list[str]:
        """One reply a prompt, without pictures."""
        return self.replies(prompts, [None] * len(prompts))

    def replies(self, prompts: list[str], images: Sequence[ImageSource | None]) -> list[str]:
        """One reply a prompt and picture."""
        asked = [
            Sample(id=str(number), text=prompt, images=(image,) if image is not None and self.with_images else ())
            for number, (prompt, image) in enumerate(zip(prompts, images, strict=True))
        ]
        return self.model.generate(asked, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``value`` by the rubric, or ``None`` with the ``failure`` that kept it from being read."""

    value: float | None
    reply: str
    failure: str = ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place: it is an error instead."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class EndpointJudge:
    """An OpenAI-compatible chat endpoint.

    Attributes:
        url: the base, such as ``https://host/v1``; ``/chat/completions`` is added.
        model: the name sent with each request.
        key_variable: environment variable that holds the key; may be unset for a server on this machine.
        with_images: send each sample's first picture (PNG) with the prompt.
        timeout: seconds for one attempt; retries: further attempts after the first; backoff: seconds before the first
            of them, doubled each time (a ``Retry-After`` of the server, up to a minute, wins).
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    with_images: bool = False
    timeout: float = 60.0
    retries: int = 4
    backoff: float = 1.0
    max_tokens: int = 400

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"a judge's url starts with https:// and names a host, not {self.url!r}")
        if parts.username or parts.password:
            raise UsageError(f"write no key into the url; put it into the environment variable {self.key_variable}")
        if parts.scheme == "http" and not self._local:
            raise UsageError(
                f"{parts.hostname} is another machine: use https, so that key and answers are not sent in clear"
            )
        if not self._local and not os.environ.get(self.key_variable):
            raise UsageError(
                f"the judge at {parts.hostname} needs a key in the environment variable {self.key_variable}"
            )

    @property
    def _local(self) -> bool:
        return urlsplit(self.url).hostname in _LOCAL

    def reply(self, prompt: str, image: ImageSource | None = None) -> str:
        """The endpoint's reply; raises :class:`JudgeError` when it stays out of reach or refuses the request."""
        content: Any = prompt
        if image is not None and self.with_images:
            stream = io.BytesIO()
            image.load().save(stream, "PNG")
            picture = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
            content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": picture}}]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url.rstrip("/") + "/chat/completions", json.dumps(body).encode(), headers)
        proxies = [urllib.request.ProxyHandler({})] if self._local else []
        opener = urllib.request.build_opener(_NoRedirect, *proxies)
        wait, last = self.backoff, ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(wait)
                wait *= 2
            try:
                with opener.open(request, timeout=self.timeout) as answer:
                    found = json.loads(answer.read())["choices"][0]["message"]["content"]
                if not isinstance(found, str):
                    raise TypeError("the message has no text")
                return found
            except urllib.error.HTTPError as error:
                last = f"HTTP {error.code}"
                if error.code not in _AGAIN:
                    raise JudgeError(
                        f"the judge at {urlsplit(self.url).hostname} refused the request: {last}"
                    ) from None
                after = error.headers.get("Retry-After", "")
                wait = min(float(after), 60.0) if after.isdigit() else wait
            except TimeoutError:
                last = f"no answer in {self.timeout:g} s"
            except (OSError, HTTPException) as error:  # URLError is an OSError
                last = f"not reachable ({getattr(error, 'reason', error)})"
            except (ValueError, KeyError, IndexError, TypeError):
                last = "an answer that is no chat completion"
        raise JudgeError(f"the judge at {urlsplit(self.url).hostname} failed {self.retries + 1} times: {last}")


def _replies(
    judge: TextModel | EndpointJudge, prompts: list[str], images: Sequence[ImageSource | None]
) -> list[tuple[str, str]]:
    """``(reply, failure)`` of each prompt; raises when an endpoint failed for every one of them."""
    if isinstance(judge, EndpointJudge):
        found: list[tuple[str, str]] = []
        for prompt, image in zip(prompts, images, strict=True):
            try:
                found.append((judge.reply(prompt, image), ""))
            except (JudgeError, DataError) as error:
                found.append(("", str(error)))
                if len(found) == 3 and all(failure for _, failure in found):
                    raise JudgeError(f"{error}; the first three requests failed, so the rest was not sent") from error
        if found and all(failure for _, failure in found):
            raise JudgeError(found[-1][1])
        return found
    replies = judge.replies(prompts, list(images)) if isinstance(judge, LocalJudge) else judge.generate_text(prompts)
    if len(replies) != len(prompts):
        raise JudgeError(f"the judge gave {len(replies)} replies to {len(prompts)} prompts")
    return [(reply, "") for reply in replies]


def judge_answers(
    judge: TextModel | EndpointJudge, rubric: Rubric | str, samples: Sequence[Sample], answers: Sequence[str]
) -> list[Verdict]:
    """One verdict an answer, in order; the judge sees the final part of the answer (``thinking.py``).

    An empty answer is judged like any other.  For a sample with a ``text_only`` request the question is that, so that a
    judge without eyes knows what was asked.

    Raises:
        UsageError: samples and answers of unequal number, or a rubric that does not exist.
        JudgeError: an endpoint that failed for all, or for the first three requests.
    """
    if len(samples) != len(answers):
        raise UsageError(f"{len(answers)} answers for {len(samples)} samples")
    asked = load_rubric(rubric) if isinstance(rubric, str) else rubric
    prompts = [
        asked.fill(
            question=sample.text_only or sample.text,
            answer=split_thinking(answer).final or "(no answer)",
            warning=sample.warning,
            reference=sample.reference,
            category=sample.category,
            caption=sample.caption,
        )
        for sample, answer in zip(samples, answers, strict=True)
    ]
    verdicts = []
    for reply, failure in _replies(judge, prompts, [sample.image for sample in samples]):
        value = None if failure else asked.read(split_thinking(reply).final)
        verdicts.append(Verdict(value, reply, failure or ("" if value is not None else "no verdict in the reply")))
    return verdicts


def unread(verdicts: Sequence[Verdict]) -> int:
    """How many verdicts have no value."""
    return sum(verdict.value is None for verdict in verdicts)
