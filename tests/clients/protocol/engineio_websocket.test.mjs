// Promise: Engine.IO v4, data by WebSocket.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Polling, RawSocket, openEngine } from '../support/raw.mjs';
import { request } from '../support/http.mjs';
import { MAX_PAYLOAD, WITHOUT_PINGS, startConformance } from '../support/server.mjs';
import { once } from '../support/wait.mjs';

const PATH = '/engine.io/';
let server;
before(async () => (server = await startConformance('engineio', ...WITHOUT_PINGS)));
after(() => server.stop());

const open = (t, options) => openEngine(t, server.url, PATH, options);

test('engine.io v4 § Packet encoding / WebSocket: one packet is one text frame', async (t) => {
  const socket = await open(t);
  const packets = ['4hello', '4', '4é漢字😀', '4a\x1e4b', `4${'x'.repeat(70_000)}`, '4last'];
  socket.send(...packets);
  await socket.expect(...packets);
});

test('engine.io v4 § Packet encoding / WebSocket: binary is sent as it is', async (t) => {
  const socket = await open(t);
  const frames = [Buffer.from([1, 2, 3, 4]), Buffer.from('4text'), Buffer.alloc(70_000, 0xff), Buffer.alloc(0)];
  for (const frame of frames) {
    socket.send(frame, '4between');
    await socket.expect(frame, '4between');
  }
});

test('engine.io v4 § Message: a thousand of them come back in order', async (t) => {
  const socket = await open(t);
  const frames = Array.from({ length: 1000 }, (_, n) => (n % 3 ? `4${n}` : Buffer.from(String(n))));
  socket.send(...frames);
  await socket.expect(...frames);
});

test('engine.io v4 § Packet encoding / WebSocket: a fragmented message is one packet', async (t) => {
  const socket = await open(t);
  socket.ws.send('4he', { fin: false });
  socket.ws.ping('between');
  socket.ws.send('', { fin: false });
  socket.ws.send('llo', { fin: true });
  await socket.expect('4hello');
});

test('engine.io v4 § WebSocket: its own pings are answered with their payload', async (t) => {
  const socket = await open(t);
  for (const payload of ['', 'abc', 'x'.repeat(125)]) {
    const pong = once(socket.ws, 'pong');
    socket.ws.ping(payload);
    assert.equal((await pong)[0].toString(), payload);
  }
});

test('engine.io v4 § Packet encoding: a frame that is no packet closes the session', async (t) => {
  for (const frame of ['abc', '', '7', '9x']) {
    const socket = await open(t);
    socket.send(frame);
    await socket.closed();
  }
});

test('engine.io v4 § Protocol: open, upgrade and noop from a client are without effect', async (t) => {
  const socket = await open(t);
  socket.send('0', '5', '6', '4after');
  await socket.expect('4after');
});

test('engine.io v4 § Protocol: a close packet ends the session at once', async (t) => {
  // There is no heartbeat, so nothing but the packet can end it.
  const socket = await open(t);
  socket.send('1');
  await socket.closed();
});

test('engine.io v4 § WebSocket: a close frame ends the session, and is echoed', async (t) => {
  for (const code of [1000, 1001, 4000]) {
    const socket = await open(t);
    socket.ws.close(code, 'bye');
    const { code: echoed } = await socket.closed();
    // RFC 6455 asks for the same code in the echo; one without a code shows as 1005.
    assert.ok([code, 1000, 1005].includes(echoed), `${code} was answered with ${echoed}`);
  }
});

test('engine.io v4 § Handshake: maxPayload is the longest message, and one byte more is closed with 1009', async (t) => {
  const socket = await open(t);
  const largest = `4${'x'.repeat(MAX_PAYLOAD - 1)}`;
  socket.send(largest);
  await socket.expect(largest);
  socket.send(Buffer.alloc(MAX_PAYLOAD, 1));
  await socket.expect(Buffer.alloc(MAX_PAYLOAD, 1));
  socket.send(`${largest}x`);
  assert.equal((await socket.closed()).code, 1009);
});

test('engine.io v4 § Handshake: maxPayload counts all fragments of a message', async (t) => {
  const socket = await open(t);
  socket.ws.send(`4${'x'.repeat(MAX_PAYLOAD / 2)}`, { fin: false });
  socket.ws.send('x'.repeat(MAX_PAYLOAD / 2), { fin: false });
  assert.equal((await socket.closed()).code, 1009);
});

test('engine.io v4 § WebSocket: text that is not UTF-8 is closed with 1007', async (t) => {
  const socket = await open(t);
  socket.ws.send(Buffer.from([0x34, 0xc3, 0x28]), { binary: false });
  assert.equal((await socket.closed()).code, 1007);
});

test('engine.io v4 § WebSocket: a second one for the session is closed, the first goes on', async (t) => {
  const socket = await open(t);
  const second = new RawSocket(t, `${server.url}${PATH}?EIO=4&transport=websocket&sid=${socket.handshake.sid}`);
  await second.ended;
  socket.send('4still');
  await socket.expect('4still');
});

test('engine.io v4 § WebSocket: polling requests for its session are 400 and do it no harm', async (t) => {
  const socket = await open(t);
  const url = `${server.url}${PATH}?EIO=4&transport=polling&sid=${socket.handshake.sid}`;
  for (const options of [{}, { method: 'POST', body: '4x' }]) {
    const answer = await request(url, options);
    assert.deepEqual([answer.status, answer.json().code], [400, 3]);
  }
  socket.send('4still');
  await socket.expect('4still');
});

test('engine.io v4 § Transports: sessions do not hear each other', async (t) => {
  const [a, b, c] = [await open(t), await open(t), await Polling.open(server.url, PATH)];
  a.send('4a');
  b.send('4b');
  await c.send('4c');
  await a.expect('4a');
  await b.expect('4b');
  assert.deepEqual(await c.receive(1), ['4c']);
  assert.deepEqual([a.frames, b.frames], [[], []]);
});
