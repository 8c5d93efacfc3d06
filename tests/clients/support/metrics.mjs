// Reads the Prometheus text of /metrics. The one place that knows the names of the service's metrics.
import assert from 'node:assert/strict';

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: \d+)?$/;

export class Metrics {
  /** Throws if a line is not valid Prometheus text. */
  constructor(text) {
    this.samples = text
      .split('\n')
      .filter((line) => line && !line.startsWith('#'))
      .map((line) => {
        const [, name, labels = '', value] = SAMPLE.exec(line) ?? assert.fail(`not a metric line: ${line}`);
        const pairs = [...labels.matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g)].map(([, key, val]) => [key, val]);
        return { name, labels: Object.fromEntries(pairs), value: Number(value) };
      });
  }

  /** Sum of one metric; it must be there. */
  value(name) {
    const found = this.samples.filter((sample) => sample.name === name);
    assert.ok(found.length > 0, `no metric ${name} among ${[...new Set(this.samples.map((s) => s.name))].join(' ')}`);
    return found.reduce((sum, sample) => sum + sample.value, 0);
  }

  /** Open TCP connections, those of this very scrape included. */
  connections = () => this.value('chat_connections');
  /** Engine.IO sessions, of both transports. */
  sessions = () => this.value('chat_sessions');
  /** Rooms with at least one member. */
  rooms = () => this.value('chat_rooms');
  panics = () => this.value('chat_panics_total');

  /** Sessions that were closed for `reason`, one of the names in `CloseReason`. */
  closed(reason) {
    const found = this.samples.filter(({ name, labels }) => name === 'chat_closes_total' && labels.reason === reason);
    assert.equal(found.length, 1, `chat_closes_total{reason="${reason}"}`);
    return found[0].value;
  }
}
