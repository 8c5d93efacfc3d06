// Promise: what a user can do by events, a user can do over HTTP, with the same answers and the same errors.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { join } from '../support/clients.mjs';
import { request } from '../support/http.mjs';
import { WITH_TOKENS, enter, tokenOf } from '../support/jwt.mjs';
import { API, Rest, WITH_KEY, assertError, assertStatus, messages } from '../support/rest.mjs';
import { startService } from '../support/server.mjs';
import { ask, assertHas, eventually, once, record } from '../support/wait.mjs';

const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
const NO_MESSAGE = '01ARZ3NDEKTSV4RRFFQ69G5FAV';
const APP = 'https://app.example';

let service;
let last = 0;
const fresh = (name = 'meeting') => `${name}-${++last}`;
before(async () => (service = await startService({ ...WITH_TOKENS, ...WITH_KEY, CORS_ALLOWED_ORIGINS: APP })));
after(() => service.stop());

const as = (user, claims) => Rest.user(service, user, claims);
const say = (socket, meeting_id, text, more) => ask(socket, 'chat_message', { meeting_id, text, ...more });
const settled = (socket) => ask(socket, 'message', 'settled');

/** A member of a meeting. */
async function member(t, user, meeting_id, options) {
  const socket = await enter(t, service, user, options);
  assertHas(await ask(socket, 'join_room', { meeting_id }), { ok: true });
  return socket;
}

async function post(user, meeting_id, body, headers, status = 201) {
  return assertStatus(await as(user).post(messages(meeting_id), body, headers), status).json();
}

