// Promise: Engine.IO v4, data by HTTP long-polling.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { start } from '../support/http.mjs';
import { Polling, SEPARATOR, reached } from '../support/raw.mjs';
import { MAX_PAYLOAD, WITHOUT_PINGS, startConformance } from '../support/server.mjs';
import { eventually } from '../support/wait.mjs';

const PATH = '/engine.io/';
let server;
before(async () => (server = await startConformance('engineio', ...WITHOUT_PINGS)));
after(() => server.stop());

const open = () => Polling.open(server.url, PATH);

test('engine.io v4 § Sending data: a POST is answered with 200 and ok', async () => {
  const session = await open();
  const answer = await session.post('4hello');
  assert.deepEqual([answer.status, answer.text], [200, 'ok']);
  assert.equal(answer.headers['content-length'], '2');
});

test('engine.io v4 § Sending data: an unknown session is 400', async () => {
  const session = await open();
  session.address = session.address.replace(session.sid, 'unknown');
  const answer = await session.post('4x');
  assert.deepEqual([answer.status, answer.json().code], [400, 1]);
});

test('engine.io v4 § Sending data: a second POST at the same time is 400 and closes the session', async () => {
  const session = await open();
  const first = start(session.address, {
    method: 'POST',
    agent: false,
    unfinished: true,
    headers: { 'Content-Length': 100 },
  });
  const firstEnds = first.response.then(
    ({ status }) => assert.equal(status, 400),
    () => {},
  );
  await reached(server.url); // the head of the first is there, its body is not
  assert.equal((await session.post('4second')).status, 400);
  await session.assertGone('two POSTs');
  // The first is not left hanging either: it is refused or cut.
  await firstEnds;
});

test('engine.io v4 § Receiving data: an unknown session is 400', async () => {
  const session = await open();
  session.address = session.address.replace(session.sid, 'unknown');
  await session.assertGone('never there');
});

test('engine.io v4 § Receiving data: a GET waits for a packet', async () => {
  const session = await open();
  const get = await session.park();
  await session.send('4late');
  assert.equal((await get.response).text, '4late');
});

test('engine.io v4 § Receiving data: what is buffered comes in one answer, in order', async () => {
  const session = await open();
  await session.send('4a', '4b');
  await session.send('4c');
  assert.equal((await session.get()).text, ['4a', '4b', '4c'].join(SEPARATOR));
});

test('engine.io v4 § Receiving data: a second GET at the same time is 400, the first gets a close packet, the session is closed', async () => {
  const session = await open();
  const first = await session.park();
  assert.equal((await session.get()).status, 400);
  const answer = await first.response;
  assert.deepEqual([answer.status, answer.text], [200, '1']);
  await session.assertGone('two GETs');
});

test('engine.io v4 § Receiving data: a GET that the client cuts closes the session', async () => {
  const session = await open();
  const get = await session.park();
  get.abort();
  await assert.rejects(get.response);
  // The end of the connection travels: until it is seen, a look may find the session, and would count as a second GET.
  await reached(server.url);
  await session.assertGone('its GET was cut');
});

test('engine.io v4 § Sending data: a POST that the client cuts closes the session', async () => {
  const session = await open();
  const post = start(session.address, {
    method: 'POST',
    agent: false,
    unfinished: true,
    body: '4part',
    headers: { 'Content-Length': 100 },
  });
  post.response.catch(() => {});
  await reached(server.url); // for the head to arrive
  post.abort();
  await eventually(() => session.assertGone('its POST was cut'));
});

test('engine.io v4 § Sending data: any other method leaves the session as it was', async () => {
  const session = await open();
  for (const method of ['PUT', 'DELETE', 'PATCH']) {
    const answer = await start(session.address, { method }).response;
    assert.ok([400, 405].includes(answer.status), `${method}: ${answer.status}`);
  }
  await session.send('4x');
  assert.deepEqual(await session.receive(1), ['4x']);
});

test('engine.io v4 § Message: text comes back as it is', async () => {
  const session = await open();
  for (const packet of ['4', '4 ', '4é漢字😀', '4"\\\n\r\t\0', `4${'x'.repeat(100_000)}`]) {
    await session.send(packet);
    assert.deepEqual(await session.receive(1), [packet]);
  }
});

test('engine.io v4 § Packet encoding / HTTP long-polling: packets are separated by 0x1E', async () => {
  const session = await open();
  const packets = Array.from({ length: 1000 }, (_, n) => `4test${n}`);
  await session.send(...packets);
  assert.deepEqual(await session.receive(1000), packets);
});

