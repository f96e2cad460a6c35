"""`toolkit bench`: it runs on a tiny model, keeps what it measured, and compares only like runs."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.client.fake_server import fake_server
from tests.server.tiny_model import write_tiny_model
from toolkit import LLM, experiments, serve
from toolkit.cli import app
from toolkit.cli.bench.compare import compare, differences
from toolkit.cli.bench.device_timing import seconds_per_call
from toolkit.cli.bench.kernel_cases import CASES
from toolkit.cli.bench.kernels import _timings, time_case
from toolkit.cli.bench.limits import gemm_rate, read_rate
from toolkit.cli.bench.options import workload_for
from toolkit.cli.bench.results import BenchResult, combine
from toolkit.cli.bench.throughput import measure_throughput
from toolkit.errors import InvalidConfig, RequestFailed, UnlikeRuns
from toolkit.experiments import Poisson, Workload
from toolkit.kernels import Ops, select_ops
from toolkit.server import Server

runner = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def server(model: str) -> Iterator[Server]:
    with serve(model, port=0, max_num_seqs=4) as server:
        yield server


def bench(*arguments: str) -> Result:
    return runner.invoke(app, ["bench", *arguments])


def result(**changes: object) -> BenchResult:
    settings = {"model": "m", "dtype": "float32", "kernels": "cpu"}
    made = combine("throughput", settings, [{"output_throughput": rate} for rate in (9, 10, 11)])
    return replace(made, **changes)  # type: ignore[arg-type]


def test_what_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    done = bench("throughput", "--model", str(tmp_path / "none"), "--output", str(tmp_path))
    assert done.exit_code == 1
    assert "is a folder: give the name of a file in it" in done.output


def test_throughput_is_not_measured_on_requests_that_failed(model: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no luck")

    with LLM(model) as llm:
        llm.engine.runner.decoder.forward = fail
        with pytest.raises(RequestFailed, match="2 of 2 requests failed"):
            measure_throughput(llm, Workload.from_prompts([[5, 6, 7]] * 2, 4))


def test_throughput_measures_each_repeat_with_an_empty_cache(model: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    sizes = ["--num-prompts", "3", "--input-len", "40", "--output-len", "4"]
    done = bench("throughput", "-m", model, *sizes, "--repeats", "2", "--output", str(path))
    assert done.exit_code == 0, done.output
    loaded = BenchResult.load(path)
    assert loaded.settings["num_output_tokens"] == 12
    assert loaded.metrics["output_throughput"]["runs"] == 2
    assert loaded.metrics["cached_tokens"]["max"] == 0
    assert loaded.settings["kernels"]
    assert loaded.environment["threads"] == torch.get_num_threads()


def test_a_workload_file_says_what_is_asked(model: str, tmp_path: Path) -> None:
    path, output = tmp_path / "w.json", tmp_path / "result.json"
    path.write_text(json.dumps([{"prompt_token_ids": [5, 6, 7], "output_len": 2}] * 2))
    options = ["--workload", str(path), "--repeats", "1", "--output", str(output)]
    assert bench("throughput", "-m", model, *options).exit_code == 0
    settings = BenchResult.load(output).settings
    assert (settings["num_prompts"], settings["num_prompt_tokens"]) == (2, 6)
    path.write_text('{"prompt": "x"}')
    refused = bench("throughput", "-m", model, *options)
    assert refused.exit_code == 1
    assert "prompt_token_ids" in refused.stderr


def test_latency_measures_a_single_stream(model: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    sizes = ["--input-len", "8", "--output-len", "4", "--repeats", "2", "--no-limits"]
    done = bench("latency", "-m", model, *sizes, "--output", str(path))
    assert done.exit_code == 0, done.output
    metrics = BenchResult.load(path).metrics
    medians = {name: metric["median"] for name, metric in metrics.items()}
    assert 0 < medians["ttft_ms"] < medians["e2el_ms"]
    assert medians["tpot_ms"] > 0


@pytest.mark.slow
def test_latency_prints_both_fractions_of_the_limit(model: str) -> None:
    done = bench("latency", "-m", model, "--input-len", "8", "--output-len", "4", "--repeats", "1")
    assert done.exit_code == 0, done.output
    assert "decode_fraction_of_read_rate" in done.stdout
    assert "prefill_fraction_of_gemm_rate" in done.stdout
    assert "read_gb_per_s" in done.stdout


def test_a_request_that_does_not_fit_is_refused(model: str) -> None:
    done = bench("throughput", "-m", model, "--input-len", "510", "--output-len", "9")
    assert done.exit_code == 1
    assert "--input-len" in done.stderr


def test_serve_measures_a_server_from_outside(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    sizes = ["--num-prompts", "3", "--input-len", "8", "--output-len", "4", "--vocab-size", "200"]
    options = [*sizes, "--repeats", "2", "--request-rate", "50", "--output", str(path)]
    done = bench("serve", "--base-url", server.url, *options)
    assert done.exit_code == 0, done.output
    metrics = BenchResult.load(path).metrics
    assert metrics["completed"]["median"] == 3
    assert metrics["total_output_tokens"]["median"] == 12
    assert metrics["failed"]["max"] == 0
    assert metrics["p99_e2el_ms"]["median"] >= metrics["p99_ttft_ms"]["median"] > 0


def test_serve_writes_a_folder_from_which_it_can_be_asked_again(
    server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()  # one that is there is as good as one that is not
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.680,6,3\n2023-11-16 18:15:46.690,9,2\n"
    )
    options = ["--trace", str(trace), "--trace-format", "azure", "--vocab-size", "200"]
    limits = ["--repeats", "1", "--num-warmups", "0", "--max-concurrency", "1"]
    done = bench("serve", f"{server.url}/v1", *options, *limits, "--output", str(folder))
    assert done.exit_code == 0, done.output
    assert BenchResult.load(folder / "result.json").metrics["completed"]["median"] == 2
    run = experiments.Run.load(folder / "run-0.zip")
    assert run.requests["num_output_tokens"].tolist() == [3, 2]
    assert run.workload is not None
    assert run.workload.table["due_s"].tolist() == pytest.approx([0.0, 0.01])


def test_a_trace_of_another_format_is_told_the_option(tmp_path: Path) -> None:
    trace = tmp_path / "azure.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.680,6,3\n")
    done = bench("serve", "http://127.0.0.1:1", "--trace", str(trace))
    assert done.exit_code == 1
    assert "--trace-format" in done.stderr


def test_a_rate_makes_the_workload_what_it_says() -> None:
    sizes = {"num_prompts": 3, "input_len": 8, "output_len": 4, "seed": 0}
    made = workload_for(None, arrivals=Poisson(4.0), **sizes)
    assert repr(made).startswith("Workload(Poisson(rate=4.0,")
    assert repr(workload_for(None, **sizes)).startswith("Workload(AtOnce()")


def test_serve_says_why_nothing_was_answered(server: Server) -> None:
    sizes = ["--num-prompts", "1", "--input-len", "9999", "--vocab-size", "200"]
    done = bench("serve", "--base-url", server.url, *sizes)
    assert done.exit_code == 1
    assert "none of 1 requests was answered; the first: 400" in done.stderr


def test_an_interrupt_ends_serve_and_nothing_is_made_of_it(tmp_path: Path) -> None:
    def interrupt() -> None:
        while len(fake.bodies) < 3:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    path = tmp_path / "result.json"
    sizes = ["--num-prompts", "100", "--rate", "20", "--output-len", "2", "--num-warmups", "0"]
    with fake_server() as fake:
        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        done = bench("serve", fake.url, *sizes, "--repeats", "2", "--output", str(path))
        interrupter.join()
    assert done.exit_code == 130
    assert len(fake.bodies) < 100
    assert "completed" not in done.stdout
    assert not path.exists()


def test_a_server_that_is_not_there_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = bench("serve", "--base-url", f"http://127.0.0.1:{port}")
    assert done.exit_code == 1
    assert "no server answers at" in done.stderr
    assert "refused" in done.stderr


def test_like_runs_are_compared_metric_by_metric() -> None:
    faster = result(metrics={"output_throughput": {"median": 20, "min": 19, "max": 21, "runs": 3}})
    (ratio,) = compare(result(), faster)
    assert ratio.ratio == 2.0
    assert not ratio.ranges_overlap
    assert compare(result(), result())[0].ranges_overlap


def test_unlike_runs_are_refused_with_the_fields_named() -> None:
    other = result(
        settings={**result().settings, "dtype": "bfloat16"},
        environment={**result().environment, "cpu": "another"},
    )
    with pytest.raises(UnlikeRuns, match=r"dtype: 'float32' and 'bfloat16'\n.*cpu: "):
        compare(result(), other)
    with pytest.raises(UnlikeRuns) as caught:
        compare(result(), other, allow=["dtype"])
    assert "--allow cpu" in str(caught.value)
    assert "dtype:" not in str(caught.value)
    assert len(compare(result(), other, allow=["dtype", "cpu"])) == 1


def test_a_setting_that_only_one_run_has_is_a_difference() -> None:
    other = result(settings={**result().settings, "quantization": "int8"})
    assert differences(result(), other) == {"quantization": (None, "int8")}


def test_a_field_to_allow_must_exist() -> None:
    with pytest.raises(UnlikeRuns, match="no field dtpye"):
        compare(result(), result(), allow=["dtpye"])


def test_date_load_and_version_may_differ() -> None:
    changed = {**result().environment, "date": "x", "load_average_1_min": 9.0, "toolkit": "9"}
    assert differences(result(), result(environment=changed)) == {}


def test_compare_reads_what_the_others_wrote(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    result().save(first)
    result(settings={**result().settings, "kernels": "reference"}).save(second)
    refused = bench("compare", str(first), str(second))
    assert refused.exit_code == 1
    assert "kernels: 'cpu' and 'reference'" in refused.stderr
    allowed = bench("compare", str(first), str(second), "--allow", "kernels")
    assert allowed.exit_code == 0
    assert "1.000" in allowed.stdout
    second.write_text("{}")
    assert "is no result of" in bench("compare", str(first), str(second)).stderr


def test_every_op_has_a_case_and_every_case_runs() -> None:
    ops = select_ops("reference", torch.device("cpu"))
    # cut_unlikely changes its argument, so a second call has other work to do: its times are in
    # kernels/bench/row_ops_cpu.py.
    names = {field.name for field in fields(Ops)}
    names -= {"name", "level", "pack_linear", "fuse_layers", "cut_unlikely"}
    assert names <= {case.op for case in CASES}
    smallest = {case.op: case for case in reversed(CASES) if case.cold is None}
    for name in names - {"linear"}:
        timing = time_case(smallest[name], ops, torch.float32, repeats=1)
        assert timing.median_s > 0
        assert timing.num_bytes > 0


def test_an_op_or_an_implementation_that_is_not_here_is_named() -> None:
    with pytest.raises(InvalidConfig, match="no op norm; there are: linear"):
        list(_timings(["norm"], None, torch.float32, 1))
    with pytest.raises(InvalidConfig, match="no 'cuda' kernels"):
        list(_timings(None, ["cuda"], torch.float32, 1))


def test_a_device_that_is_not_here_is_refused() -> None:
    assert "neither 'cpu' nor 'cuda'" in bench("kernels", "--device", "tpu").stderr
    if not torch.cuda.is_available():
        assert "sees no CUDA device" in bench("kernels", "--device", "cuda").stderr


def test_calls_are_timed_one_by_one() -> None:
    calls = [lambda: time.sleep(0.002)] * 5
    assert 0.002 <= seconds_per_call(calls, torch.device("cpu")) < 0.2


def test_a_run_that_was_disturbed_says_so() -> None:
    quiet, busy = ({"output_throughput": 1.0, "other_cores": cores} for cores in (0.02, 0.9))
    assert combine("throughput", {}, [quiet, quiet]).notes == []
    (note,) = combine("throughput", {}, [quiet, busy]).notes
    assert "0.9 cores" in note


def test_measuring_a_server_loads_no_torch() -> None:
    code = (
        "import sys; from toolkit.cli.bench import serve; from toolkit.experiments import run; "
        "from toolkit.cli.bench.environment import environment; environment(); "
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_machines_limits_are_positive_rates() -> None:
    assert read_rate(1 << 20) > 0
    assert gemm_rate(torch.float32, sizes=(64,)) > 0
