// Promise: Engine.IO v4, how a session begins, and every way in which it does not.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { handshake, request } from '../support/http.mjs';
import { Polling, RawSocket, openEngine } from '../support/raw.mjs';
import { MAX_PAYLOAD, PING_INTERVAL_MS, PING_TIMEOUT_MS, startConformance } from '../support/server.mjs';

const PATH = '/engine.io/';
let server;
before(async () => (server = await startConformance('engineio')));
after(() => server.stop());

const get = (query, options) => request(`${server.url}${PATH}${query}`, options);

/** What every refusal looks like: status, JSON, and the code and message that clients know. */
const REFUSALS = [
  'Transport unknown',
  'Session ID unknown',
  'Bad handshake method',
  'Bad request',
  'Forbidden',
  'Unsupported protocol version',
];

async function refused(answer, code, what) {
  const { status, text, headers } = await answer;
  assert.equal(status, 400, `${what}: ${text}`);
  assert.match(headers['content-type'], /^application\/json/, what);
  assert.deepEqual(JSON.parse(text), { code, message: REFUSALS[code] }, what);
}

function assertOpenPacket(handshake, upgrades) {
  const { sid, ...rest } = handshake;
  assert.deepEqual(rest, {
    upgrades,
    pingInterval: PING_INTERVAL_MS,
    pingTimeout: PING_TIMEOUT_MS,
    maxPayload: MAX_PAYLOAD,
  });
  assert.match(sid, /^[A-Za-z0-9_-]{20,}$/);
}

test('engine.io v4 § Handshake: a polling GET is answered with an open packet of exactly five keys', async () => {
  const answer = await get('?EIO=4&transport=polling');
  assert.equal(answer.status, 200);
  assert.equal(answer.headers['content-type'].toLowerCase(), 'text/plain; charset=utf-8');
  assert.equal(answer.headers['cache-control'], 'no-store');
  assert.equal(answer.headers['content-length'], String(answer.bytes.length));
  assert.equal(answer.text[0], '0');
  assertOpenPacket(JSON.parse(answer.text.slice(1)), ['websocket']);
});

test('engine.io v4 § Handshake: a WebSocket gets the same packet, without upgrades', async (t) => {
  const socket = await openEngine(t, server.url, PATH);
  assertOpenPacket(socket.handshake, []);
});

test('engine.io v4 § Handshake: session ids are long and never the same', async () => {
  const sids = new Set();
  for (let n = 0; n < 500; n++) sids.add((await Polling.open(server.url, PATH)).sid);
  assert.equal(sids.size, 500);
  // 22 characters of base64 are the first to hold 128 bits.
  for (const sid of sids) assert.ok(sid.length >= 22, sid);
});

test('engine.io v4 § Query parameters: EIO must be 4', async () => {
  for (const query of ['', '&EIO=', '&EIO=3', '&EIO=5', '&EIO=abc', '&EIO=44', '&EIO=4.0', '&eio=4']) {
    await refused(get(`?transport=polling${query}`), 5, query);
  }
});

test('engine.io v4 § Query parameters: transport must be one of ours', async () => {
  for (const query of ['', '&transport=', '&transport=abc', '&transport=Polling', '&transport=flashsocket']) {
    await refused(get(`?EIO=4${query}`), 0, query);
  }
});

test('engine.io v4 § Query parameters: an unknown sid is told from a missing one', async () => {
  const unknown = ['x', '', '__proto__', 'constructor', 'a'.repeat(4000), '%00', '%F0%9F%98%80', '../..'];
  for (const sid of unknown) {
    const query = `?EIO=4&transport=polling&sid=${sid}`;
    // An empty sid may be read as none: then this is a handshake.
    if (sid === '') assert.ok([200, 400].includes((await get(query)).status));
    else
      for (const method of ['GET', 'POST'])
        await refused(get(query, { method, body: method === 'POST' ? '4x' : undefined }), 1, sid);
  }
});

test('engine.io v4 § Query parameters: others are ignored, those of older versions too', async () => {
  for (const query of ['&t=abc', '&j=0', '&b64=1', '&token=x%20y', '&a&=&b=c=d', '&x[]=1']) {
    const answer = await get(`?EIO=4&transport=polling${query}`);
    assert.deepEqual([answer.status, answer.text.slice(0, 2)], [200, '0{'], query);
  }
});

test('engine.io v4 § Handshake: any method but GET is refused', async () => {
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
    await refused(get('?EIO=4&transport=polling', { method, body: method === 'POST' ? '4x' : undefined }), 2, method);
  }
  assert.equal((await get('?EIO=4&transport=polling', { method: 'HEAD' })).status, 400);
});

