"""Long prompts in generate, chat and server: the flags do what Python's options do, and all of them report."""

import io
import json

import pytest

from mlx_ddtree import load
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.programs import arguments
from mlx_ddtree.programs.conversation import Conversation
from mlx_ddtree.programs.generate import main, make_arguments
from mlx_ddtree.server.__main__ import make_arguments as server_arguments
from mlx_ddtree.server.options import compression_of
from mlx_ddtree.server.requests import ChatRequest
from mlx_ddtree.server.run import make_settings

from ..server.running import make_engine, serving, started

LONG = "\n".join(f"def function_{i}(a, b):\n    return a * {i} + b\n" for i in range(75)) + "\nWhat is function_7?"
SHORTER = ("--prefill-compression", "always", "--prefill-scorer", "lexical", "--prefill-keep-ratio", "0.3")


def run(capsys, monkeypatch, *arguments):
    monkeypatch.setattr("sys.stdin", io.StringIO(LONG))
    code = main(["--prompt", "-", "--method", "ar", "-m", "3", *arguments])
    return code, *capsys.readouterr()


def test_generate_reports_what_was_kept(capsys, monkeypatch):
    code, out, _ = run(
        capsys, monkeypatch, *SHORTER, "--json", "--system-prompt", "Be brief.", "--kv-keep-ratio", "0.5"
    )
    report = json.loads(out)["compression"]
    assert code == 0
    assert report["scorer"] == "lexical" and 0.29 < report["ratio"] < 0.34
    assert report["forced"]["protected"] >= 15  # the system prompt and the template's tokens
    assert report["kv_rows"][1] < report["kv_rows"][0] == report["kept_tokens"] - 1
    assert report["seconds"]["first_token"] > report["seconds"]["score"] > 0


def test_verbose_says_it_in_words(capsys, monkeypatch):
    code, _, err = run(capsys, monkeypatch, *SHORTER, "-v", "--prefill-positions", "compact")
    assert code == 0
    assert "Prompt (approximate): " in err and "compact positions, chosen by lexical" in err


def test_without_flags_nothing_is_reported(capsys, monkeypatch):
    code, out, _ = run(capsys, monkeypatch, "--json", "--prompt", "Hello.")
    assert code == 0 and "compression" not in json.loads(out)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--prefill-keep-ratio", "2"), "prefill_keep_ratio 2.0"),
        (("--kv-keep-ratio", "0"), "kv_keep_ratio 0.0"),
        ((*SHORTER, "--prefill-protect", "not in there"), "does not occur"),
        ((*SHORTER[:2], "--prefill-scorer", "/no/such/folder"), "/no/such/folder"),
    ],
)
def test_wrong_options_are_one_line(capsys, monkeypatch, wrong, says):
    code, _, err = run(capsys, monkeypatch, *wrong)
    assert code == 2 and says in err and err.count("error:") == 1 and "Traceback" not in err


def test_all_flags_arrive():
    args = make_arguments().parse_args([
        *("--prefill-compression", "auto", "--prefill-threshold", "5", "--prefill-keep-ratio", "0.2"),
        *("--prefill-scorer", "x", "--prefill-positions", "compact", "--prefill-protect", "a", "b"),
    ])  # fmt: skip
    assert arguments.generation_options(args).make_compression() == PrefillCompression(
        "auto", 5, 0.2, "x", "compact", protect=("a", "b")
    )
    assert arguments.generation_options(make_arguments().parse_args([])).make_compression() == PrefillCompression("off")


def test_a_chat_goes_on_behind_a_compressed_message():
    settings = GenerationOptions(
        max_tokens=4, method="ar", prefill_compression="always", prefill_scorer="lexical", prefill_keep_ratio=0.3,
        prefill_protect=["something that is said later"],
    )  # fmt: skip
    talk = Conversation(load(), settings)
    *_, last = talk.say(LONG)
    assert last.compression.ratio < 0.35
    coverage = talk.session.cache.coverage
    *_, last = talk.say("And function_8?")
    assert last.compression is None and talk.session.cache.coverage == coverage
    assert talk.session.reused >= coverage.source
    assert "prefill_compression" in talk.command("/set prefill_compression off")
    with pytest.raises(MlxDdtreeError, match="sometimes"):
        talk.command("/set prefill_compression sometimes")


def test_a_loaded_chat_keeps_its_current_message(tmp_path):
    """Older turns are what is compressed."""
    talk = Conversation(load(), GenerationOptions(max_tokens=4, method="ar"))
    talk.messages = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "It is a function."}]
    for name, value in (
        ("prefill_compression", "always"),
        ("prefill_scorer", "lexical"),
        ("prefill_keep_ratio", "0.3"),
    ):
        talk.command(f"/set {name} {value}")
    question = "And what do function_8 and function_31 return for a of one and b of two?"
    *_, last = talk.say(question)
    ids = talk.session.token_ids
    kept = [ids[i] for first, end in last.compression.spans for i in range(first, end)]
    assert question in talk.pair.tokenizer.decode(kept)
    assert last.compression.ratio < 0.35


def test_requests_overrule_the_server():
    base = PrefillCompression("off", scorer="lexical")
    asked = ChatRequest(
        messages=[{"role": "user", "content": "x"}], prefill_compression="auto", prefill_threshold=7,
        prefill_keep_ratio=0.4, prefill_positions="compact", prefill_protect=["a"],
    )  # fmt: skip
    assert compression_of(asked, base) == PrefillCompression("auto", 7, 0.4, "lexical", "compact", protect=["a"])
    assert compression_of(ChatRequest(messages=[{"role": "user", "content": "x"}]), base) == base


def test_the_server_compresses_where_it_is_asked_to():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": LONG}]
    ask = {"messages": messages, "max_tokens": 3}
    short = {"prefill_compression": "always", "prefill_keep_ratio": 0.3, "prefill_protect": ["function_9("]}
    server = make_engine(method="ar", tree_budget=0, parity="off")
    with started(server) as engine, serving(engine, compression=PrefillCompression("off", scorer="lexical")) as site:

        def post(path="chat/completions", **body):
            answer = site.http.post(f"/v1/{path}", json=body)
            return answer.status_code, answer.json()

        _, plain = post(messages=messages[:1], max_tokens=2)
        assert "compression" not in plain["mlx_ddtree"]
        report = post(**ask, **short)[1]["mlx_ddtree"]["compression"]
        assert report["ratio"] < 0.35 and report["scorer"] == "lexical"
        assert report["seconds"]["first_token"] >= report["seconds"]["score"]
        for wrong, param in (
            ({"prefill_protect": ["nowhere"]}, "prefill_protect"),
            ({"kv_keep_ratio": 3}, "kv_keep_ratio"),
        ):
            status, refused = post(**ask | short | wrong)
            assert status == 400 and refused["error"]["param"] == param
        _, text = post("completions", prompt=LONG, max_tokens=2, **short)
        assert text["mlx_ddtree"]["compression"]["ratio"] < 0.35


def test_server_flags_become_its_defaults():
    args = server_arguments().parse_args([*SHORTER, "--kv-keep-ratio", "0.5"])
    settings = make_settings(args, None)
    assert settings.compression == PrefillCompression("always", keep_ratio=0.3, scorer="lexical")
    assert settings.kv_keep_ratio == 0.5
