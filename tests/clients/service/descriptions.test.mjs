// Promise: the descriptions of the API are there in development and where they are asked for, and they are true: what the
// server says and takes is what they say, and the types are of use with socket.io-client.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';

import { join, open } from '../support/clients.mjs';
import { request } from '../support/http.mjs';
import { SECRET, WITH_TOKENS, inSeconds, tokenOf } from '../support/jwt.mjs';
import { API, Rest, WITH_KEY } from '../support/rest.mjs';
import { fault, resolve } from '../support/schema.mjs';
import { freePort, startService } from '../support/server.mjs';
import { ask, eventually, once } from '../support/wait.mjs';

const { version } = Object.fromEntries(
  [...readFileSync(new URL('../../../Cargo.toml', import.meta.url), 'utf8').matchAll(/^(\w+) = "(.*)"$/gm)].map(
    ([, name, value]) => [name, value],
  ),
);
const ULID = '01ARZ3NDEKTSV4RRFFQ69G5FAV';

let service;
let asyncapi;
let openapi;
let types;
before(async () => {
  service = await startService({ ...WITH_TOKENS, ...WITH_KEY });
  asyncapi = (await service.get(`${API}/asyncapi.json`)).json();
  openapi = (await service.get(`${API}/openapi.json`)).json();
  types = (await service.get(`${API}/events.d.ts`)).text;
});
after(() => service?.kill());

describe('where they are', () => {
  const DOCS = [
    ['/asyncapi.json', 'application/json'],
    ['/openapi.json', 'application/json'],
    ['/events.d.ts', 'text/plain; charset=utf-8'],
  ].map(([path, type]) => [API + path, type]);
  const DEMO = [
    [`${API}/demo`, 'text/html; charset=utf-8'],
    ['/demo', 'text/html; charset=utf-8'],
  ];
  const PRODUCTION = { ENV: 'production', HOST: '127.0.0.1', JWT_SECRET_KEY: SECRET };
  for (const [what, settings, there, notThere] of [
    ['development', {}, [...DOCS, ...DEMO], []],
    ['development with DOCS=0', { DOCS: '0' }, DEMO, DOCS],
    ['production', PRODUCTION, [], [...DOCS, ...DEMO]],
    ['production with DOCS=1', { ...PRODUCTION, DOCS: '1' }, DOCS, DEMO],
  ]) {
    test(what, async (t) => {
      const other = await startService(settings);
      t.after(() => other.stop());
      for (const [path, type] of there) {
        for (const method of ['GET', 'HEAD']) {
          const answer = await other.get(path, { method });
          assert.deepEqual([answer.status, answer.headers['content-type']], [200, type], `${method} ${path}`);
        }
        const posted = await other.get(path, { method: 'POST' });
        assert.deepEqual([posted.status, posted.headers.allow], [405, 'GET, HEAD, OPTIONS'], path);
      }
      for (const [path] of notThere) assert.equal((await other.get(path)).status, 404, path);
    });
  }

  test('linked from the development page, whose links all lead somewhere', async () => {
    const { text } = await service.get('/');
    const links = [...text.matchAll(/href="(\/[^"]*)"/g)].map(([, path]) => path);
    for (const path of [...DOCS.map(([path]) => path), '/demo']) assert.ok(links.includes(path), path);
    for (const path of links) assert.equal((await service.get(path)).status, 200, path);
  });

  test('not with the metrics on their own port', async (t) => {
    const port = await freePort();
    const other = await startService({ METRICS_ADDR: `127.0.0.1:${port}` });
    t.after(() => other.kill());
    for (const [path] of [...DOCS, ...DEMO]) {
      assert.equal((await request(`http://127.0.0.1:${port}${path}`)).status, 404, path);
    }
    assert.equal((await request(`http://127.0.0.1:${port}/metrics`)).status, 200);
  });
});

