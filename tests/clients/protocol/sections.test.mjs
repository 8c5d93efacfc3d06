// Promise: every section of the two protocol texts that says what a server does has a test that names it.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';

/** The headings of the texts as of 2026-06-25; not listed: introduction, table of contents, test suite, license. */
const SECTIONS = {
  'engine.io v4': [
    'Transports',
    'Request path',
    'Query parameters',
    'Headers',
    'Sending data',
    'Receiving data',
    'WebSocket',
    'WebTransport',
    'Protocol',
    'Handshake',
    'Heartbeat',
    'Upgrade',
    'Message',
    'Packet encoding',
    'Packet encoding / HTTP long-polling',
    'Packet encoding / WebSocket',
    'From v2 to v3',
    'From v3 to v4',
    'From v4 to v4.1',
  ],
  'socket.io v5': [
    'Connection to a namespace',
    'Sending and receiving data',
    'Acknowledgement',
    'Disconnection from a namespace',
    'Packet encoding / Format',
    'Packet encoding / Connection to a namespace',
    'Packet encoding / Sending and receiving data',
    'Packet encoding / Acknowledgement',
    'Packet encoding / Disconnection from a namespace',
    'Sample session',
    'Difference between v5 and v4',
    'Difference between v4 and v3',
    'Difference between v3 and v2',
    'Difference between v2 and v1',
  ],
};

const here = new URL('.', import.meta.url);
const sources = readdirSync(here)
  .filter((name) => /^(engine|socket)io_.*\.test\.mjs$/.test(name))
  .map((name) => readFileSync(new URL(name, here), 'utf8'))
  .join('\n');

for (const [protocol, sections] of Object.entries(SECTIONS)) {
  for (const section of sections) {
    test(`${protocol} § ${section} has a test`, () => {
      assert.match(sources, new RegExp(`${protocol} § ${section.replaceAll('.', '\\.')}(:|')`));
    });
  }
}
