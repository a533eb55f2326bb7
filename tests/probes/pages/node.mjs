// Prints the two pages of prom-client: the text format, `\n--\n`, OpenMetrics.
import { Counter, Histogram, Registry, collectDefaultMetrics } from '../../real/node_modules/prom-client/index.js';

for (const type of [Registry.PROMETHEUS_CONTENT_TYPE, Registry.OPENMETRICS_CONTENT_TYPE]) {
  const registry = new Registry(type);
  collectDefaultMetrics({ register: registry });
  const calls = new Counter({
    name: 'mcp_calls_total',
    help: 'Calls.\nBy "tool" and \\ code.',
    labelNames: ['tool', 'code'],
    registers: [registry],
    enableExemplars: type === Registry.OPENMETRICS_CONTENT_TYPE,
  });
  const seconds = new Histogram({ name: 'mcp_call_seconds', help: 'Time.', registers: [registry] });
  for (let n = 0; n < 100; n += 1) {
    const labels = { tool: n % 3 ? 'forecast' : 'a "b"\n\\c{},=', code: n % 7 ? 'ok' : '-32603' };
    if (type === Registry.OPENMETRICS_CONTENT_TYPE) {
      calls.inc({ labels, value: 1, exemplarLabels: { traceId: `t${n}` } });
    } else {
      calls.inc(labels);
    }
    seconds.observe(n / 100);
  }
  if (type === Registry.OPENMETRICS_CONTENT_TYPE) process.stdout.write('\n--\n');
  process.stdout.write(await registry.metrics());
}