test('engine.io v4 § Packet encoding / HTTP long-polling: binary is base64 behind a b', async () => {
  const session = await open();
  const all = Buffer.from(Array.from({ length: 256 }, (_, n) => n)).toString('base64');
  const packets = ['4hello', 'bAQIDBA==', 'bAQI=', 'bAQID', `b${all}`, '4after'];
  await session.send(...packets);
  assert.deepEqual(await session.receive(packets.length), packets);
});

test('engine.io v4 § Packet encoding / HTTP long-polling: UTF-8, counted in bytes', async () => {
  const session = await open();
  await session.send('4é漢😀');
  const answer = await session.get();
  assert.equal(answer.headers['content-length'], '10');
  assert.equal(answer.text, '4é漢😀');
});

test('engine.io v4 § Packet encoding: a packet that cannot be decoded is 400 and closes the session', async () => {
  const bad = [
    'abc',
    '',
    '7',
    '9x',
    'b!!!',
    'bAQI',
    `4a${SEPARATOR}`,
    `4a${SEPARATOR}${SEPARATOR}4b`,
    `${SEPARATOR}4a`,
  ];
  for (const body of bad) {
    const session = await open();
    assert.equal((await session.post(body)).status, 400, JSON.stringify(body));
    await session.assertGone(JSON.stringify(body));
  }
});

test('engine.io v4 § Packet encoding: text that is not UTF-8 is 400 and closes the session', async () => {
  const session = await open();
  assert.equal((await session.post(Buffer.from([0x34, 0xc3, 0x28]))).status, 400);
  await session.assertGone('not UTF-8');
});

test('engine.io v4 § Headers: without a Content-Type, and with a wrong one, the body is plain text', async () => {
  for (const headers of [{}, { 'Content-Type': 'text/plain;charset=UTF-8' }, { 'Content-Type': 'application/json' }]) {
    const session = await open();
    const answer = await session.post('4hello', headers);
    assert.deepEqual([answer.status, answer.text], [200, 'ok']);
    const echo = await session.get();
    assert.equal(echo.text, '4hello');
    assert.match(echo.headers['content-type'], /^text\/plain/i);
  }
});

test('engine.io v4 § Headers: an octet-stream, which only version 3 sends, is 400 and closes the session', async () => {
  const session = await open();
  assert.equal((await session.post('4hello', { 'Content-Type': 'application/octet-stream' })).status, 400);
  await session.assertGone('octet-stream');
});

test('engine.io v4 § Protocol: open, upgrade and noop from a client are without effect', async () => {
  const session = await open();
  await session.send('0', '5', '6', '6data', '4after');
  assert.deepEqual(await session.receive(1), ['4after']);
});

test('engine.io v4 § Protocol: a close packet ends the session; a parked GET gets a noop', async () => {
  const session = await open();
  const get = await session.park();
  await session.send('1');
  const answer = await get.response;
  assert.deepEqual([answer.status, answer.text], [200, '6']);
  await session.assertGone('it was closed');
});

test('engine.io v4 § Protocol: what stood before a close packet in the payload was delivered, nothing after it', async () => {
  const session = await open();
  const get = await session.park();
  await session.post(['4before', '1', '4after'].join(SEPARATOR));
  const answer = await get.response;
  assert.ok(['4before', `4before${SEPARATOR}6`, '6'].includes(answer.text), answer.text);
  await session.assertGone('it was closed');
});

test('engine.io v4 § Handshake: maxPayload is the most a POST may hold, in bytes', async () => {
  const session = await open();
  const largest = `4${'x'.repeat(MAX_PAYLOAD - 1)}`;
  await session.send(largest);
  assert.deepEqual(await session.receive(1), [largest]);
  assert.equal((await session.post(`${largest}x`)).status, 413);
});

test('engine.io v4 § Handshake: an announced body over maxPayload is refused before it is sent', async () => {
  const session = await open();
  const headers = { 'Content-Length': MAX_PAYLOAD + 1 };
  const post = start(session.address, { method: 'POST', agent: false, unfinished: true, headers });
  assert.equal((await post.response).status, 413);
  post.abort();
});

test('engine.io v4 § Handshake: a chunked body over maxPayload is refused before its end', async () => {
  const session = await open();
  const body = `4${'x'.repeat(MAX_PAYLOAD)}`;
  const headers = { 'Transfer-Encoding': 'chunked' };
  const post = start(session.address, { method: 'POST', agent: false, unfinished: true, headers, body });
  assert.equal((await post.response).status, 413);
  post.abort();
});
