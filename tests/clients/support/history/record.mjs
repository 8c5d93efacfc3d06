// Writes a history down: in memory while it goes on, and as lines of JSON for `check.mjs`.
import { writeFileSync } from 'node:fs';

import { check } from './check.mjs';

export class History {
  records = [];
  start = performance.now();
  listeners = new Set();

  /** `at`: ms since the history began. Things that are given on are copied: they may change. */
  note(op, fields = {}) {
    const record = { at: Math.round((performance.now() - this.start) * 10) / 10, op, ...structuredClone(fields) };
    this.records.push(record);
    for (const listener of this.listeners) listener(record);
    return record;
  }

  /** The first record from now on that `isMeant`. */
  next(isMeant) {
    return new Promise((resolve) => {
      const listener = (record) => {
        if (!isMeant(record)) return;
        this.listeners.delete(listener);
        resolve(record);
      };
      this.listeners.add(listener);
    });
  }

  of(op, isMeant = () => true) {
    return this.records.filter((record) => record.op === op && isMeant(record));
  }

  /**
   * How much later than the first of all clients each one got each event, in ms, live or with a join or a page:
   * `[{ client, meeting, seq, at, ms }]`, the latest first.
   */
  lateness(isMeant = () => true) {
    const first = new Map();
    const all = [];
    const got = (client, at, { meeting_id: meeting, epoch, seq }) => {
      const key = `${meeting} ${epoch} ${seq}`;
      if (!first.has(key)) first.set(key, at);
      all.push({ client, meeting, seq, at, ms: at - first.get(key) });
    };
    for (const { op, client, at, event, ack } of this.records) {
      if (op === 'live') got(client, at, event);
      else if (op === 'joined') for (const item of ack.events ?? []) got(client, at, item);
      else if (op === 'page') for (const item of ack.items) got(client, at, item);
    }
    return all.filter(isMeant).sort((a, b) => b.ms - a.ms);
  }

  check() {
    return check(this.records);
  }

  write(path) {
    writeFileSync(path, this.records.map((record) => `${JSON.stringify(record)}\n`).join(''));
  }
}
