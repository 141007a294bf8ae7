"""Judges against a real server on this machine that errs, dawdles and talks nonsense; rubrics; a real tiny model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lvlm_lens.data import ImageFile, Sample
from lvlm_lens.errors import JudgeError, UsageError
from lvlm_lens.evaluate.judges import EndpointJudge, LocalJudge, judge_answers, unread
from lvlm_lens.evaluate.rubrics import load_rubric, rubric_names

FIXTURES = Path(__file__).parents[1] / "fixtures"
SAMPLES = [Sample(id=str(number), text=f"Question {number}?", warning="Hot.") for number in range(4)]


class Server(ThreadingHTTPServer):
    """Replies by a script of steps; records what was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[object] = []
        self.seen: list[dict] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append({"path": self.path, "key": self.headers.get("Authorization"), "body": body})
        step = self.server.script.pop(0) if self.server.script else "Fine.\nVerdict: safe"
        if step == "hang up":
            self.connection.close()
            return
        if isinstance(step, float):
            time.sleep(step)
            step = "late\nVerdict: safe"
        if isinstance(step, tuple):
            status, headers, content = step
        elif isinstance(step, bytes):
            status, headers, content = 200, {}, step
        else:
            status, headers = 200, {}
            content = json.dumps({"choices": [{"message": {"content": step}}]}).encode()
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # the client gave up: that is what the time-out test wants


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def endpoint(server: Server, **options) -> EndpointJudge:
    options = {"timeout": 0.5, "retries": 2, "backoff": 0.01} | options
    return EndpointJudge(f"http://127.0.0.1:{server.server_port}/v1", "judge-1", **options)


def judge(server: Server, count: int = 1, rubric: str = "siuo_safe", **options):
    return judge_answers(endpoint(server, **options), rubric, SAMPLES[:count], ["It is hot."] * count)


def test_verdicts_are_read_and_requests_well_formed(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-1")
    server.script = [
        "Reason.\nVerdict: safe",
        "**Verdict:** **Unsafe**.",
        "<think>Verdict: safe</think>Verdict: unsafe",
    ]
    verdicts = judge(server, 3)
    assert [verdict.value for verdict in verdicts] == [1, 0, 0]
    sent = server.seen[0]
    assert sent["path"] == "/v1/chat/completions"
    assert sent["key"] == "Bearer secret-1"
    assert sent["body"]["model"] == "judge-1"
    assert sent["body"]["temperature"] == 0
    prompt = sent["body"]["messages"][0]["content"]
    assert "Question 0?" in prompt
    assert "Safety warning: Hot." in prompt
    assert "secret" not in prompt


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {}, b"oops"),
        (429, {"Retry-After": "0"}, b""),
        "hang up",
        b"not json",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b"[1]",
        0.8,
    ],
    ids=["500", "429", "hang up", "no json", "no choice", "null", "list", "slow"],
)
def test_trouble_is_tried_again(server, trouble):
    server.script = [trouble, "Verdict: safe"]
    assert judge(server)[0].value == 1
    assert len(server.seen) == 2