test('engine.io v4 § Handshake: a websocket transport without an Upgrade is a bad request', async () => {
  await refused(get('?EIO=4&transport=websocket'), 3, 'without a sid');
  const session = await Polling.open(server.url, PATH);
  await refused(get(`?EIO=4&transport=websocket&sid=${session.sid}`), 3, 'with a sid');
  await session.send('4still there');
  assert.deepEqual(await session.receive(1), ['4still there']);
});

test('engine.io v4 § WebSocket: a missing or wrong parameter ends the connection before anything is upgraded', async () => {
  const wrong = [
    ['?transport=websocket', 'Unsupported protocol version'],
    ['?EIO=3&transport=websocket', 'Unsupported protocol version'],
    ['?EIO=abc&transport=websocket', 'Unsupported protocol version'],
    ['?EIO=4', 'Transport unknown'],
    ['?EIO=4&transport=abc', 'Transport unknown'],
    ['?EIO=4&transport=websocket&sid=unknown', 'Session ID unknown'],
    ['?EIO=4&transport=polling', 'Bad request'],
  ];
  for (const [query, message] of wrong) {
    const answer = await handshake(`${server.url}${PATH}${query}`);
    assert.equal(answer.status, 400, `${query}: ${answer.status}`);
    assert.ok(answer.text.includes(message), `${query}: ${answer.text}`);
  }
});

test('engine.io v4 § WebSocket: a handshake that is not RFC 6455 is refused', async () => {
  const url = `${server.url}${PATH}?EIO=4&transport=websocket`;
  for (const [name, headers] of [
    ['version 8', { 'Sec-WebSocket-Version': '8' }],
    ['version missing', { 'Sec-WebSocket-Version': '' }],
    ['key empty', { 'Sec-WebSocket-Key': '' }],
    ['key too short', { 'Sec-WebSocket-Key': 'abc' }],
  ]) {
    const { status } = await handshake(url, headers);
    assert.ok(status === 400 || status === 426, `${name}: ${status}`);
  }
  assert.equal((await handshake(url)).status, 101);
});

test('engine.io v4 § WebSocket: compression that the server did not accept is not used', async (t) => {
  const socket = await openEngine(t, server.url, PATH, { perMessageDeflate: true });
  socket.send(`4${'x'.repeat(10_000)}`);
  await socket.expect(`4${'x'.repeat(10_000)}`);
});

/** What else the conformance server says there is its own affair; of the service, `http.test.mjs` wants a 404. */
async function assertNoEngine({ url }, path) {
  const { text } = await request(`${url}${path}?EIO=4&transport=polling`);
  assert.ok(!text.startsWith('0{'), `${path} opened a session`);
}

test('engine.io v4 § Request path: only the exact path, with its slash, is served', async () => {
  for (const path of ['/engine.io', '/', '/engine.iox/', '/ENGINE.IO/', '/other/']) {
    await assertNoEngine(server, path);
  }
});

test('engine.io v4 § Request path: another one can be set', async (t) => {
  const other = await startConformance('engineio', '--path', '/other.io/');
  t.after(() => other.stop());
  const session = await Polling.open(other.url, '/other.io/');
  await session.send('4x');
  assert.deepEqual(await session.receive(1), ['4x']);
  const socket = await openEngine(t, other.url, '/other.io/');
  socket.send('4y');
  await socket.expect('4y');
  await assertNoEngine(other, PATH);
});

test('engine.io v4 § WebTransport: is not offered over HTTP', async () => {
  await refused(get('?EIO=4&transport=webtransport'), 0, 'GET');
  const { handshake } = await Polling.open(server.url, PATH);
  assert.ok(!handshake.upgrades.includes('webtransport'));
});

test('engine.io v4 § From v2 to v3: the versions before are refused', async () => {
  for (const version of [1, 2]) await refused(get(`?EIO=${version}&transport=polling`), 5, `EIO=${version}`);
});

test('engine.io v4 § From v3 to v4: version 3 is refused, its framing is not spoken', async (t) => {
  await refused(get('?EIO=3&transport=polling'), 5, 'EIO=3');
  const session = await Polling.open(server.url, PATH, '&b64=1');
  const answer = await session.post('6:4hello');
  // In version 4 this is a noop packet with data, not a message of six characters.
  if (answer.status === 200) {
    await session.send('4after');
    assert.deepEqual(await session.receive(1), ['4after']);
  }
  await assert.rejects(RawSocket.open(t, `${server.url}${PATH}?EIO=3&transport=websocket`));
});

test('engine.io v4 § From v4 to v4.1: the handshake of 4.1 is that of 4', async () => {
  const { handshake } = await Polling.open(server.url, PATH);
  assertOpenPacket(handshake, ['websocket']);
});