describe('the documents', () => {
  test('have the version of the service', async () => {
    assert.deepEqual([asyncapi.asyncapi, asyncapi.info.version], ['3.0.0', version]);
    assert.deepEqual([openapi.openapi, openapi.info.version], ['3.1.0', version]);
    assert.equal((await service.health()).json().version, version);
  });

  test('have no reference to nowhere', () => {
    for (const document of [asyncapi, openapi]) {
      const refs = new Set();
      JSON.stringify(document, (name, value) => (name === '$ref' && refs.add(value), value));
      assert.ok(refs.size > 20);
      for (const ref of refs) resolve(document, ref);
    }
  });
});

/** The schema of a message of the AsyncAPI document. */
const payloadOf = (name) => asyncapi.components.messages[name].payload;
const commands = () => Object.entries(asyncapi.operations).filter(([, { action, reply }]) => action === 'receive' && reply);
const nameOf = (operation) => operation.messages[0].$ref.split('/').at(-1).replace(/\.request$/, '');

/** Asserts that a value is as described, and by nothing more than what is described. */
function assertIs(document, schema, value, what) {
  assert.equal(fault(document, schema, value), undefined, `${what}: ${JSON.stringify(value)?.slice(0, 500)}`);
}

test('the reader of schemas sees what is wrong', () => {
  const schema = { $ref: '#/components/schemas/ErrorObject' };
  const error = { code: 'conflict', message: 'm' };
  assertIs(asyncapi, schema, { ...error, retry_after_ms: 1, details: { field: 'f', expected: 'e' } });
  for (const wrong of [
    { code: 'conflict' },
    { ...error, code: 'other' },
    { ...error, message: 1 },
    { ...error, more: 1 },
    { ...error, retry_after_ms: -1 },
    { ...error, details: { field: 'f' } },
    null,
    [],
  ]) {
    assert.ok(fault(asyncapi, schema, wrong), JSON.stringify(wrong));
  }
  const item = { $ref: '#/components/schemas/LoggedItem' };
  const logged = { event: 'message_deleted', id: ULID, seq: 1, epoch: 'x'.repeat(8), meeting_id: 'm', deleted_by: 'u', ts: 1 };
  assertIs(asyncapi, item, logged);
  for (const wrong of [{ ...logged, event: 'message_edited' }, { ...logged, event: 'typing' }, { ...logged, text: 't' }]) {
    assert.ok(fault(asyncapi, item, wrong), JSON.stringify(wrong));
  }
});

