r"""Prints six pages of prometheus_client, with `\n--\n` between them: of one process, of three workers, and
of one process with quoted names, each in the text format and as OpenMetrics."""

import os
import sys
import tempfile

folder = tempfile.mkdtemp()
workers = []
for count in (1, 2, 3):
    workers.append(os.fork())
    if workers[-1] == 0:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        from prometheus_client import Counter, Histogram

        calls = Counter("mcp_calls", "Calls.", ["tool"])
        errors = Counter("mcp_errors", "Errors.")
        seconds = Histogram("mcp_call_seconds", "Time.")
        for number in range(10 * count):
            calls.labels("forecast").inc()
            seconds.observe(number / 10)
        errors.inc(0.5 * count)
        os._exit(0)
for worker in workers:
    if os.waitpid(worker, 0)[1] != 0:
        sys.exit("a worker failed")

from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

calls = Counter("mcp_calls", 'Calls by "tool".\nAnd \\ more.', ["tool"])
for number in range(40):
    calls.labels('a "b"\n\\c{},=' if number % 4 else "forecast").inc(exemplar={"trace_id": str(number)})
several = CollectorRegistry()
MultiProcessCollector(several, folder)
quoted = CollectorRegistry()
requests = Counter("http.requests", "Requests.", ["status.code"], registry=quoted)
requests.labels("200").inc(7)
requests.labels("500").inc(2)
pages = [make(registry) for registry in (REGISTRY, several) for make in (generate_latest, generate_openmetrics)]
pages += [make(quoted, "allow-utf-8") for make in (generate_latest, generate_openmetrics)]
sys.stdout.buffer.write(b"\n--\n".join(pages))