describe('POST messages', () => {
  test('reaches all sockets of the meeting, with the body that the poster gets', async (t) => {
    const meeting_id = fresh();
    const sockets = [await member(t, 'ada', meeting_id), await member(t, 'bob', meeting_id, { transport: 'polling' })];
    const heard = sockets.map((socket) => once(socket, 'chat_message'));
    const before = Date.now();
    const more = { mentions: ['u1'], meta: { a: [1, null, 'ü'] }, client_id: 'c-1' };
    const sent = await post('ada', meeting_id, { text: 'hello <b>&\n\u{1f600}', ...more });
    assert.match(sent.id, ULID);
    assert.ok(Math.abs(sent.ts - before) < 60_000, `ts ${sent.ts}`);
    assertHas(sent, { seq: 1, meeting_id, text: 'hello <b>&\n\u{1f600}', sender: 'ada', ...more });
    for (const event of heard) assertHas((await event)[0], sent);
  });

  test('needs no join, and makes no member', async (t) => {
    const meeting_id = fresh();
    await post('ada', meeting_id, { text: 'first' });
    const bob = await enter(t, service, 'bob');
    assertHas(await ask(bob, 'join_room', { meeting_id }), { ok: true, seq: 1, members: 1 });
  });

  test('shares its order with the sockets', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'ada', meeting_id);
    const heard = record(socket, 'chat_message');
    assert.equal((await post('bob', meeting_id, { text: '1' })).seq, 1);
    assertHas(await say(socket, meeting_id, '2'), { ok: true, seq: 2 });
    assert.equal((await post('bob', meeting_id, { text: '3' })).seq, 3);
    await heard.count(3);
    assert.deepEqual(
      heard.items.map(({ seq, text, sender }) => [seq, text, sender]),
      [
        [1, '1', 'bob'],
        [2, '2', 'ada'],
        [3, '3', 'bob'],
      ],
    );
    assert.equal(new Set(heard.items.map((event) => event.epoch)).size, 1);
  });

  test('of many at once are all there once, in one order for all', async (t) => {
    const meeting_id = fresh();
    const heard = [];
    for (const user of ['ada', 'bob']) heard.push(record(await member(t, user, meeting_id), 'chat_message'));
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, n) => post(`u${n % 7}`, meeting_id, { text: `${n}` })),
    );
    const numbers = Array.from({ length: 60 }, (_, n) => n + 1);
    assert.deepEqual(
      answers.map((answer) => answer.seq).toSorted((a, b) => a - b),
      numbers,
    );
    for (const { items, count } of heard) {
      await count(60);
      assert.deepEqual(
        items.map((event) => event.seq),
        numbers,
      );
    }
  });

  test('takes the alias message for text', async () => {
    assertHas(await post('ada', fresh(), { message: 'by alias' }), { text: 'by alias' });
  });

  test('takes the meeting from the path whatever the body says', async () => {
    const meeting_id = fresh();
    assertHas(await post('ada', meeting_id, { text: 'x', meeting_id: 'another', sender: 'eve' }), {
      meeting_id,
      sender: 'ada',
    });
  });

  test('with an Idempotency-Key is done once: 201, then 200 with the same message', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'bob', meeting_id);
    const heard = record(socket, 'chat_message');
    const key = { 'Idempotency-Key': 'once_only-1' };
    const first = await post('ada', meeting_id, { text: 'once' }, key);
    assert.equal(first.client_id, 'once_only-1');
    for (let n = 0; n < 3; n++) {
      const { id, seq, epoch, ts } = first;
      assertHas(await post('ada', meeting_id, { text: 'once' }, key, 200), { id, seq, epoch, ts });
    }
    const error = assertError(await as('ada').post(messages(meeting_id), { text: 'other' }, key), 409, 'conflict');
    assert.equal(error.code, 'conflict');
    // The key is the user's own, in this meeting.
    assert.equal((await post('eve', meeting_id, { text: 'once' }, key)).seq, 2);
    assert.equal((await post('ada', fresh(), { text: 'once' }, key)).seq, 1);
    assert.equal((await post('ada', meeting_id, { text: 'last' })).seq, 3);
    await heard.count(3);
    assert.deepEqual(
      heard.items.map((event) => event.text),
      ['once', 'once', 'last'],
    );
  });

  test('with an Idempotency-Key is the same as with a client_id, by event or over HTTP', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'ada', meeting_id);
    const first = await say(socket, meeting_id, 'once', { client_id: 'shared' });
    const { id, seq } = first;
    assertHas(await post('ada', meeting_id, { text: 'once' }, { 'Idempotency-Key': 'shared' }, 200), { id, seq });
    assertHas(await post('ada', meeting_id, { text: 'once', client_id: 'shared' }, {}, 200), { id, seq });
    const over = await post('ada', meeting_id, { text: 'again' }, { 'Idempotency-Key': 'from-http' });
    const again = await say(socket, meeting_id, 'again', { client_id: 'from-http' });
    assertHas(again, { ok: true, id: over.id, seq: over.seq, duplicate: true });
  });

  test('many at once with one key make one message', async () => {
    const meeting_id = fresh();
    const answers = await Promise.all(
      Array.from({ length: 20 }, () =>
        as('ada').post(messages(meeting_id), { text: 'once' }, { 'Idempotency-Key': 'race' }),
      ),
    );
    const statuses = answers.map((answer) => assertStatus(answer, [200, 201]).status);
    assert.equal(statuses.filter((status) => status === 201).length, 1);
    assert.equal(new Set(answers.map((answer) => answer.json().id)).size, 1);
    assert.equal((await post('ada', meeting_id, { text: 'next' })).seq, 2);
  });

  test('refuses an Idempotency-Key that is no client_id', async () => {
    for (const key of ['x'.repeat(65), 'a b', 'a/b', '{}']) {
      const answer = await as('ada').post(messages(fresh()), { text: 'x' }, { 'Idempotency-Key': key });
      assertError(answer, 400, 'invalid_payload');
    }
  });
});

