"""`tzk explore`: only its own page is answered, what it asks is checked, and Ctrl-C ends it with 130."""

from __future__ import annotations

import base64
import http.client
import io
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import output_of
from PIL import Image
from tzk_plugin_report import explore
from tzk_plugin_report.explore import server_of
from tzk_plugin_report.live import Live, Wanted
from tzk_plugin_report.server import ADDRESS, PageServer, decoded_file

from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.errors import TzkError


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[PageServer]:
    with server_of(run) as opened:
        thread = threading.Thread(target=opened.serve_forever, daemon=True)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def request(
    server: PageServer, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(ADDRESS, server.server_port, timeout=60)
    own = {"X-TzK-Token": server.token, "Host": server.hosts[0]} | (headers or {})
    connection.request(method, path, None if body is None else json.dumps(body), own)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = "json" in response.headers["Content-Type"]
    return response.status, json.loads(content) if is_json else content.decode()


def test_it_listens_on_this_machine_alone_and_the_page_has_the_report_and_the_sliders(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    status, page = request(server, "GET", f"/?token={server.token}")
    assert status == 200 and 'id="live-form"' in page and 'id="answer"' in page


@pytest.mark.parametrize(
    ("path", "headers", "reason"),
    [
        ("/", {}, "token"),
        ("/?token=wrong", {}, "token"),
        ("/?token=TOKEN", {"Host": "evil.example:80"}, "this server is"),
        ("/?token=TOKEN", {"Origin": "https://evil.example"}, "other sites"),
        ("/?token=TOKEN", {"Origin": "null"}, "other sites"),
    ],
)
def test_other_hosts_other_origins_and_wrong_tokens_are_refused(
    server: PageServer, path: str, headers: dict[str, str], reason: str
) -> None:
    status, answer = request(server, "GET", path.replace("TOKEN", server.token), headers=headers)
    assert status == 403 and reason in answer["error"]
    posted, _ = request(server, "POST", "/sample", {}, headers | ({} if headers else {"X-TzK-Token": "wrong"}))
    assert posted == 403


def test_samples_with_and_not_and_a_fixed_c(server: PageServer) -> None:
    status, answer = request(
        server, "POST", "/sample", {"present": ["digit-3"], "characteristics": {"digit-3": [0.1, -0.2]}, "count": 3}
    )
    assert (
        status == 200 and answer["caption"] == "3 samples of digit-3, temperature 1" and answer["sprite"]["count"] == 3
    )
    status, answer = request(server, "POST", "/sample", {"present": ["digits"], "absent": ["digit-3"], "count": 3})
    assert (status == 200 and "not digit-3" in answer["caption"]) or "effective" in answer["error"]
    assert status != 200 or "particles are effective" in answer["caption"]


def test_a_composition_is_that_of_the_model_and_says_how_many_particles_are_effective() -> None:
    live = Live.__new__(Live)  # without a run
    live.model = TzK(build_flow((4,), layers=[{"type": "affine"}]))
    for name in ("a", "b"):
        live.model.add(name, build_knowledge("gaussian", (4,), name=name))
    for wanted in (Wanted(("a", "b"), count=4, seed=1), Wanted(("a",), ("b",), count=4, seed=1)):
        drawn, particles = live._sampled(wanted)
        assert torch.equal(drawn, live.model.sample(4, wanted.present, seed=1, without=wanted.absent))
        assert "particles are effective" in particles and "%" in particles
    assert live._sampled(Wanted(("a",)))[1] == ""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"present": ["digit-33"]}, "did you mean"),
        ({"present": "digit-3"}, "expected a list of names"),
        ({"temperature": "hot"}, "expected a number"),
        ({"count": 10_000}, "from 1 to 64"),
        ({"file": "/etc/passwd"}, "unknown keys file"),
        ([1, 2], "expected a JSON object"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(server: PageServer, body: Any, reason: str) -> None:
    status, answer = request(server, "POST", "/sample", body)
    assert status == 400 and reason in answer["error"]


def test_an_image_has_a_score_and_its_best_types_as_the_model_computes_them(server: PageServer, run: Path) -> None:
    import tzk_core

    file = io.BytesIO()
    Image.new("L", (16, 16), 0).save(file, "png")
    content = base64.b64encode(file.getvalue()).decode()
    status, answer = request(server, "POST", "/posterior", {"content": content, "name": "mine.png"})
    assert status == 200 and len(answer["best"]) == 5
    assert answer["best"] == sorted(answer["best"], key=lambda best: -best["gain_nats"])
    model = tzk_core.load(run)
    blank = torch.full((1, 1, 16, 16), 0.5 / 256)
    bits = 8 - model.log_prob(blank).item() / 256 / 0.6931471805599453
    assert answer["bits_per_dim"] == pytest.approx(bits, abs=0.5)  # but for the noise of dequantisation
    status, answer = request(server, "POST", "/posterior", {"content": content, "name": "mine.exe"})
    assert status == 400 and "expected an image" in answer["error"]


@pytest.mark.parametrize("size", [None, (30, 20)])
def test_an_image_that_cannot_be_read_is_named_as_its_owner_named_it(
    server: PageServer, size: tuple[int, int] | None
) -> None:
    file = io.BytesIO(b"no image")
    if size is not None:
        Image.new("L", size).save(file, "png")
    content = base64.b64encode(file.getvalue()).decode()
    status, answer = request(server, "POST", "/posterior", {"content": content, "name": "mine.png"})
    assert status == 400 and "mine.png" in answer["error"]
    assert tempfile.gettempdir() not in answer["error"] and "score" not in answer["error"]


def test_files_come_in_base_64() -> None:
    assert decoded_file({"content": "YQ=="}) == b"a"
    with pytest.raises(TzkError, match="base 64"):
        decoded_file({"content": "?"})


def test_unknown_paths_are_no_answers(server: PageServer) -> None:
    assert request(server, "GET", f"/etc/passwd?token={server.token}")[0] == 404
    assert request(server, "POST", "/other", {})[0] == 404


def test_defaults_are_samples_of_the_prior() -> None:
    assert Wanted.of({}) == Wanted(characteristics={})


def test_ctrl_c_ends_it_with_130(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(server: PageServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", interrupted)
    output = output_of("explore", run, status=130)
    assert "http://127.0.0.1:" in output and "interrupted" in output


def test_a_port_that_is_taken_is_one_sentence(server: PageServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be used" in output_of("explore", run, "--port", server.server_port, status=2)
    assert explore.command.name == "explore"
