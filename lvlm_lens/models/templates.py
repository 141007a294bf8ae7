"""A checkpoint's chat template is a stranger's program: what it may cost, and what its errors say.

transformers renders templates in Jinja's sandbox, which keeps them from files and from the interpreter, but not from
looping for hours or filling the memory.  So on load a template is rendered once in a process of its own, with a bound
on processor time and memory; and whatever it raises later is a message about the template.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from ..errors import ModelError

_SECONDS, _BYTES = 5, 2**30
_TRIAL = """
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
except (ImportError, ValueError):
    pass
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
told = json.load(sys.stdin)
room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
room.filters["tojson"] = lambda value, **options: json.dumps(value)
def refuse(message):
    raise TemplateError(message)
room.globals.update(raise_exception=refuse, strftime_now=lambda form: form)
try:
    size = sum(map(len, room.from_string(told["template"]).generate(**told["values"])))
except MemoryError:
    sys.exit(3)
except Exception:  # what a template refuses or gets wrong is said when it is really rendered
    sys.exit(0)
sys.exit(3 if size > 10**7 else 0)
""".replace("SECONDS", str(_SECONDS)).replace("BYTES", str(_BYTES))


def render(owner: Any, messages: list[dict[str, Any]]) -> str:
    """The rendered chat, ready for the model's answer.

    Raises :class:`ModelError` with the template's own words where it refuses or fails.
    """
    try:
        return owner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # foreign code: it may raise anything, and all of it is the template's fault
        reason = str(error).strip().splitlines()
        roles = " and ".join(message["role"] for message in messages)
        raise ModelError(
            f"the chat template cannot be rendered for {roles}: {type(error).__name__}: {reason[0] if reason else ''}"
        ) from error


def template_of(owner: Any) -> Any:
    """The chat template of a processor or tokenizer, or ``None``."""
    return getattr(owner, "chat_template", None) or getattr(getattr(owner, "tokenizer", owner), "chat_template", None)


def dated(owner: Any) -> tuple[str, ...]:
    """A warning where the chat template writes the day into every prompt (Llama 3, gpt-oss): tomorrow's differ."""
    if "strftime_now" not in str(template_of(owner)):
        return ()
    return ("the chat template asks for the date, so prompts of another day are others",)


def hold_template(owner: Any, label: str) -> None:
    """Render an owner's chat template once, apart; raises :class:`ModelError` where that takes too much.

    Bounds: 5 seconds of processor time, 1 GiB of memory, ten million characters.
    """
    tokenizer = getattr(owner, "tokenizer", owner)
    template = template_of(owner)
    if not isinstance(template, str):
        return
    parts = [{"type": "image"}, {"type": "text", "text": "Is it safe?"}]
    content: Any = parts if tokenizer is not owner else "Is it safe?"
    tokens = {name: getattr(tokenizer, name, None) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    values = {"messages": [{"role": "user", "content": content}], "add_generation_prompt": True, **tokens}
    plain = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", template)  # transformers' own tag; it renders nothing
    told = json.dumps({"template": plain, "values": values}, default=str)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _TRIAL], input=told, text=True, capture_output=True, timeout=60 * _SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        done = 3
    if done != 0:
        raise ModelError(
            f"model {label!r}: its chat template does not end within {_SECONDS} s and {_BYTES // 2**20} MiB for a "
            "question of three words; it is broken or made to do harm"
        )