describe('what the server says is described', () => {
  test('events and acks', async (t) => {
    const seen = new Set();
    const said = [];
    const enter = async (user, claims) => {
      const socket = open(t, service.url, { auth: { token: tokenOf(user, { name: user.toUpperCase(), ...claims }) } });
      socket.onAny((name, payload) => {
        seen.add(name);
        said.push([name, payload]);
      });
      await once(socket, 'ready');
      return socket;
    };
    const acked = new Set();
    const tell = async (socket, event, payload) => {
      const answer = await ask(socket, event, payload);
      acked.add(`${event} ${answer.ok}`);
      assertIs(asyncapi, payloadOf(`${event}.ack`), answer, `ack of ${event}`);
      return answer;
    };
    const sibling = Rest.sibling(service);
    const meeting_id = 'described';
    await sibling.update({ type: 'meeting.created', meeting_id, recipients: ['ann', 'bob'], title: 'T', starts_at: Date.now() + 3_600_000 });

    const ann = await enter('ann');
    const bob = await enter('bob', { exp: inSeconds(50) });
    const bobElsewhere = await enter('bob');
    await tell(ann, 'join_room', { meeting_id, presence: true });
    await tell(bob, 'join_room', { meeting_id, limit: 300 });
    await tell(ann, 'join_room', { meeting_id, since: { epoch: 'another', seq: 1 } });
    const first = await tell(ann, 'chat_message', { meeting_id, text: 'one', client_id: 'c-1', meta: { a: [1] } });
    await tell(ann, 'chat_message', { meeting_id, text: 'one', client_id: 'c-1' });
    await tell(ann, 'chat_message', { meeting_id, text: 'two', client_id: 'c-1' });
    await tell(bob, 'chat_message', { meeting_id, text: 'two', mentions: ['ann', 7], reply_to: first.id });
    await tell(bob, 'react', { meeting_id, id: first.id, emoji: '\u{1f600}' });
    await tell(bob, 'react', { meeting_id, id: first.id, emoji: '\u{1f600}', remove: true });
    await tell(ann, 'edit_message', { meeting_id, id: first.id, text: 'edited' });
    await tell(bob, 'edit_message', { meeting_id, id: first.id, text: 'not mine' });
    await tell(ann, 'delete_message', { meeting_id, id: first.id });
    await tell(ann, 'typing', { meeting_id });
    await sibling.update({ id: 'u-1', type: 'meeting.updated', meeting_id, actor_id: 'ann', recipients: ['bob'], body: 'B', data: { a: 1 } });
    assert.equal((await sibling.post('/publish', { meeting_id, event: 'poll', persist: true })).status, 202);
    assert.equal((await sibling.post('/publish', { user_ids: ['bob'], event: 'bill', persist: true })).status, 202);
    await sibling.update({ type: 'news', broadcast: true });
    await tell(bob, 'mark_read', { meeting_id, seq: 3 });
    const page = await tell(ann, 'get_history', { meeting_id });
    const kinds = ['chat_message', 'message_edited', 'message_deleted', 'message_reaction', 'meeting_update'];
    assert.deepEqual(new Set(page.items.map(({ event }) => event)), new Set(kinds));
    assert.ok(page.items.some(({ deleted }) => deleted), 'an erased one');
    await tell(ann, 'join_room', { meeting_id, since: { epoch: page.epoch, seq: 1 } });
    await tell(ann, 'get_history', { meeting_id, epoch: 'another' });
    await tell(ann, 'get_presence', { meeting_id, limit: 1 });
    await tell(ann, 'notifications_get', {});
    await tell(bob, 'notifications_read', { up_to: 1 });
    await tell(bob, 'auth_refresh', { token: tokenOf('bob') });
    await tell(bob, 'auth_refresh', { token: 'none' });
    await tell(ann, 'message', { any: ['thing'] });
    await tell(ann, 'leave_room', 17);
    ann.emit('chat_message', { meeting_id, text: '', client_id: 'c-9' });
    ann.emit('leave_room', {});
    for (const [, operation] of commands()) {
      const name = nameOf(operation);
      if (name !== 'CONNECT' && name !== 'message') await tell(ann, name, 'no object, and no id!');
      if (name !== 'CONNECT') assert.ok(acked.has(`${name} true`), `${name} was never done`);
    }
    await eventually(() => assert.ok(['unread', 'read_receipt', 'notification'].every((name) => seen.has(name))));

    const revoked = await enter('eve', { jti: 'j' });
    assert.equal((await sibling.post('/revoke', { jti: 'j' })).status, 200);
    await eventually(() => assert.ok(!revoked.connected));
    assert.equal((await sibling.delete(`/meetings/${meeting_id}`)).status, 200);
    service.signal('SIGTERM');
    await eventually(() => assert.ok(!ann.connected && !bobElsewhere.connected));
    await service.exited;
    service = await startService({ ...WITH_TOKENS, ...WITH_KEY });

    for (const [name, payload] of said) {
      if (asyncapi.components.messages[name]) assertIs(asyncapi, payloadOf(name), payload, name);
      else assert.fail(`${name} is not described`);
    }
    const sends = Object.values(asyncapi.operations).filter(({ action }) => action === 'send').map(nameOf);
    // The log of one process has one life, unless nobody is there when it begins anew.
    assert.deepEqual(sends.filter((name) => !seen.has(name)), ['resync']);
  });

  test('refusals of a CONNECT', async () => {
    const refused = async (auth) => {
      const error = await join({ after: () => {} }, service.url, { auth }).catch((error) => error);
      const { message, data } = error;
      return { message, data };
    };
    for (const auth of [{}, { token: 'none' }, { token: tokenOf('u', { exp: inSeconds(-100) }) }]) {
      assertIs(asyncapi, payloadOf('CONNECT_ERROR'), await refused(auth), 'connect_error');
    }
  });

  test('answers over HTTP', async () => {
    const done = new Set();
    const anybody = new Rest(service);
    const [ann, eve] = [Rest.user(service, 'ann'), Rest.user(service, 'eve')];
    const sibling = Rest.sibling(service);
    const meeting = 'by-http';
    let id;
    const steps = [
      [anybody, 'get', '/health', {}, 200],
      [anybody, 'get', '/ready', {}, 200],
      [anybody, 'get', '/metrics', {}, 200],
      [anybody, 'get', '/asyncapi.json', {}, 200],
      [anybody, 'get', '/openapi.json', {}, 200],
      [anybody, 'get', '/events.d.ts', {}, 200],
      [anybody, 'get', '/demo', {}, 200],
      [sibling, 'post', '/updates', { body: { type: 'meeting.created', meeting_id: meeting, recipients: ['ann'] } }, 202],
      [ann, 'post', '/meetings/{meeting_id}/messages', { body: { text: 'one', client_id: 'k' } }, 201],
      [ann, 'post', '/meetings/{meeting_id}/messages', { body: { text: 'one', client_id: 'k' } }, 200],
      [ann, 'post', '/meetings/{meeting_id}/messages', { body: { text: 'two', client_id: 'k' } }, 409],
      [ann, 'patch', '/meetings/{meeting_id}/messages/{id}', { body: { text: 'edited' } }, 200],
      [eve, 'patch', '/meetings/{meeting_id}/messages/{id}', { body: { text: 'not mine' } }, 403],
      [ann, 'get', '/meetings/{meeting_id}/messages', { query: '?limit=2&after_seq=0&kinds=chat_message' }, 200],
      [ann, 'delete', '/meetings/{meeting_id}/messages/{id}', {}, 204],
      [ann, 'get', '/meetings/{meeting_id}/messages', {}, 200],
      [ann, 'get', '/meetings/{meeting_id}/presence', {}, 200],
      [ann, 'put', '/meetings/{meeting_id}/read', { body: { seq: 1 } }, 200],
      [ann, 'get', '/notifications', {}, 200],
      [ann, 'post', '/notifications/read', { body: { ids: ['x', 7] } }, 200],
      [ann, 'get', '/unread', {}, 200],
      [sibling, 'post', '/publish', { body: { meeting_id: meeting, event: 'poll', persist: true } }, 202],
      [sibling, 'post', '/publish', { body: { broadcast: true, event: 'poll' } }, 202],
      [sibling, 'post', '/disconnect', { body: { user_id: 'nobody' } }, 200],
      [sibling, 'post', '/revoke', { body: { type: 'revoke', sid: 's', before: 1 } }, 200],
      [sibling, 'get', '/stats', {}, 200],
      [sibling, 'post', '/meetings/{meeting_id}/close', {}, 200],
      [ann, 'post', '/meetings/{meeting_id}/messages', { body: { text: 'closed' } }, 423],
      [sibling, 'delete', '/meetings/{meeting_id}', {}, 200],
      [sibling, 'delete', '/users/{user_id}', {}, 200],
    ];
    for (const [caller, method, path, { body, query = '' }, status] of steps) {
      const operation = openapi.paths[path][method];
      const actual = path.replace('{meeting_id}', meeting).replace('{id}', id).replace('{user_id}', 'ann');
      const what = `${method} ${path}`;
      const answer = await caller.send(method.toUpperCase(), actual + query, body);
      assert.equal(answer.status, status, `${what}: ${answer.text}`);
      assertDescribed(operation, answer, what);
      if (status < 300) done.add(operation.operationId);
      if (status === 201) id = answer.json().id;
      const schema = operation.requestBody?.content['application/json'].schema;
      if (body) assertIs(openapi, schema, body, `${what}, body`);
    }
    for (const [path, method, { operationId }] of operations()) assert.ok(done.has(operationId), `${method} ${path} was never done`);
  });
});

