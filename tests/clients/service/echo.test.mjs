// Promise: `message` comes back to its sender, and to nobody else, as `response` with the same DATA.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { RELEASES, TRANSPORTS, join } from '../support/clients.mjs';
import { Polling, SEPARATOR, openSocketIo } from '../support/raw.mjs';
import { startService } from '../support/server.mjs';
import { ask, once, record } from '../support/wait.mjs';

const VALUES = [
  ['a string', 'hello'],
  ['an empty string', ''],
  ['markup, verbatim', '<b>&amp;</b> "quoted" \\ back'],
  ['control characters', '\0\x01\b\t\n\r\x1e\x1f\x7f\u2028\u2029'],
  ['every plane of Unicode', 'é 漢字 👩‍👩‍👧‍👦 \u{10ffff}\ufeff\uffff'],
  ['a lone high surrogate', 'a\ud83db'],
  ['a lone low surrogate', '\ude00'],
  ['zero', 0],
  ['a negative float', -1.5e-7],
  ['the largest safe integer', Number.MAX_SAFE_INTEGER],
  ['true', true],
  ['false', false],
  ['null', null],
  ['an empty object', {}],
  ['an empty array', []],
  ['a nested value', { a: [1, { b: [null, 'x', {}] }], 'k e y': [[[]]] }],
  ['keys that mean something elsewhere', { __proto__x: 1, constructor: 2, _placeholder: false, num: 0, data: 3 }],
  ['bytes', Buffer.from([0, 1, 2, 0xff])],
  ['no bytes', Buffer.alloc(0)],
  ['nested bytes', { file: Buffer.from('abc'), more: [Buffer.from([9]), 'x', { deep: Buffer.alloc(3000, 7) }] }],
];

let service;
before(async () => (service = await startService()));
after(() => service.stop());

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`by ${transport}`, () => {
    for (const [name, value] of VALUES) {
      test(`${name} comes back and is acknowledged`, async (t) => {
        const socket = await join(t, service.url, { transport });
        const response = once(socket, 'response');
        assert.deepEqual(await ask(socket, 'message', value), { ok: true });
        assert.deepEqual(await response, [{ data: value }]);
      });
    }
  });
}

for (const release of Object.keys(RELEASES)) {
  test(`socket.io-client ${release} gets text and bytes back`, async (t) => {
    const socket = await join(t, service.url, { release, transport: 'upgrade' });
    const responses = record(socket, 'response');
    const values = [{ text: 'é' }, { bytes: Buffer.from([1, 2, 3]) }];
    for (const value of values) socket.emit('message', value);
    await responses.count(2);
    assert.deepEqual(
      responses.items,
      values.map((data) => ({ data })),
    );
  });
}

test('without an argument DATA is null', async (t) => {
  const socket = await join(t, service.url);
  const response = once(socket, 'response');
  assert.deepEqual(await ask(socket, 'message'), { ok: true });
  assert.deepEqual(await response, [{ data: null }]);
});

test('the response goes to the sender only', async (t) => {
  const [sender, ...others] = await Promise.all([1, 2, 3].map(() => join(t, service.url)));
  const heard = others.map((socket) => record(socket, 'response'));
  for (let n = 0; n < 20; n++) await ask(sender, 'message', 'private');
  // What others sent after all that is the first they hear.
  others.forEach((socket, n) => socket.emit('message', `own ${n}`));
  for (const [n, { items, count }] of heard.entries()) {
    await count(1);
    assert.deepEqual(items, [{ data: `own ${n}` }]);
  }
});

test('many messages in flight come back in order', async (t) => {
  for (const transport of Object.keys(TRANSPORTS)) {
    const socket = await join(t, service.url, { transport });
    const { count } = record(socket, 'response');
    const sent = Array.from({ length: 500 }, (_, n) => (n % 7 === 0 ? { n, bytes: Buffer.from([n % 256]) } : { n }));
    for (const value of sent) socket.emit('message', value);
    assert.deepEqual(
      await count(500),
      sent.map((data) => ({ data })),
      transport,
    );
  }
});

