// Promise: a client that sends a lot at once, and reads what it gets, is not taken for a slow one.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { join } from '../support/clients.mjs';
import { startService } from '../support/server.mjs';
import { record } from '../support/wait.mjs';

const COUNT = 300;

for (const [name, settings] of [
  ['the default outbox', {}],
  ['an outbox that holds one answer', { OUTBOX_MAX_BYTES: '70000' }],
]) {
  for (const kilobytes of [20, 60]) {
    test(`${COUNT} messages of ${kilobytes} kB at once come back through ${name}, in order`, async (t) => {
      const service = await startService(settings);
      t.after(() => service.stop());
      const socket = await join(t, service.url);
      const answers = record(socket, 'response');
      const filler = 'x'.repeat(kilobytes * 1000);
      // They all wait in the kernel when the server comes to read them.
      service.signal('SIGSTOP');
      for (let n = 0; n < COUNT; n += 1) socket.emit('message', { n, filler });
      await new Promise((resolve) => setImmediate(resolve));
      service.signal('SIGCONT');
      await answers.count(COUNT);
      assert.deepEqual(answers.items.map(({ data }) => data.n), Array.from({ length: COUNT }, (_, n) => n));
      assert.equal((await service.metrics()).closed('slow_consumer'), 0);
    });
  }
}
