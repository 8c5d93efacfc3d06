// Promise: operators and browsers get the plain HTTP answers they rely on.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { join } from '../support/clients.mjs';
import { handshake } from '../support/http.mjs';
import { Polling } from '../support/raw.mjs';
import { Metrics } from '../support/metrics.mjs';
import { startService } from '../support/server.mjs';
import { assertHas, eventually } from '../support/wait.mjs';

const API = '/api/v1/chat';
const POLLING = '/socket.io/?EIO=4&transport=polling';
const WEBSOCKET = '/socket.io/?EIO=4&transport=websocket';

let service;
before(async () => (service = await startService()));
after(() => service.stop());

function assertError(answer, status, code) {
  assert.equal(answer.status, status, answer.text);
  assert.match(answer.headers['content-type'], /^application\/json/);
  const { error } = answer.json();
  if (code) assert.equal(error.code, code);
  assert.equal(typeof error.code, 'string');
  assert.equal(typeof error.message, 'string');
}

describe('health', () => {
  test('answers with the fields of the contract', async () => {
    const answer = await service.health();
    assert.equal(answer.status, 200);
    assert.match(answer.headers['content-type'], /^application\/json/);
    assert.equal(answer.headers['cache-control'], 'no-store');
    const { version, uptime_s, connections, ...rest } = answer.json();
    assert.deepEqual(rest, { status: 'ok', service: 'chat-service', redis: service.redis ? 'up' : 'disabled' });
    assert.match(version, /^\d+\.\d+\.\d+/);
    assert.ok(uptime_s >= 0 && uptime_s < 3600, `uptime_s ${uptime_s}`);
    assert.ok(Number.isInteger(connections), `connections ${connections}`);
  });

  test('counts connections', async (t) => {
    const connections = async () => (await service.health()).json().connections;
    const before = await connections();
    const sockets = await Promise.all([1, 2, 3].map(() => join(t, service.url)));
    assert.ok((await connections()) >= before + 3);
    for (const socket of sockets) socket.disconnect();
    await eventually(async () => assert.ok((await connections()) <= before));
  });

  test('HEAD has the headers and no body', async () => {
    const get = await service.health();
    const head = await service.get(`${API}/health`, { method: 'HEAD' });
    assert.deepEqual([head.status, head.text], [200, '']);
    assert.equal(head.headers['content-type'], get.headers['content-type']);
  });

  test('does not mind a query', async () => {
    assert.equal((await service.get(`${API}/health?from=probe&x=%20`)).status, 200);
  });
});

test('ready answers 200 with its checks', async () => {
  const answer = await service.get(`${API}/ready`);
  assert.equal(answer.status, 200);
  const { status, checks } = answer.json();
  assert.equal(status, 'ready');
  assert.ok(checks && typeof checks === 'object' && !Array.isArray(checks));
});

test('metrics are Prometheus text, under both paths', async () => {
  for (const path of [`${API}/metrics`, '/metrics']) {
    const answer = await service.get(path);
    assert.equal(answer.status, 200);
    assert.match(answer.headers['content-type'], /^text\/plain;.*version=0\.0\.4/);
    const metrics = new Metrics(answer.text);
    assert.ok(answer.text.endsWith('\n'), 'the last line is ended');
    assert.equal(metrics.panics(), 0);
    for (const gauge of ['connections', 'sessions', 'rooms']) assert.ok(metrics[gauge]() >= 0, gauge);
  }
});

describe('what is not there', () => {
  for (const path of [
    '/nope',
    API,
    `${API}/`,
    `${API}/nope`,
    `${API}/healthz`,
    '/socket.io',
    '/socket.iox/',
    '/engine.io/?EIO=4&transport=polling',
  ]) {
    test(`GET ${path} is 404 in JSON`, async () => {
      assertError(await service.get(path), 404, 'not_found');
    });
  }

  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
    test(`${method} health is 405 and says what is allowed`, async () => {
      const answer = await service.get(`${API}/health`, { method, body: method === 'DELETE' ? undefined : '{}' });
      assertError(answer, 405);
      assert.match(answer.headers.allow, /\bGET\b/);
    });
  }

  test('a WebSocket handshake on another path is refused', async () => {
    for (const path of ['/nope', '/socket.io?EIO=4&transport=websocket', `${API}/health`]) {
      const { status } = await handshake(service.url + path);
      assert.ok((status >= 400 && status < 500) || (path.endsWith('health') && status === 200), `${path}: ${status}`);
    }
  });
});

describe('X-Request-Id', () => {
  test('of the request comes back', async () => {
    const answer = await service.get(`${API}/nope`, { headers: { 'X-Request-Id': 'trace-1.2_3' } });
    assert.equal(answer.headers['x-request-id'], 'trace-1.2_3');
    const { error } = answer.json();
    if (error.request_id !== undefined) assert.equal(error.request_id, 'trace-1.2_3');
  });

  test('is made when there is none, differently each time', async () => {
    const ids = [];
    for (let n = 0; n < 3; n++) ids.push((await service.health()).headers['x-request-id']);
    for (const id of ids) assert.ok(id && id.length >= 8, `id ${id}`);
    assert.equal(new Set(ids).size, 3);
  });
});