describe('DATA keeps its JSON text', () => {
  const texts = [
    ['integers no double can hold', '12345678901234567890123'],
    ['digits of a decimal', '0.10000000000000000000000000001'],
    ['the form of a number', '[1.0,1e2,-0,1E+2]'],
    ['key order and duplicate keys', '{"b":1,"a":2,"b":3}'],
    ['escapes', '"\\u0041\\/\\ud800 \\u00e9"'],
    ['white space inside', '{ "a" : [ 1 , 2 ] }'],
  ];
  for (const [name, data] of texts) {
    test(name, async (t) => {
      const socket = await openSocketIo(t, service.url);
      socket.send(`42["message",${data}]`);
      await socket.expect(`42["response",{"data":${data}}]`);
    });
  }

  test('by polling as by websocket', async () => {
    const session = await Polling.open(service.url, '/socket.io/');
    await session.send('40');
    await session.receive(2);
    await session.send('42["message",9007199254740993]', '421["message",{ "é":1.0 }]');
    assert.deepEqual((await session.receive(3)).sort(), [
      '42["response",{"data":9007199254740993}]',
      '42["response",{"data":{ "é":1.0 }}]',
      '431[{"ok":true}]',
    ]);
  });
});

describe('the limits of a message', () => {
  test('JSON 32 deep comes back, 33 deep is refused', async (t) => {
    const nested = (depth) => '['.repeat(depth) + ']'.repeat(depth);
    const socket = await openSocketIo(t, service.url);
    socket.send(`42["message",${nested(32)}]`);
    await socket.expect(`42["response",{"data":${nested(32)}}]`);
    socket.send(`427["message",${nested(33)}]`);
    // Which of the two refusals is not promised: an ack that says so, or the end of the connection.
    const ended = await Promise.race([socket.ended, new Promise((got) => socket.ws.once('message', () => got()))]);
    if (!ended) {
      const ack = await socket.next();
      assert.match(ack, /^437\[\{"ok":false,.*"invalid_payload"/);
    }
  });

  test('ten attachments come back', async (t) => {
    const socket = await join(t, service.url);
    const value = Array.from({ length: 10 }, (_, n) => Buffer.from([n]));
    const response = once(socket, 'response');
    socket.emit('message', value);
    assert.deepEqual(await response, [{ data: value }]);
  });

  const wrapped = (size) => `42["message","${'x'.repeat(size - '42["message",""]'.length)}"]`;

  test('a WebSocket message of exactly maxPayload passes, one byte more is closed with 1009', async (t) => {
    const socket = await openSocketIo(t, service.url);
    socket.send(wrapped(65_536));
    assert.equal((await socket.next()).slice(0, 22), '42["response",{"data":');
    socket.send(wrapped(65_537));
    assert.equal((await socket.closed()).code, 1009);
  });

  test('a POST of exactly maxPayload passes, one byte more is 413', async () => {
    const session = await Polling.open(service.url, '/socket.io/');
    await session.send('40');
    await session.receive(2);
    await session.send(wrapped(65_536));
    assert.equal((await session.receive(1))[0].slice(0, 22), '42["response",{"data":');
    assert.equal((await session.post(wrapped(65_537))).status, 413);
  });

  test('maxPayload counts bytes, not characters', async () => {
    const session = await Polling.open(service.url, '/socket.io/');
    await session.send('40');
    await session.receive(2);
    const packet = `42["message","${'é'.repeat(33_000)}"]`;
    assert.equal((await session.post(packet)).status, 413);
  });

  test('several packets in one POST are together under the limit', async () => {
    const session = await Polling.open(service.url, '/socket.io/');
    await session.send('40');
    await session.receive(2);
    assert.equal((await session.post([wrapped(40_000), wrapped(40_000)].join(SEPARATOR))).status, 413);
  });

  describe('with a larger maxPayload', () => {
    let roomy;
    before(async () => (roomy = await startService({ MAX_PAYLOAD: '1000000' })));
    after(() => roomy.stop());

    test('DATA of 64 KiB comes back, a byte more is too_large and the connection lives', async (t) => {
      for (const transport of Object.keys(TRANSPORTS)) {
        const socket = await join(t, roomy.url, { transport });
        const responses = record(socket, 'response');
        const largest = 'x'.repeat(65_536 - 2);
        assert.deepEqual(await ask(socket, 'message', largest), { ok: true });
        const refused = await ask(socket, 'message', `${largest}x`);
        assert.deepEqual([refused.ok, refused.error?.code], [false, 'too_large']);
        assert.deepEqual(await ask(socket, 'message', 'after'), { ok: true });
        await responses.count(2);
        assert.deepEqual(responses.items, [{ data: largest }, { data: 'after' }]);
      }
    });

    test('bytes count too', async (t) => {
      const socket = await join(t, roomy.url);
      assert.deepEqual(await ask(socket, 'message', Buffer.alloc(60_000)), { ok: true });
      const refused = await ask(socket, 'message', [Buffer.alloc(40_000), Buffer.alloc(40_000)]);
      assert.deepEqual([refused.ok, refused.error?.code], [false, 'too_large']);
    });
  });
});
