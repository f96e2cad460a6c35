"""GET /metrics, GET /load and server.metrics tell of the server that is asked."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from toolkit.engine.events import TokenSampled
from toolkit.llm import LLM
from toolkit.server import Server, serve
from toolkit.server.metrics_table import MetricsTable

COMPLETION = {"model": "tiny", "prompt": "Hello", "max_tokens": 5, "temperature": 0.0}


def grown(server: Server, before: MetricsTable) -> dict[str, float]:
    """What changed since a snapshot."""
    now = server.metrics
    changes = {name: value - before.get(name, 0.0) for name, value in now.items()}
    return {name: change for name, change in changes.items() if change}


def test_a_known_call_is_counted(server: Server, client: openai.OpenAI) -> None:
    before = server.metrics
    extra = {"ignore_eos": True}
    answer = client.completions.create(**COMPLETION | {"temperature": 1}, n=2, extra_body=extra)
    change = grown(server, before)
    assert answer.usage is not None
    assert change["vllm:generation_tokens_total"] == answer.usage.completion_tokens == 10
    assert change['vllm:request_success_total{finished_reason="length"}'] == 2
    assert change["vllm:request_params_n_sum"] == 2
    assert change["vllm:inter_token_latency_seconds_count"] == 8


def test_calls_are_counted_by_endpoint_and_status(server: Server, http: httpx.Client) -> None:
    before = server.metrics
    assert http.post("/v1/completions", json=COMPLETION).status_code == 200
    assert http.post("/v1/completions", json=COMPLETION | {"n": 0}).status_code == 400
    assert http.get("/v1/models/tiny").status_code == 200
    assert [http.get(f"/nowhere/{i}").status_code for i in range(3)] == [404] * 3
    change = grown(server, before)
    post, get = 'method="POST"', 'method="GET"'
    total = "toolkit:http_requests_total"
    assert change[f'{total}{{endpoint="/v1/completions",{post},status="200"}}'] == 1
    assert change[f'{total}{{endpoint="/v1/completions",{post},status="400"}}'] == 1
    assert change[f'{total}{{endpoint="/v1/models/{{name}}",{get},status="200"}}'] == 1
    assert change[f'{total}{{endpoint="none",{get},status="404"}}'] == 3
    assert change[f'http_requests_total{{handler="none",{get},status="4xx"}}'] == 3
    duration = "http_request_duration_seconds_count"
    assert change[f'{duration}{{handler="/v1/completions",{post}}}'] == 2


def test_a_scrape_gets_the_format_that_it_accepts(http: httpx.Client) -> None:
    plain = http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "vllm:num_requests_running" in {family.name for family in parse_text(plain.text)}
    accept = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    other = http.get("/metrics", headers=accept)
    assert other.headers["content-type"].startswith("application/openmetrics-text")
    assert "vllm:num_requests_running" in {family.name for family in parse_openmetrics(other.text)}
    assert other.text.endswith("# EOF\n")


def test_a_scrape_may_ask_for_some_series_alone(http: httpx.Client) -> None:
    answer = http.get("/metrics", params={"name[]": "vllm:num_requests_running"})
    assert [family.name for family in parse_text(answer.text)] == ["vllm:num_requests_running"]


def test_the_load_is_the_number_of_calls_that_are_answered(
    llm: LLM, http: httpx.Client, server: Server
) -> None:
    sampled, go_on = threading.Event(), threading.Event()

    def hold(event: TokenSampled) -> None:
        sampled.set()
        go_on.wait(timeout=30)

    unsubscribe = llm.engine.on(TokenSampled, hold)
    url = f"{server.url}/v1/completions"
    call = threading.Thread(target=httpx.post, args=(url,), kwargs={"json": COMPLETION})
    call.start()
    try:
        assert sampled.wait(timeout=30)
        assert http.get("/load").json() == {"server_load": 1}
        assert server.metrics["vllm:num_requests_running"] == 1
    finally:
        go_on.set()
        call.join()
        unsubscribe()
    assert http.get("/load").json() == {"server_load": 0}


def test_a_server_counts_from_its_start_and_leaves_the_engine_alone_after_its_end(
    llm: LLM, server: Server
) -> None:
    with serve(llm, port=0, served_model_name="second") as second:
        # What is drawn depends on how many requests came before; this one does not end by itself.
        asked = COMPLETION | {"model": "second", "ignore_eos": True}
        httpx.post(f"{second.url}/v1/completions", json=asked)
        assert second.metrics['vllm:request_success_total{finished_reason="length"}'] == 1
        assert 'model_name="second"' in second.metrics.text
        assert 'model_name="tiny"' in server.metrics.text
    last = second.metrics["vllm:prompt_tokens_total"]
    httpx.post(f"{server.url}/v1/completions", json=COMPLETION)
    assert second.metrics["vllm:prompt_tokens_total"] == last


def test_the_snapshot_renders_as_a_table(server: Server) -> None:
    table = server.metrics
    assert "vllm:num_requests_running" in repr(table)
    assert ">vllm:time_to_first_token_seconds</td>" in table._repr_html_()
    assert table["vllm:num_requests_waiting"] == 0
    with pytest.raises(KeyError):
        table["vllm:no_such_metric"]


def test_the_table_begins_with_what_is_served_and_breaks_long_rows_of_labels(
    server: Server,
) -> None:
    table = server.metrics
    prefixes = [line.partition(":")[0] for line in repr(table).splitlines()]
    assert prefixes[0] == "vllm"
    assert prefixes[-1].startswith("process_")
    assert ",<wbr>enable_prefix_caching=" in table._repr_html_()


@pytest.mark.slow
def test_the_metrics_of_a_server_process_come_by_http(model_folder: Path) -> None:
    with serve(str(model_folder), port=0, served_model_name="tiny", process=True) as apart:
        httpx.post(f"{apart.url}/v1/completions", json=COMPLETION)
        assert apart.metrics['vllm:request_success_total{finished_reason="length"}'] == 1


def test_endpoints_of_a_router_have_labels_of_their_own(llm: LLM) -> None:
    with serve(llm, port=0, served_model_name="tiny", dev=True) as server:
        assert httpx.get(f"{server.url}/engine/state").status_code == 200
        assert httpx.get(f"{server.url}/engine/record/steps").status_code == 200
        counted = [name for name in server.metrics if name.startswith("toolkit:http_requests")]
    assert [name.split('"')[1] for name in counted] == ["/engine/state", "/engine/record/{table}"]


def test_a_name_without_its_labels_is_told_what_there_is(server: Server) -> None:
    with pytest.raises(KeyError, match=r"labels included; there is vllm:request_success_total\{"):
        server.metrics["vllm:request_success_total"]
    assert "vllm:nothing" not in server.metrics