describe('GET messages', () => {
  let meeting_id;
  let epoch;
  before(async () => {
    meeting_id = fresh('history');
    for (let n = 1; n <= 120; n++) ({ epoch } = await post('ada', meeting_id, { text: `${n}` }));
  });

  const queries = [
    ['', {}],
    ['?limit=1', { limit: 1 }],
    ['?limit=100', { limit: 100 }],
    ['?limit=0', { limit: 0 }],
    ['?limit=100000', { limit: 100_000 }],
    ['?before_seq=50', { before_seq: 50 }],
    ['?before_seq=1', { before_seq: 1 }],
    ['?before_seq=50&limit=7', { before_seq: 50, limit: 7 }],
    ['?after_seq=0', { after_seq: 0 }],
    ['?after_seq=115', { after_seq: 115 }],
    ['?after_seq=120', { after_seq: 120 }],
    ['?after_seq=100000', { after_seq: 100_000 }],
    ['?after_seq=3&limit=2', { after_seq: 3, limit: 2 }],
    ['?after_seq=3&limit=2&epoch=E', { after_seq: 3, limit: 2, epoch: 'E' }],
    ['?after_seq=3&unknown=1', { after_seq: 3 }],
  ];
  for (const [query, payload] of queries) {
    test(`${query || 'without a query'} is what get_history answers, without ok`, async (t) => {
      const socket = await enter(t, service, 'bob');
      if (payload.epoch) payload.epoch = epoch;
      const { ok, ...expected } = await ask(socket, 'get_history', { meeting_id, ...payload });
      assert.equal(ok, true, JSON.stringify(expected));
      const answer = await as('bob').get(messages(meeting_id) + query.replace('=E', `=${epoch}`));
      assertStatus(answer, 200);
      assert.deepEqual(answer.json(), expected);
      assertHas(expected, { epoch, top_seq: 120, first_seq: 1 });
    });
  }

  test('pages through all of it, in order, each once', async () => {
    const seen = [];
    for (let after = 0, more = true; more;) {
      const page = assertStatus(await as('bob').get(`${messages(meeting_id)}?after_seq=${after}&limit=50`), 200).json();
      seen.push(...page.items.map((item) => item.text));
      after = page.items.at(-1).seq;
      more = page.has_more;
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 120 }, (_, n) => `${n + 1}`),
    );
    const { items, has_more } = (await as('bob').get(`${messages(meeting_id)}?before_seq=4&limit=50`)).json();
    assert.deepEqual([items.map((item) => item.seq), has_more], [[1, 2, 3], false]);
    assert.equal(items[0].event, 'chat_message');
  });

  test('of another epoch is a conflict', async () => {
    assertError(await as('bob').get(`${messages(meeting_id)}?after_seq=1&epoch=anotherlife`), 409, 'conflict');
  });

  const wrong = [
    'limit=x',
    'limit=1.5',
    'before_seq=x',
    'before_seq=-1',
    'after_seq=',
    'after_seq=1e3',
    'after_seq=99999999999999999999',
  ];
  for (const query of wrong) {
    test(`?${query} is 400 and names the field`, async () => {
      const error = assertError(await as('bob').get(`${messages(meeting_id)}?${query}`), 400, 'invalid_payload');
      assert.equal(error.details?.field, query.split('=')[0], JSON.stringify(error));
    });
  }

  test('of a meeting that nobody wrote in is an empty page', async () => {
    const page = assertStatus(await as('bob').get(messages(fresh('empty'))), 200).json();
    assertHas(page, { items: [], has_more: false, top_seq: 0 });
  });

  test('HEAD has the headers and no body', async () => {
    const answer = await as('bob').send('HEAD', messages(meeting_id));
    assertStatus(answer, 200);
    assert.equal(answer.text, '');
    assert.match(answer.headers['content-type'], /^application\/json/);
    assert.equal((await new Rest(service).send('HEAD', messages(meeting_id))).status, 401);
  });
});