const operations = () =>
  Object.entries(openapi.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => [path, method, operation]),
  );

/** Asserts that an answer has a status of the operation, and what belongs to it. */
function assertDescribed(operation, answer, what) {
  const response = operation.responses[answer.status];
  assert.ok(response, `${what}: ${answer.status} is not described`);
  const [media, { schema }] = Object.entries(response.content ?? {})[0] ?? ['', {}];
  assert.equal((answer.headers['content-type'] ?? '').split(';')[0], media, what);
  if (media === 'application/json') assertIs(openapi, schema, answer.json(), what);
  else assert.equal(answer.text === '', media === '', what);
}

describe('what the server takes is described', () => {
  /** A payload of each event with which only what is not there is wrong. */
  const GOOD = {
    join_room: { meeting_id: 'taken' },
    leave_room: { meeting_id: 'taken' },
    chat_message: { meeting_id: 'taken', text: 't' },
    edit_message: { meeting_id: 'taken', id: ULID, text: 't' },
    delete_message: { meeting_id: 'taken', id: ULID },
    react: { meeting_id: 'taken', id: ULID, emoji: 'x' },
    typing: { meeting_id: 'taken' },
    mark_read: { meeting_id: 'taken', seq: 1 },
    get_history: { meeting_id: 'taken' },
    get_presence: { meeting_id: 'taken' },
    notifications_get: {},
    notifications_read: { up_to: 1 },
    auth_refresh: { token: 'none' },
  };
  /** Fields of which only one may be there. */
  const RIVALS = { ids: ['up_to'], up_to: ['ids'], user_ids: ['meeting_id'], broadcast: ['meeting_id'], jti: ['user_id'], sid: ['user_id'] };
  /** Nothing takes this but what takes everything. */
  const WRONG = [[]];

  const without = (payload, ...names) => Object.fromEntries(Object.entries(payload).filter(([name]) => !names.includes(name)));

  /** The objects that a schema allows. */
  const objects = (document, schema) => {
    const whole = schema.$ref ? resolve(document, schema.$ref) : schema;
    return whole.anyOf ? whole.anyOf.flatMap((one) => objects(document, one)) : whole.properties ? [whole] : [];
  };

  /** Payloads that must be refused, each with the field that must be named. */
  function* wrong(document, schema, good) {
    for (const { properties, required = [] } of objects(document, schema)) {
      for (const field of Object.keys(properties)) {
        if (field !== 'data') yield [{ ...without(good, ...(RIVALS[field] ?? [])), [field]: WRONG }, field];
      }
      for (const field of required) yield [without(good, field), field];
    }
  }

  test('every field of every event is read, and only what is required must be there', async (t) => {
    const socket = await join(t, service.url, { auth: { token: tokenOf('taker') } });
    for (const [, operation] of commands()) {
      const name = nameOf(operation);
      if (name === 'CONNECT' || name === 'message') continue;
      const good = await ask(socket, name, GOOD[name]);
      assert.notEqual(good.error?.code, 'invalid_payload', name);
      assertIs(asyncapi, payloadOf(`${name}.request`), GOOD[name], name);
      let count = 0;
      for (const [payload, field] of wrong(asyncapi, payloadOf(`${name}.request`), GOOD[name])) {
        const { error } = await ask(socket, name, payload);
        assert.deepEqual([error?.code, error?.details?.field], ['invalid_payload', field], `${name} ${JSON.stringify(payload)}`);
        count++;
      }
      assert.ok(count > 0, name);
    }
  });

  test('every field and parameter of every path is read, and only what is required must be there', async () => {
    const GOOD_BODIES = {
      '/publish': { meeting_id: 'taken', event: 'e' },
      '/updates': { meeting_id: 'taken' },
      '/disconnect': { user_id: 'u' },
      '/revoke': { user_id: 'u' },
      '/notifications/read': { up_to: 1 },
      '/meetings/{meeting_id}/read': { seq: 1 },
    };
    const callers = { token: Rest.user(service, 'taker'), key: Rest.sibling(service) };
    let bodies = 0;
    let parameters = 0;
    for (const [path, method, operation] of operations()) {
      const actual = path.replace('{meeting_id}', 'taken').replace('{id}', ULID).replace('{user_id}', 'u');
      const caller = callers[Object.keys(operation.security[0] ?? {})[0]];
      const send = async (query, body, headers, field) => {
        const what = `${method} ${path}${query} ${JSON.stringify(body)}`;
        const answer = await caller.send(method.toUpperCase(), actual + query, body, headers);
        assert.equal(answer.status, 400, `${what}: ${answer.text}`);
        assert.equal(answer.json().error.details?.field, field, `${what}: ${answer.text}`);
        assertDescribed(operation, answer, what);
      };
      for (const { name, in: place, schema } of operation.parameters ?? []) {
        if (place === 'header') await send('', { text: 't' }, { [name]: 'not one!' }, name);
        if (place !== 'query') continue;
        assert.ok(schema);
        await send(`?${name}=${'x'.repeat(200)}`, undefined, {}, name);
        parameters++;
      }
      const schema = operation.requestBody?.content['application/json'].schema;
      if (!schema) continue;
      const unsupported = await caller.send(method.toUpperCase(), actual, '{}', { 'Content-Type': 'text/plain' });
      assert.equal(unsupported.status, 415, path);
      assertDescribed(operation, unsupported, path);
      for (const [body, field] of wrong(openapi, schema, GOOD_BODIES[path] ?? { text: 't' })) {
        await send('', body, {}, field);
        bodies++;
      }
    }
    assert.ok(bodies > 30 && parameters > 8, `${bodies} ${parameters}`);
  });

  test('who may use a path', async () => {
    for (const [path, method, operation] of operations()) {
      const actual = path.replace('{meeting_id}', 'm').replace('{id}', ULID).replace('{user_id}', 'u');
      const send = (caller) => caller.send(method.toUpperCase(), actual, undefined);
      const [protection] = Object.keys(operation.security[0] ?? {});
      const answer = await send(new Rest(service));
      assert.equal(answer.status === 401, protection !== undefined, `${method} ${path}: ${answer.status}`);
      assertDescribed(operation, answer, path);
      if (protection !== 'key') continue;
      const user = await send(Rest.user(service, 'somebody'));
      assert.equal(user.status, 403, `${method} ${path}`);
      assertDescribed(operation, user, path);
    }
  });
});