describe('origins in development', () => {
  for (const origin of ['http://localhost:3000', 'https://localhost', 'http://127.0.0.1:8080']) {
    test(`${origin} is allowed`, async () => {
      const answer = await service.get(POLLING, { headers: { Origin: origin } });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers['access-control-allow-origin'], origin);
      assert.equal((await handshake(service.url + WEBSOCKET, { Origin: origin })).status, 101);
    });
  }

  test('the same origin is allowed', async () => {
    assert.equal((await service.get(POLLING, { headers: { Origin: service.url } })).status, 200);
    assert.equal((await handshake(service.url + WEBSOCKET, { Origin: service.url })).status, 101);
  });

  for (const origin of [
    'https://evil.example',
    'http://localhost.evil.example',
    'http://evil.example/localhost',
    'null',
  ]) {
    test(`${origin} is refused`, () => assertOriginRefused(service, origin));
  }
});

async function assertOriginRefused(server, origin) {
  const before = (await server.metrics()).sessions();
  const polling = await server.get(POLLING, { headers: { Origin: origin } });
  assert.equal(polling.status, 403, polling.text);
  assert.equal(polling.headers['access-control-allow-origin'], undefined);
  const websocket = await handshake(server.url + WEBSOCKET, { Origin: origin });
  // 403 by sense; the reference answers every refused upgrade with 400.
  assert.ok([400, 403].includes(websocket.status), `websocket: ${websocket.status}`);
  // Fewer is fine: those of earlier tests come to their end.
  assert.ok((await server.metrics()).sessions() <= before, 'a session was made');
}

describe('configured origins', () => {
  const APP = 'https://app.example';
  let configured;
  before(async () => (configured = await startService({ CORS_ALLOWED_ORIGINS: `${APP},https://other.example` })));
  after(() => configured.stop());

  for (const origin of [APP, 'https://other.example']) {
    test(`${origin} is allowed`, async () => {
      const answer = await configured.get(POLLING, { headers: { Origin: origin } });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers['access-control-allow-origin'], origin);
      assert.match(answer.headers.vary, /\bOrigin\b/i);
      assert.equal((await handshake(configured.url + WEBSOCKET, { Origin: origin })).status, 101);
    });
  }

  test('no origin at all is allowed: not a browser', async () => {
    assert.equal((await configured.get(POLLING)).status, 200);
    assert.equal((await handshake(configured.url + WEBSOCKET)).status, 101);
  });

  for (const origin of ['https://evil.example', `${APP}.evil.example`, 'http://app.example', `${APP}:444`, 'null']) {
    test(`${origin} is refused`, () => assertOriginRefused(configured, origin));
  }

  test('a session is not open to other origins either', async () => {
    const session = await Polling.open(configured.url, '/socket.io/');
    assert.equal((await session.post('40', { Origin: 'https://evil.example' })).status, 403);
    assert.equal((await session.post('40', { Origin: APP })).status, 200);
  });

  test('errors carry the CORS headers too, so that a page can read them', async () => {
    const answer = await configured.get(`${POLLING}&sid=unknown`, { headers: { Origin: APP } });
    assert.equal(answer.status, 400);
    assert.equal(answer.headers['access-control-allow-origin'], APP);
  });

  test('a preflight is answered and touches no session', async () => {
    const session = await Polling.open(configured.url, '/socket.io/');
    const sessions = (await configured.metrics()).sessions();
    for (const address of [configured.url + POLLING, session.address]) {
      const answer = await configured.get(address.slice(configured.url.length), {
        method: 'OPTIONS',
        headers: {
          Origin: APP,
          'Access-Control-Request-Method': 'POST',
          'Access-Control-Request-Headers': 'content-type,x-custom',
        },
      });
      assert.equal(answer.status, 204);
      assert.equal(answer.headers['access-control-allow-origin'], APP);
      assert.match(answer.headers['access-control-allow-methods'], /\bGET\b.*\bPOST\b/);
      assert.match(answer.headers['access-control-allow-headers'], /content-type/i);
    }
    assert.equal((await configured.metrics()).sessions(), sessions);
    await session.send('40');
    assertHas({ first: (await session.receive(2))[0].slice(0, 3) }, { first: '40{' });
  });

  test('a preflight of another origin gets no leave', async () => {
    const answer = await configured.get(POLLING, {
      method: 'OPTIONS',
      headers: { Origin: 'https://evil.example', 'Access-Control-Request-Method': 'POST' },
    });
    assert.equal(answer.headers['access-control-allow-origin'], undefined);
  });
});