describe('PATCH and DELETE of a message', () => {
  test('are seen by the sockets as message_edited and message_deleted', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'bob', meeting_id);
    const { id } = await post('ada', meeting_id, { text: 'first' });
    const edited = once(socket, 'message_edited');
    const answer = assertStatus(await as('ada').patch(messages(meeting_id, id), { text: 'second' }), 200).json();
    assertHas(answer, { seq: 2 });
    assert.ok(Number.isInteger(answer.version), JSON.stringify(answer));
    assertHas((await edited)[0], { id, seq: 2, meeting_id, text: 'second', version: answer.version, editor: 'ada' });

    const deleted = once(socket, 'message_deleted');
    const gone = await as('ada').delete(messages(meeting_id, id));
    assert.deepEqual([gone.status, gone.text], [204, '']);
    assertHas((await deleted)[0], { id, seq: 3, meeting_id, deleted_by: 'ada' });
    const { items } = (await as('bob').get(messages(meeting_id))).json();
    assert.ok(!/first|second/.test(JSON.stringify(items)), 'the text is erased');
  });

  test('DELETE again is the same answer and no second event', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'bob', meeting_id);
    const { id } = await post('ada', meeting_id, { text: 'x' });
    const { items } = record(socket, 'message_deleted');
    for (let n = 0; n < 2; n++) assert.equal((await as('ada').delete(messages(meeting_id, id))).status, 204);
    assert.equal((await post('ada', meeting_id, { text: 'next' })).seq, 3);
    await settled(socket);
    assert.equal(items.length, 1);
  });

  test('by event are seen over HTTP', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'ada', meeting_id);
    const { id } = await say(socket, meeting_id, 'first');
    assertHas(await ask(socket, 'edit_message', { meeting_id, id, text: 'second' }), { ok: true, seq: 2 });
    const { items } = (await as('bob').get(`${messages(meeting_id)}?after_seq=1`)).json();
    assertHas(items[0], { event: 'message_edited', id, seq: 2, text: 'second' });
  });
});

describe('presence, read marks and notifications', () => {
  test('presence is what get_presence answers', async (t) => {
    const meeting_id = fresh();
    const ada = await member(t, 'ada', meeting_id, { claims: { name: 'Ada' } });
    await member(t, 'ada', meeting_id, { claims: { name: 'Ada' } });
    await member(t, 'bob', meeting_id);
    const { ok, ...expected } = await ask(ada, 'get_presence', { meeting_id });
    assert.equal(ok, true);
    const answer = assertStatus(await as('eve').get(`/meetings/${meeting_id}/presence`), 200).json();
    assertHas(answer, expected);
    assertHas(answer, { count: 2, truncated: false });
    assertHas(
      answer.users.find((user) => user.id === 'ada'),
      { name: 'Ada', devices: 2 },
    );
    const one = assertStatus(await as('eve').get(`/meetings/${meeting_id}/presence?limit=1`), 200).json();
    assertHas(one, { count: 2, truncated: true });
    assert.equal(one.users.length, 1);
  });

  test('PUT read moves the mark forward only, and unread follows', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'bob', meeting_id);
    for (let n = 1; n <= 5; n++) await post('ada', meeting_id, { text: `${n}` });
    const unread = async () => assertStatus(await as('bob').get('/unread'), 200).json();
    await eventually(async () => assert.equal((await unread()).meetings[meeting_id], 5));
    const mark = async (seq) => assertStatus(await as('bob').put(`/meetings/${meeting_id}/read`, { seq }), 200).json();
    assertHas(await mark(3), { seq: 3 });
    assert.equal((await unread()).meetings[meeting_id], 2);
    assertHas(await mark(1), { seq: 3 });
    assertHas(await ask(socket, 'mark_read', { meeting_id, seq: 4 }), { ok: true, seq: 4 });
    assert.equal((await unread()).meetings[meeting_id], 1);
    assertHas(await mark(1000), { seq: 5 });
    assert.equal((await unread()).meetings[meeting_id] ?? 0, 0);
    for (const body of [{}, { seq: -1 }, { seq: '5' }, { seq: 1.5 }]) {
      const error = assertError(await as('bob').put(`/meetings/${meeting_id}/read`, body), 400, 'invalid_payload');
      assert.equal(error.details?.field, 'seq');
    }
  });

  test('notifications are those of notifications_get, and are read over HTTP', async (t) => {
    const user = fresh('reader');
    const sibling = Rest.sibling(service);
    for (let n = 1; n <= 5; n++) {
      await sibling.update({
        type: 'task.assigned',
        recipients: [user],
        title: `T${n}`,
        body: 'B',
        data: { n },
        id: fresh('e'),
      });
    }
    const socket = await enter(t, service, user);
    assert.equal(socket.ready.unread.notifications, 5);
    const both = async (query, payload) => {
      const { ok, ...expected } = await ask(socket, 'notifications_get', payload);
      assert.equal(ok, true, JSON.stringify(expected));
      const answer = assertStatus(await as(user).get(`/notifications${query}`), 200).json();
      assertHas(answer, expected);
      return answer;
    };
    const all = await both('', {});
    assertHas(all, { has_more: false, unread: 5 });
    assert.deepEqual(all.items.map((item) => item.data.n).toSorted(), [1, 2, 3, 4, 5]);
    for (const item of all.items) assertHas(item, { kind: 'task.assigned', body: 'B', read: false });
    const nseqs = all.items.map((item) => item.nseq).toSorted((a, b) => a - b);
    await both(`?after=${nseqs[1]}`, { after: nseqs[1] });
    await both('?limit=2', { limit: 2 });

    const one = all.items.find((item) => item.data.n === 1);
    assertHas(assertStatus(await as(user).post('/notifications/read', { ids: [one.id] }), 200).json(), { unread: 4 });
    const rest = await both('?unread_only=true', { unread_only: true });
    assert.deepEqual(rest.items.map((item) => item.data.n).toSorted(), [2, 3, 4, 5]);
    assert.equal((await as(user).get('/unread')).json().notifications, 4);
    assertHas(assertStatus(await as(user).post('/notifications/read', { up_to: nseqs[4] }), 200).json(), { unread: 0 });
    assertHas(await both('', {}), { unread: 0 });
    assert.equal((await as(user).get('/unread')).json().notifications, 0);
  });

  test('one reads and marks only what is one’s own', async () => {
    const [owner, other] = [fresh('owner'), fresh('other')];
    await Rest.sibling(service).update({ type: 'private.thing', recipients: [owner], id: fresh('e') });
    const [item] = (await as(owner).get('/notifications')).json().items;
    assert.deepEqual((await as(other).get('/notifications')).json().items, []);
    await as(other).post('/notifications/read', { ids: [item.id] });
    assert.equal((await as(owner).get('/unread')).json().notifications, 1);
  });

  for (const body of [{}, { ids: 'x' }, { ids: Array(101).fill(NO_MESSAGE) }, { up_to: 'x' }]) {
    test(`POST notifications/read refuses ${JSON.stringify(body).slice(0, 30)}`, async () => {
      assertError(await as('ada').post('/notifications/read', body), 400, 'invalid_payload');
    });
  }
});