describe('the types', () => {
  const GOOD = `
    import { io, type Socket } from 'client-4.8';
    import type { Ack, ChatMessageEvent, ClientToServerEvents, ErrorCode, LoggedItem, OptionalAcks, ServerToClientEvents } from './events';

    const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io('http://localhost:5003', { auth: { token: 't' } });
    const shown = (item: LoggedItem): string => {
      switch (item.event) {
        case 'chat_message': return item.sender_name + item.text + (item.reply_to ?? '');
        case 'message_edited': return item.text + item.version;
        case 'message_deleted': return item.deleted_by;
        case 'message_reaction': return item.emoji + item.count;
        case 'meeting_update': return item.type;
        default: { const none: never = item; return none; }
      }
    };
    export async function talk(): Promise<string> {
      const joined = await socket.emitWithAck('join_room', { meeting_id: 42, since: { epoch: 'e', seq: 1 }, presence: true });
      if (!joined.ok) { const code: ErrorCode = joined.error.code; return code; }
      joined.events.map(shown);
      joined.presence?.map(({ name }) => name.length);
      const left = await socket.emitWithAck('leave_room', '42');
      if (left.ok) left.meeting_id;
      socket.emit('chat_message', { meeting_id: '42', text: 'hello', mentions: ['a', 7], meta: { a: 1 } }, (answer) => {
        if (answer.ok) answer.id.length + answer.seq;
        else answer.error.retry_after_ms?.toFixed();
      });
      const echo: Ack<{}> = await socket.emitWithAck('message', [1, null]);
      return String(echo.ok);
    }
    socket.on('chat_message', (message: ChatMessageEvent) => message.meta?.a);
    socket.on('ready', ({ exp, limits, unread }) => [exp?.toFixed(), limits.text + (unread.meetings['42'] ?? 0)]);
    socket.on('presence_update', ({ event, user }) => (event === 'join' ? user?.name : undefined));
    socket.on('chat_error', ({ ref, error }) => [ref?.length, error.code === 'rate_limited']);
    socket.on('auth_expired', () => socket.disconnect());
    socket.on('connect', () => socket.id);
    const loose: Socket<ServerToClientEvents, OptionalAcks<ClientToServerEvents>> = io();
    loose.emit('typing', { meeting_id: '42' });
    loose.emit('typing', { meeting_id: '42', active: false }, ({ ok }) => ok);
  `;
  /** Each line is wrong by itself. */
  const MISUSES = [
    `socket.on('chat_mesage', () => {});`,
    `socket.on('chat_message', ({ txt }) => txt);`,
    `socket.on('chat_message', ({ seq }) => seq.length);`,
    `socket.on('ready', ({ exp }) => exp.toFixed());`,
    `socket.on('room_left', ({ reason }) => reason === 'bored');`,
    `socket.emitWithAck('no_such_event', {});`,
    `socket.emitWithAck('chat_message', { meeting_id: '42', text: 5 });`,
    `socket.emitWithAck('chat_message', { meeting_id: '42', text: 't', no_such_field: 1 });`,
    `socket.emitWithAck('chat_message', { text: 't' });`,
    `socket.emitWithAck('edit_message', { meeting_id: '42', text: 't' });`,
    `socket.emitWithAck('join_room', { meeting_id: '42', since: { seq: 1 } });`,
    `socket.emitWithAck('join_room', true);`,
    `socket.emitWithAck('get_history', { meeting_id: '42', kinds: ['typing'] });`,
    `socket.emitWithAck('chat_message', { meeting_id: '42', text: 't' }).then((answer) => answer.seq);`,
    `socket.emitWithAck('chat_message', { meeting_id: '42', text: 't' }).then((answer) => answer.ok || answer.error.code === 'no_such_code');`,
    `socket.emit('chat_message', { meeting_id: '42', text: 't' });`,
    `loose.emit('typing', { meeting: '42' });`,
  ];
  const MISUSE_HEAD = `
    import type { Socket } from 'client-4.8';
    import type { ClientToServerEvents, OptionalAcks, ServerToClientEvents } from './events';
    declare const socket: Socket<ServerToClientEvents, ClientToServerEvents>;
    declare const loose: Socket<ServerToClientEvents, OptionalAcks<ClientToServerEvents>>;
  `;

  /** What the compiler says of these files, as if they stood beside this one: `[file, line, message]`. */
  function compile(files) {
    const ts = createRequire(import.meta.url)('typescript');
    const options = {
      strict: true,
      noEmit: true,
      noImplicitAny: true,
      skipLibCheck: true,
      types: [],
      lib: ['lib.es2022.d.ts', 'lib.dom.d.ts'],
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ESNext,
      moduleResolution: ts.ModuleResolutionKind.Bundler,
    };
    const virtual = new Map(
      Object.entries(files).map(([name, text]) => [fileURLToPath(new URL(name, import.meta.url)), text]),
    );
    const host = ts.createCompilerHost(options);
    const { fileExists, readFile, getSourceFile } = host;
    host.fileExists = (name) => virtual.has(name) || fileExists(name);
    host.readFile = (name) => virtual.get(name) ?? readFile(name);
    host.getSourceFile = (name, ...more) =>
      virtual.has(name) ? ts.createSourceFile(name, virtual.get(name), ...more) : getSourceFile(name, ...more);
    const program = ts.createProgram([...virtual.keys()], options, host);
    return ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => [
      file?.fileName.split('/').at(-1),
      file?.getLineAndCharacterOfPosition(start).line,
      ts.flattenDiagnosticMessageText(messageText, ' '),
    ]);
  }

  test('compile, and are of use with the stock client', () => {
    // The declarations once more as a module: libraries are not looked into.
    assert.deepEqual(compile({ 'events.d.ts': types, 'same.ts': types, 'good.ts': GOOD }), []);
    assert.match(types, new RegExp(`^// The events of chat-service ${version.replaceAll('.', '\\.')},`));
  });

  test('catch every misuse', () => {
    const head = MISUSE_HEAD.split('\n').length - 1;
    const faults = compile({ 'events.d.ts': types, 'bad.ts': MISUSE_HEAD + MISUSES.join('\n') });
    const wrong = new Set(faults.map(([file, line]) => `${file} ${line}`));
    const unnoticed = MISUSES.filter((_, n) => !wrong.has(`bad.ts ${head + n}`));
    assert.deepEqual(unnoticed, []);
    assert.deepEqual(faults.filter(([file, line]) => file !== 'bad.ts' || line < head), []);
  });
});