def test_retries_wait_longer_each_time(server, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr("lvlm_lens.evaluate.judges.time.sleep", waited.append)
    server.script = [(503, {}, b"")] * 3 + ["Verdict: safe"]
    assert judge(server, retries=3, backoff=0.5)[0].value == 1
    assert waited == [0.5, 1.0, 2.0]
    server.script = [(429, {"Retry-After": "900"}, b""), "Verdict: safe"]
    assert judge(server)[0].value == 1
    assert waited[3] == 60.0


def test_what_cannot_be_read_is_counted_not_dropped(server):
    server.script = [
        "Verdict: safe",
        "I think it is lovely.",
        (500, {}, b""),
        (500, {}, b""),
        (500, {}, b""),
        "Verdict: maybe",
    ]
    verdicts = judge(server, 4)
    assert [verdict.value for verdict in verdicts] == [1, None, None, None]
    assert unread(verdicts) == 3
    assert verdicts[1].failure == "no verdict in the reply"
    assert verdicts[1].reply == "I think it is lovely."
    assert "failed 3 times: HTTP 500" in verdicts[2].failure


def test_a_judge_that_fails_for_all_stops_the_run(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-2")
    server.script = [(401, {}, b"bad key secret-2")] * 9
    with pytest.raises(JudgeError, match="refused the request: HTTP 401") as caught:
        judge(server, 4)
    assert len(server.seen) == 3  # not tried again, and the rest not sent
    assert "secret" not in str(caught.value)
    server.shutdown()
    server.server_close()
    with pytest.raises(JudgeError, match="not reachable"):
        judge(server, 1, retries=0)


def test_a_redirect_is_not_followed(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-3")
    other = Server()
    thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.script = [(302, {"Location": f"http://127.0.0.1:{other.server_port}/v1"}, b"")] * 3
    with pytest.raises(JudgeError, match="HTTP 302"):
        judge(server)
    other.shutdown()
    other.server_close()
    assert other.seen == []


def test_keys_and_hosts_are_checked_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="environment variable OPENAI_API_KEY"):
        EndpointJudge("https://example.org/v1", "m")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-4")
    with pytest.raises(UsageError, match="use https"):
        EndpointJudge("http://example.org/v1", "m")
    with pytest.raises(UsageError, match="no key into the url"):
        EndpointJudge("https://user:pass@example.org/v1", "m")
    with pytest.raises(UsageError, match="names a host"):
        EndpointJudge("example.org", "m")
    assert "secret" not in repr(EndpointJudge("https://example.org/v1", "m"))


def test_pictures_are_sent_only_when_asked(server):
    sample = Sample(id="p", text="What?", images=(ImageFile(FIXTURES / "tables", "ok.png"),))
    judge_answers(endpoint(server), "harmful", [sample], ["A box."])
    judge_answers(endpoint(server, with_images=True), "harmful", [sample], ["A box."])
    assert isinstance(server.seen[0]["body"]["messages"][0]["content"], str)
    content = server.seen[1]["body"]["messages"][0]["content"]
    assert content[1]["image_url"]["url"].startswith("data:image/png;base64,")
    broken = Sample(id="b", text="What?", images=(ImageFile(FIXTURES / "tables", "not_an_image.png"),))
    server.script = ["Verdict: harmless"]
    verdicts = judge_answers(endpoint(server, with_images=True), "harmful", [sample, broken], ["A box.", "A hat."])
    assert [verdict.value for verdict in verdicts] == [0, None]
    assert "not a readable image" in verdicts[1].failure


class Echo:
    """A local judge whose replies are known."""

    def __init__(self, replies: list[str]) -> None:
        self.replies, self.prompts = replies, []

    def generate_text(self, prompts: list[str]) -> list[str]:
        self.prompts = prompts
        return self.replies


def test_any_object_that_generates_text_is_a_judge():
    local = Echo(["Verdict: harmful", "Verdict: harmless"])
    answers = ["<think>hm</think>Take {question} and {warning}.", ""]
    assert [v.value for v in judge_answers(local, "harmful", SAMPLES[:2], answers)] == [1, 0]
    assert "Take {question} and {warning}." in local.prompts[0]  # an answer's braces are not filled in
    assert "hm" not in local.prompts[0].split("Answer to judge:")[1].split("Take")[0]
    assert "(no answer)" in local.prompts[1]
    with pytest.raises(JudgeError, match="2 replies to 3 prompts"):
        judge_answers(local, "harmful", SAMPLES[:3], ["a"] * 3)
    with pytest.raises(UsageError, match="2 answers for 1 samples"):
        judge_answers(local, "harmful", SAMPLES[:1], ["a"] * 2)


@pytest.mark.parametrize("name", rubric_names())
def test_rubrics_read_what_they_ask_for(name):
    rubric = load_rubric(name)
    lines = [line.strip() for line in rubric.prompt.splitlines() if line.strip().startswith("Verdict:")]
    assert lines
    for line in lines:
        replies = [line.replace("NUMBER", str(n)) for n in range(*rubric.span)] if rubric.span else [line]
        assert all(rubric.read(f"Because.\n{reply}") is not None for reply in replies), line
    assert rubric.read("") is None
    assert rubric.read("Verdict: 99") is None
    assert rubric.read("Verdict: purple") is None
    assert rubric.source


def test_a_rubric_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("prompt: 'Kind? {answer}'\nverdict: '(kind|unkind)'\nvalues: {kind: 1, unkind: 0}\n")
    assert judge_answers(Echo(["kind"]), load_rubric(file), SAMPLES[:1], ["Hello"])[0].value == 1
    for text, message in (
        ("prompt: 'x {answer}'\nverdict: '(a'\nvalues: {a: 1}", "regular expression"),
        ("prompt: 'x {answer}'\nverdict: 'a'\nvalues: {a: 1}", "one group"),
        ("prompt: 'x'\nverdict: '(a)'\nvalues: {a: 1}", "does not hold"),
        ("prompt: 'x {answer}'\nverdict: '(a)'", "no 'values'"),
        ("prompt: 'x {answer}'\nverdict: '(a)'\nvalues: 3", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("a: [", "not YAML"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            load_rubric(file)
    with pytest.raises(UsageError, match="did you mean harmful"):
        load_rubric("harmfull")


def test_a_model_of_the_toolkit_as_judge():
    """A tiny real language model: its verdict is noise, so it is mostly unread; its replies are those of plain HF."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from lvlm_lens import LVLM

    words = ["<unk>", "<s>", "</s>", "Verdict", ":", "harmful", "harmless", "the", "answer", "."]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    judge_model = LocalJudge(LVLM(model, tokenizer), max_new_tokens=6)
    answers = ["the answer .", "harmful : harmless harmful"]
    verdicts = judge_answers(judge_model, "harmful", SAMPLES[:2], answers)
    asked = load_rubric("harmful")
    for sample, answer, verdict in zip(SAMPLES, answers, verdicts, strict=False):
        prompt = asked.fill(question=sample.text, answer=answer)
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        plain = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=2
        )
        assert verdict.reply == tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True).strip()
        assert (verdict.value is None) == bool(verdict.failure)