describe('an error is the same by event and over HTTP:', () => {
  const cases = [
    ['no text', 'chat_message', {}, 'POST', '', 400],
    ['an empty text', 'chat_message', { text: '' }, 'POST', '', 400],
    ['4 001 characters', 'chat_message', { text: 'x'.repeat(4001) }, 'POST', '', 400],
    ['a control character', 'chat_message', { text: 'a\u0001b' }, 'POST', '', 400],
    ['51 mentions', 'chat_message', { text: 'x', mentions: Array(51).fill('u') }, 'POST', '', 400],
    ['meta too deep', 'chat_message', { text: 'x', meta: { a: { b: { c: { d: {} } } } } }, 'POST', '', 400],
    ['a bad client_id', 'chat_message', { text: 'x', client_id: 'a b' }, 'POST', '', 400],
    ['a reply to nothing', 'chat_message', { text: 'x', reply_to: NO_MESSAGE }, 'POST', '', 404],
    ['an edit of nothing', 'edit_message', { text: 'x', id: NO_MESSAGE }, 'PATCH', NO_MESSAGE, 404],
    ['an edit without text', 'edit_message', { id: 'OWN' }, 'PATCH', 'OWN', 400],
    ['an edit of somebody else’s', 'edit_message', { text: 'x', id: 'OTHERS' }, 'PATCH', 'OTHERS', 403],
    ['an edit of what is deleted', 'edit_message', { text: 'x', id: 'DELETED' }, 'PATCH', 'DELETED', 409],
    ['a deletion of nothing', 'delete_message', { id: NO_MESSAGE }, 'DELETE', NO_MESSAGE, 404],
    ['a deletion of somebody else’s', 'delete_message', { id: 'OTHERS' }, 'DELETE', 'OTHERS', 403],
  ];
  for (const [name, event, payload, method, message, status] of cases) {
    test(name, async (t) => {
      const meeting_id = fresh();
      const socket = await member(t, 'ada', meeting_id);
      const ids = {
        OWN: (await say(socket, meeting_id, 'own')).id,
        OTHERS: (await post('bob', meeting_id, { text: 'others' })).id,
        DELETED: (await say(socket, meeting_id, 'deleted')).id,
      };
      await ask(socket, 'delete_message', { meeting_id, id: ids.DELETED });
      const { id, ...rest } = payload;
      const named = id === undefined ? {} : { id: ids[id] ?? id };
      const ack = await ask(socket, event, { meeting_id, ...rest, ...named });
      assert.equal(ack.ok, false, JSON.stringify(ack));
      const path = messages(meeting_id, message === '' ? undefined : (ids[message] ?? message));
      const answer = await as('ada').send(method, path, method === 'DELETE' ? undefined : rest);
      const error = assertError(answer, status, ack.error.code);
      assert.deepEqual([error.message, error.details], [ack.error.message, ack.error.details]);
    });
  }
});

describe('without a token', () => {
  const endpoints = [
    ['GET', '/meetings/m/messages'],
    ['POST', '/meetings/m/messages', { text: 'x' }],
    ['PATCH', `/meetings/m/messages/${NO_MESSAGE}`, { text: 'x' }],
    ['DELETE', `/meetings/m/messages/${NO_MESSAGE}`],
    ['GET', '/meetings/m/presence'],
    ['PUT', '/meetings/m/read', { seq: 1 }],
    ['GET', '/notifications'],
    ['POST', '/notifications/read', { ids: [] }],
    ['GET', '/unread'],
  ];
  for (const [method, path, body] of endpoints) {
    test(`${method} ${path} is 401`, async () => {
      assertError(await new Rest(service).send(method, path, body), 401, 'unauthorized');
      assertError(await Rest.bearer(service, 'nonsense').send(method, path, body), 401, 'token_invalid');
      assertError(
        await Rest.bearer(service, tokenOf('ada', { exp: 1 })).send(method, path, body),
        401,
        'token_expired',
      );
      const query = `${path}?token=${tokenOf('ada')}`;
      assertError(await new Rest(service).send(method, query, body), 401, 'unauthorized');
    });
  }

  test('health needs none', async () => assertStatus(await new Rest(service).get('/health'), 200));

  test('the token is checked before the body', async () => {
    assertError(await new Rest(service).post(messages('m'), '{broken'), 401, 'unauthorized');
  });
});

describe('what HTTP asks for', () => {
  const wrongMethods = [
    ['DELETE', '/meetings/m/messages', ['GET', 'POST']],
    ['PUT', '/meetings/m/messages', ['GET', 'POST']],
    ['GET', `/meetings/m/messages/${NO_MESSAGE}`, ['PATCH', 'DELETE']],
    ['POST', '/meetings/m/presence', ['GET']],
    ['GET', '/meetings/m/read', ['PUT']],
    ['POST', '/notifications', ['GET']],
    ['GET', '/notifications/read', ['POST']],
    ['DELETE', '/unread', ['GET']],
  ];
  for (const [method, path, allowed] of wrongMethods) {
    test(`${method} ${path} is 405 and says what is allowed`, async () => {
      const answer = await as('ada').send(method, path, ['GET', 'DELETE'].includes(method) ? undefined : {});
      assertError(answer, 405);
      for (const name of allowed) assert.match(answer.headers.allow ?? '', new RegExp(`\\b${name}\\b`));
    });
  }

  for (const path of [
    '/meetings',
    '/meetings/m',
    '/meetings/m/nope',
    '/meetings//messages',
    '/meetings/m/messages/x/y',
    '/notification',
    '/users/ada',
  ]) {
    test(`GET ${path} is not there`, async () => {
      const answer = await as('ada').get(path);
      // Some of these are there for siblings by another method; an empty id is also a wrong one.
      assertError(answer, [400, 404, 405]);
    });
  }

  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/jsonx',
    'application/xml',
  ]) {
    test(`a body of ${type} is 415`, async () => {
      const meeting_id = fresh();
      const headers = { 'Content-Type': type };
      assertError(await as('ada').post(messages(meeting_id), '{"text":"x"}', headers), 415);
      assertError(await as('ada').put(`/meetings/${meeting_id}/read`, '{"seq":0}', headers), 415);
      assert.equal((await as('ada').get(messages(meeting_id))).json().top_seq, 0);
    });
  }

  for (const type of ['application/json', 'application/json; charset=utf-8', 'Application/JSON']) {
    test(`a body of ${type} is taken`, async () => {
      await post('ada', fresh(), '{"text":"x"}', { 'Content-Type': type });
    });
  }

  const broken = [
    '',
    '{',
    '{"text":"x"',
    '{"text":"x"}}',
    '{text:"x"}',
    "{'text':'x'}",
    '[]',
    '"x"',
    'null',
    '1',
    '{"text":"x","text":"y"}',
  ];
  for (const body of broken) {
    test(`the body ${body || '(empty)'} is 400`, async () => {
      assertError(
        await as('ada').post(messages(fresh()), body, { 'Content-Type': 'application/json' }),
        400,
        'invalid_payload',
      );
    });
  }

  test('a body that is not UTF-8 is 400', async () => {
    const bytes = Buffer.concat([Buffer.from('{"text":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')]);
    const answer = await request(service.url + API + messages(fresh()), {
      method: 'POST',
      body: bytes,
      headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${tokenOf('ada')}` },
    });
    assertError(answer, 400, 'invalid_payload');
  });

  test('a body of 60 000 brackets does no harm', async () => {
    const body = `{"text":"x","meta":${'['.repeat(30_000)}${']'.repeat(30_000)}}`;
    assertError(await as('ada').post(messages(fresh()), body), 400, 'invalid_payload');
  });

  test('a body of 64 KiB is read, a longer one is 413', async () => {
    const meeting_id = fresh();
    const filled = (bytes) => `{"text":"x","unknown":"${'y'.repeat(bytes - '{"text":"x","unknown":""}'.length)}"}`;
    await post('ada', meeting_id, filled(65_536));
    assertError(await as('ada').post(messages(meeting_id), filled(65_537)), 413, 'too_large');
    assertError(await as('ada').post(messages(meeting_id), filled(200_000)), 413, 'too_large');
    assert.equal((await as('ada').get(messages(meeting_id))).json().top_seq, 1);
  });

  test('an id in the path may be percent-encoded', async () => {
    const meeting_id = `${fresh('a:b.c_d')}-E`;
    const encoded = [...meeting_id].map((char) => `%${char.charCodeAt(0).toString(16)}`).join('');
    assertHas(await post('ada', meeting_id, { text: 'x' }), { meeting_id });
    const page = assertStatus(await as('ada').get(`/meetings/${encoded}/messages`), 200).json();
    assert.equal(page.top_seq, 1);
    assertHas(page.items[0], { meeting_id, text: 'x' });
  });

  for (const id of ['%', '%4', '%zz', '%00', '%ff', '%c3%28', '%2e%2e%2f', 'a%2Fb', '%20', 'x'.repeat(129)]) {
    test(`the id ${id.slice(0, 20)} in a path is refused`, async () => {
      assertError(await as('ada').get(`/meetings/${id}/messages`), [400, 404]);
    });
  }

  test('X-Request-Id comes back, also in the error', async () => {
    const headers = { 'X-Request-Id': 'trace-1.2_3' };
    assert.equal((await as('ada').get('/unread', headers)).headers['x-request-id'], 'trace-1.2_3');
    const answer = await as('ada').post(messages(fresh()), {}, headers);
    assert.equal(assertError(answer, 400, 'invalid_payload').request_id, 'trace-1.2_3');
    assert.equal(assertError(await new Rest(service).get('/unread', headers), 401).request_id, 'trace-1.2_3');
  });

  for (const path of ['/unread', '/notifications']) {
    test(`HEAD ${path} has the headers of GET and no body`, async () => {
      const answer = assertStatus(await as('ada').send('HEAD', path), 200);
      assert.equal(answer.text, '');
      assert.match(answer.headers['content-type'], /^application\/json/);
    });
  }

  test('several requests on one connection have their own users', async () => {
    // The agent keeps its connections; one of them serves these one after the other.
    for (let n = 0; n < 10; n++) {
      assertHas(await post(`u${n % 2}`, `shared-${n}`, { text: 'x' }), { sender: `u${n % 2}` });
      assertError(await new Rest(service).get('/unread'), 401);
    }
  });
});

describe('a page of another origin', () => {
  const preflight = (origin, method, headers = 'authorization,content-type,idempotency-key') =>
    new Rest(service).send('OPTIONS', messages('m', NO_MESSAGE), undefined, {
      Origin: origin,
      'Access-Control-Request-Method': method,
      'Access-Control-Request-Headers': headers,
    });

  for (const method of ['GET', 'POST', 'PATCH', 'PUT', 'DELETE']) {
    test(`may ${method} with a token and an Idempotency-Key, if it is allowed`, async () => {
      const answer = await preflight(APP, method);
      assert.equal(answer.status, 204, answer.text);
      assert.equal(answer.headers['access-control-allow-origin'], APP);
      const names = (header) => (answer.headers[header] ?? '').toLowerCase().split(/\s*,\s*/);
      assert.ok(
        names('access-control-allow-methods').includes(method.toLowerCase()),
        answer.headers['access-control-allow-methods'],
      );
      for (const name of ['authorization', 'content-type', 'idempotency-key']) {
        assert.ok(names('access-control-allow-headers').includes(name), answer.headers['access-control-allow-headers']);
      }
    });
  }

  test('is told nothing if it is not', async () => {
    const answer = await preflight('https://evil.example', 'DELETE');
    assert.equal(answer.headers['access-control-allow-origin'], undefined);
  });

  test('can read answers and errors, if it is allowed', async () => {
    for (const [rest, status] of [
      [as('ada'), 200],
      [new Rest(service), 401],
    ]) {
      const answer = assertStatus(await rest.get('/unread', { Origin: APP }), status);
      assert.equal(answer.headers['access-control-allow-origin'], APP);
      assert.match(answer.headers.vary ?? '', /\bOrigin\b/i);
    }
  });

  test('cannot read them if it is not', async () => {
    const answer = await as('ada').get('/unread', { Origin: 'https://evil.example' });
    assert.equal(answer.headers['access-control-allow-origin'], undefined);
  });
});

describe('with limits on', () => {
  let limited;
  // An empty value is an unset one: the limits are those of the defaults.
  before(async () => (limited = await startService({ ...WITH_TOKENS, RATE_LIMITS: '' })));
  after(() => limited.stop());

  /** Sends until it is refused; how many went through before. */
  async function until(status, send) {
    for (let n = 0; n < 2000; n++) {
      const answer = await send(n);
      if (answer.status === status) return { sent: n, answer };
    }
    throw new Error(`2000 requests and no ${status}`);
  }

  test('messages beyond the burst are 429 with Retry-After, and the sockets of the user share the limit', async (t) => {
    const rest = Rest.user(limited, 'hasty');
    const { sent, answer } = await until(429, (n) => rest.post(messages('m'), { text: `${n}` }));
    assert.ok(sent >= 20, `only ${sent} before the limit`);
    const error = assertError(answer, 429, 'rate_limited');
    assert.ok(error.retry_after_ms > 0, JSON.stringify(error));
    assert.ok(Number(answer.headers['retry-after']) * 1000 >= error.retry_after_ms, answer.headers['retry-after']);

    const calm = Rest.user(limited, 'calm');
    assertStatus(await calm.post(messages('m'), { text: 'others are not concerned' }), 201);

    const socket = await join(t, limited.url, { auth: { token: tokenOf('hasty') } });
    await ask(socket, 'join_room', 'm');
    const acks = await Promise.all(
      Array.from({ length: 60 }, (_, n) => ask(socket, 'chat_message', { meeting_id: 'm', text: `${n}` })),
    );
    assert.ok(acks.some((ack) => ack.error?.code === 'rate_limited' && ack.error.retry_after_ms > 0));
  });

  test('history beyond the burst is 429', async () => {
    const rest = Rest.user(limited, 'curious');
    const { sent, answer } = await until(429, () => rest.get(messages('m')));
    assert.ok(sent >= 20, `only ${sent} before the limit`);
    assertError(answer, 429, 'rate_limited');
  });
});
