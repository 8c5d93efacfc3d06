// Promise: sibling services can publish, report and moderate over HTTP, and nobody else can.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { TRANSPORTS } from '../support/clients.mjs';
import { WITH_TOKENS, enter, inSeconds, tokenOf } from '../support/jwt.mjs';
import { API_KEY, Rest, WITH_KEY, assertError, assertStatus, messages } from '../support/rest.mjs';
import { startService } from '../support/server.mjs';
import { ask, assertHas, eventually, once, record } from '../support/wait.mjs';

const SETTINGS = { ...WITH_TOKENS, ...WITH_KEY };

let service;
let sibling;
let last = 0;
/** A name that no other test uses. */
const fresh = (name = 'meeting') => `${name}-${++last}`;
before(async () => {
  service = await startService(SETTINGS);
  sibling = Rest.sibling(service);
});
after(() => service.stop());

const as = (user, claims) => Rest.user(service, user, claims);
const say = (socket, meeting_id, text = 'hi', more) => ask(socket, 'chat_message', { meeting_id, text, ...more });
const settled = (socket) => ask(socket, 'message', 'settled');

async function member(t, user, meeting_id, options) {
  const socket = await enter(t, service, user, options);
  assertHas(await ask(socket, 'join_room', { meeting_id }), { ok: true });
  return socket;
}

/** Everything of `events` that `socket` gets, as `[event, payload]`. */
function listen(socket, ...events) {
  const heard = [];
  for (const event of events) socket.on(event, (payload) => heard.push([event, payload]));
  return heard;
}

const ENDPOINTS = [
  ['POST', '/publish', { broadcast: true, event: 'x', data: {} }],
  ['POST', '/updates', { type: 'x', broadcast: true }],
  ['POST', '/disconnect', { user_id: 'nobody-at-all' }],
  ['POST', '/meetings/guarded/close', {}],
  ['DELETE', '/meetings/guarded', undefined],
  ['DELETE', '/users/nobody-at-all', undefined],
  ['GET', '/stats', undefined],
];

describe('only siblings may', () => {
  for (const [method, path, body] of ENDPOINTS) {
    test(`${method} ${path}`, async (t) => {
      const witness = await enter(t, service, 'witness');
      const heard = [];
      witness.onAny((event) => heard.push(event));
      const wrongKeys = ['wrong', '', `${API_KEY}x`, API_KEY.slice(0, -1), API_KEY.toUpperCase(), ` ,${API_KEY}`];
      assertError(await new Rest(service).send(method, path, body), 401, 'unauthorized');
      for (const key of wrongKeys) {
        assertError(await Rest.sibling(service, key).send(method, path, body), 401, ['unauthorized', 'token_invalid']);
      }
      // The key is no token, and does not count where tokens do.
      assertError(await Rest.bearer(service, API_KEY).send(method, path, body), 401, ['unauthorized', 'token_invalid']);
      assertError(await new Rest(service).send(method, `${path}?api_key=${API_KEY}`, body), 401, 'unauthorized');
      const user = as('ada');
      assertError(await user.send(method, path, body), 403, 'forbidden');
      for (const claims of [{ role: 'user' }, { role: 'services' }, { roles: ['Service'] }, { service: true }]) {
        assertError(await as('ada', claims).send(method, path, body), 403, 'forbidden');
      }
      const stale = tokenOf('sibling', { role: 'service', exp: inSeconds(-3600) });
      assertError(await Rest.bearer(service, stale).send(method, path, body), 401, 'token_expired');
      await settled(witness);
      assert.deepEqual(heard, ['response']);

      for (const good of [sibling, as('sibling', { role: 'service' }), as('sibling', { roles: ['x', 'service'] })]) {
        assertStatus(await good.send(method, path, body), [200, 202]);
      }
    });
  }

  test('and the key makes nobody a user', async () => {
    assertError(await sibling.get('/unread'), 401);
    assertError(await sibling.post(messages('m'), { text: 'x' }), 401);
  });

  test('without a key nobody comes in by one', async (t) => {
    const keyless = await startService(WITH_TOKENS);
    t.after(() => keyless.stop());
    for (const [method, path, body] of ENDPOINTS) {
      for (const key of [API_KEY, '', 'undefined', 'null', 'none']) {
        const { status } = await Rest.sibling(keyless, key).send(method, path, body);
        assert.ok([401, 403, 404].includes(status), `${method} ${path} with "${key}": ${status}`);
      }
    }
  });
});

describe('POST /publish', () => {
  const DATA = [
    ['an object', { a: [1, 2.5, null, true, 'ü\u{1f600}<b>&"\\'], nested: { deep: { deeper: [] } }, '': 0 }],
    ['a string', 'text'],
    ['a number', 42],
    ['a list', [1, [2, [3]]]],
    ['null', null],
  ];
  for (const [name, data] of DATA) {
    test(`to a meeting brings ${name} to its members as it is, and to nobody else`, async (t) => {
      const meeting_id = fresh();
      const members = [];
      for (const transport of Object.keys(TRANSPORTS))
        members.push(await member(t, `u-${transport}`, meeting_id, { transport }));
      const outside = await member(t, 'u-websocket', fresh());
      const strayed = listen(outside, 'agenda_changed');
      const heard = members.map((socket) => once(socket, 'agenda_changed'));
      const answer = assertStatus(
        await sibling.post('/publish', { meeting_id, event: 'agenda_changed', data }),
        202,
      ).json();
      assert.ok(typeof answer.id === 'string' && answer.id.length > 0, JSON.stringify(answer));
      assert.equal(answer.delivered_local, members.length);
      for (const event of heard) assert.deepEqual(await event, [data]);
      await settled(outside);
      assert.deepEqual(strayed, []);
    });
  }

  test('to users reaches all their sockets, in whatever rooms they are', async (t) => {
    const [ada, bob, eve] = [fresh('ada'), fresh('bob'), fresh('eve')];
    const sockets = [
      await enter(t, service, ada),
      await member(t, ada, fresh(), { transport: 'polling' }),
      await enter(t, service, bob),
    ];
    const other = await enter(t, service, eve);
    const strayed = listen(other, 'nudge');
    const heard = sockets.map((socket) => once(socket, 'nudge'));
    const answer = await sibling.post('/publish', {
      user_ids: [ada, bob, fresh('nobody')],
      event: 'nudge',
      data: { n: 1 },
    });
    assert.equal(assertStatus(answer, 202).json().delivered_local, 3);
    for (const event of heard) assert.deepEqual(await event, [{ n: 1 }]);
    await settled(other);
    assert.deepEqual(strayed, []);
  });

  test('to nobody is fine', async () => {
    const answer = await sibling.post('/publish', { meeting_id: fresh(), event: 'x', data: {} });
    assert.equal(assertStatus(answer, 202).json().delivered_local, 0);
  });

  test('by broadcast reaches everybody', async (t) => {
    const sockets = [
      await enter(t, service, fresh('u')),
      await member(t, fresh('u'), fresh(), { transport: 'polling' }),
    ];
    const heard = sockets.map((socket) => once(socket, 'maintenance'));
    const answer = await sibling.post('/publish', { broadcast: true, event: 'maintenance', data: { at: 1 } });
    assert.ok(assertStatus(answer, 202).json().delivered_local >= 2);
    for (const event of heard) assert.deepEqual(await event, [{ at: 1 }]);
  });

  test('with an idempotency_key is done once', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'ada', meeting_id);
    const heard = record(socket, 'once');
    const body = { meeting_id, event: 'once', data: { n: 1 }, idempotency_key: fresh('key') };
    const answers = [];
    for (let n = 0; n < 3; n++) answers.push(assertStatus(await sibling.post('/publish', body), [200, 202]).json());
    assert.equal(new Set(answers.map((answer) => answer.id)).size, 1);
    await sibling.post('/publish', { ...body, idempotency_key: fresh('key') });
    await heard.count(2);
    await settled(socket);
    assert.equal(heard.items.length, 2);
  });

  test('keeps the order in which it was asked, also among messages', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'ada', meeting_id);
    const heard = listen(socket, 'step', 'chat_message');
    for (let n = 0; n < 10; n++) {
      assertStatus(await sibling.post('/publish', { meeting_id, event: 'step', data: n }), 202);
      assertStatus(await as('bob').post(messages(meeting_id), { text: `${n}` }), 201);
    }
    await settled(socket);
    assert.deepEqual(
      heard.map(([, payload]) => payload?.text ?? payload),
      Array.from({ length: 10 }, (_, n) => [n, `${n}`]).flat(),
    );
  });

  const reserved = [
    'connect',
    'connect_error',
    'disconnect',
    'disconnecting',
    'newListener',
    'removeListener',
    'response',
    'ready',
    'auth_expiring',
    'auth_expired',
    'chat_message',
    'message_edited',
    'message_deleted',
    'message_reaction',
    'meeting_update',
    'notification',
    'unread',
    'typing',
    'presence_update',
    'read_receipt',
    'room_left',
    'resync',
    'server_draining',
    'chat_error',
  ];
  for (const event of reserved) {
    test(`refuses the reserved name ${event}`, async (t) => {
      const meeting_id = fresh();
      const socket = await member(t, 'ada', meeting_id);
      const heard = [];
      socket.onAny((name) => heard.push(name));
      const error = assertError(
        await sibling.post('/publish', { meeting_id, event, data: {} }),
        400,
        'invalid_payload',
      );
      assert.equal(error.details?.field, 'event', JSON.stringify(error));
      await settled(socket);
      assert.deepEqual(
        heard.filter((name) => name !== 'presence_update'),
        ['response'],
      );
      assert.equal(socket.connected, true);
    });
  }

  const wrong = [
    ['no event', { meeting_id: 'm', data: {} }],
    ['an empty event', { meeting_id: 'm', event: '', data: {} }],
    ['an event of 65 characters', { meeting_id: 'm', event: 'x'.repeat(65), data: {} }],
    ['an event that is a number', { meeting_id: 'm', event: 5, data: {} }],
    ['nobody to send to', { event: 'x', data: {} }],
    ['broadcast false', { broadcast: false, event: 'x', data: {} }],
    ['a bad meeting id', { meeting_id: 'a b', event: 'x', data: {} }],
    ['user_ids that are no list', { user_ids: 'ada', event: 'x', data: {} }],
    ['a user id that is none', { user_ids: [''], event: 'x', data: {} }],
    ['a body that is a list', []],
  ];
  for (const [name, body] of wrong) {
    test(`refuses ${name}`, async () => {
      assertError(await sibling.post('/publish', body), 400, 'invalid_payload');
    });
  }

  test('refuses more than 64 KiB', async () => {
    const data = 'x'.repeat(70_000);
    assertError(await sibling.post('/publish', { meeting_id: 'm', event: 'x', data }), 413, 'too_large');
  });
});

/** Posts an update of its own id and answers what was answered. */
const update = (body) => sibling.update({ id: fresh('event'), ...body });

/**
 * A meeting with a member who is no recipient, and a recipient who is no member; `heard()` waits for a last update to
 * both and answers what came before it.
 */
async function scene(t) {
  const meeting_id = fresh();
  const user = fresh('recipient');
  const room = await member(t, fresh('member'), meeting_id);
  const recipient = await enter(t, service, user);
  const inRoom = listen(room, 'meeting_update', 'notification', 'room_left');
  const atRecipient = listen(recipient, 'meeting_update', 'notification', 'room_left');
  const heard = async () => {
    // A meeting that is closed is still told of updates.
    const id = fresh('last');
    const last = [
      eventually(async () => assert.ok(inRoom.some(([, payload]) => payload.event_id === id))),
      eventually(async () => assert.ok(atRecipient.some(([, payload]) => payload.kind === 'test.last'))),
    ];
    await sibling.update({ id, type: 'test.last', meeting_id, recipients: [user] });
    await Promise.all(last);
    const before = (list) => list.filter(([, payload]) => payload.type !== 'test.last' && payload.kind !== 'test.last');
    return { room: before(inRoom), recipient: before(atRecipient) };
  };
  return { meeting_id, user, room, recipient, heard };
}

describe('an id of 64 characters of four bytes each', () => {
  const ways = [
    ['POST /publish', '/publish', (id, user) => ({ idempotency_key: id, event: 'x', user_ids: [user], persist: true })],
    ['POST /updates', '/updates', (id, user) => ({ id, type: 'x', recipients: [user] })],
  ];
  for (const [n, [name, path, body]] of ways.entries()) {
    test(`is taken by ${name}, and stands in the inbox among others`, async (t) => {
      const user = fresh('user');
      const id = String.fromCodePoint(0x1f600 + n).repeat(64);
      const ids = [fresh('before'), id, fresh('after')];
      for (const one of ids) assertStatus(await sibling.post(path, { data: {}, ...body(one, user) }), 202);
      assertHas((await as(user).get('/unread')).json(), { notifications: 3 });
      const page = assertStatus(await as(user).get('/notifications'), 200).json();
      assertHas(page, { unread: 3 });
      assert.deepEqual(page.items.map((item) => item.id).sort(), [...ids].sort());
      const socket = await enter(t, service, user);
      assertHas(await ask(socket, 'notifications_read', { ids: [id] }), { ok: true, unread: 2 });
      // What is known by its id is not told again.
      assertStatus(await sibling.post(path, { data: {}, ...body(id, user) }), 202);
      const { items } = await ask(socket, 'notifications_get', {});
      assert.deepEqual(items.filter(({ read }) => read).map((item) => item.id), [id]); // prettier-ignore
      assert.equal(items.length, 3);
    });
  }
});

describe('POST /updates', () => {
  const types = [
    ['meeting.created', { room: false, users: true }],
    ['meeting.updated', { room: true, users: true }],
    ['meeting.rescheduled', { room: true, users: true }],
    ['meeting.cancelled', { room: true, users: true }],
    ['meeting.deleted', { room: true, users: true }],
    ['meeting.started', { room: true, users: true }],
    ['meeting.ended', { room: true, users: false }],
    ['meeting.reminder', { room: true, users: true }],
    ['participant.added', { room: true, users: true }],
    ['participant.invited', { room: true, users: true }],
    ['participant.removed', { room: true, users: true }],
    ['participant.responded', { room: true, users: true }],
    ['some_other.type-1', { room: true, users: true }],
    ['x'.repeat(64), { room: true, users: true }],
  ];
  for (const [type, { room, users }] of types) {
    test(`${type.slice(0, 30)} is told ${[room && 'to the room', users && 'to the recipients'].filter(Boolean).join(' and ')}`, async (t) => {
      const { meeting_id, user, heard } = await scene(t);
      const id = fresh('event');
      const data = { place: 'Room 7', list: [1, null, 'ü'] };
      const body = { v: 1, id, type, meeting_id, actor_id: 'boss', recipients: [user], title: 'T', body: 'B', data };
      const before = Date.now();
      assert.deepEqual(await sibling.update(body), { id, duplicate: false });
      const { room: inRoom, recipient } = await heard();
      assert.deepEqual(
        inRoom.map(([event]) => event),
        room ? ['meeting_update'] : [],
      );
      if (room) {
        const { seq, epoch, ts, ...rest } = inRoom[0][1];
        assert.deepEqual(rest, { meeting_id, type, event_id: id, actor_id: 'boss', data });
        assert.equal(seq, 1);
        assert.ok(typeof epoch === 'string' && epoch.length >= 8, `epoch ${epoch}`);
        assert.ok(Math.abs(ts - before) < 60_000, `ts ${ts}`);
      }
      const notifications = recipient.filter(([event]) => event === 'notification');
      assert.deepEqual(
        recipient.map(([event]) => event).filter((event) => event !== 'room_left'),
        users ? ['notification'] : [],
      );
      if (users) {
        const { id: own, nseq, ts, ...rest } = notifications[0][1];
        assert.deepEqual(rest, { kind: type, meeting_id, actor_id: 'boss', title: 'T', body: 'B', data, read: false });
        assert.ok(typeof own === 'string' && own.length > 0 && Number.isInteger(nseq), `${own} ${nseq}`);
        assert.ok(Math.abs(ts - before) < 60_000, `ts ${ts}`);
      }
    });
  }

  for (const [to, expected] of [
    ['room', [['meeting_update'], []]],
    ['users', [[], ['notification']]],
    ['both', [['meeting_update'], ['notification']]],
    [undefined, [['meeting_update'], ['notification']]],
  ]) {
    test(`with "to": ${to} goes there only`, async (t) => {
      const { meeting_id, user, heard } = await scene(t);
      await update({ type: 'meeting.updated', meeting_id, recipients: [user], to });
      const { room, recipient } = await heard();
      assert.deepEqual(
        [room, recipient].map((list) => list.map(([event]) => event)),
        expected,
      );
    });
  }

  test('of a meeting stands in its history, in one order with the messages', async (t) => {
    const { meeting_id, room } = await scene(t);
    assertHas(await say(room, meeting_id, 'before'), { seq: 1 });
    const { id } = await update({ type: 'meeting.updated', meeting_id, data: { a: 1 } });
    assertHas(await say(room, meeting_id, 'after'), { seq: 3 });
    const { items } = await ask(room, 'get_history', { meeting_id });
    assert.deepEqual(
      items.map(({ event, seq, event_id, text }) => [event, seq, event_id ?? text]),
      [
        ['chat_message', 1, 'before'],
        ['meeting_update', 2, id],
        ['chat_message', 3, 'after'],
      ],
    );
  });

  test('without a meeting goes to the recipients only, without meeting_id', async (t) => {
    const user = fresh('solo');
    const socket = await enter(t, service, user);
    const heard = once(socket, 'notification');
    await update({ type: 'account.changed', recipients: [user], data: { x: 1 } });
    const [event] = await heard;
    assertHas(event, { kind: 'account.changed', data: { x: 1 } });
    assert.ok(!('meeting_id' in event), JSON.stringify(event));
  });

  test('waits for those who are offline, and counts as unread', async (t) => {
    const user = fresh('offline');
    for (const n of [1, 2])
      await update({ type: 'meeting.created', meeting_id: fresh(), recipients: [user], data: { n } });
    const socket = await enter(t, service, user);
    assert.equal(socket.ready.unread.notifications, 2);
    const { items, unread } = await ask(socket, 'notifications_get', {});
    assert.deepEqual([items.map((item) => item.data.n).toSorted(), unread], [[1, 2], 2]);
  });

  test('with persist false is told only to those who are there', async (t) => {
    const user = fresh('live');
    const socket = await enter(t, service, user);
    const heard = once(socket, 'notification');
    await update({ type: 'call.ringing', recipients: [user], persist: false });
    assertHas((await heard)[0], { kind: 'call.ringing' });
    assertHas(await ask(socket, 'notifications_get', {}), { items: [], unread: 0 });
  });

  test('to everybody by broadcast is told and not kept', async (t) => {
    const sockets = [
      await enter(t, service, fresh('u')),
      await enter(t, service, fresh('u'), { transport: 'polling' }),
    ];
    const heard = sockets.map((socket) => record(socket, 'notification'));
    await update({ type: 'system.notice', broadcast: true, title: 'Hello' });
    for (const { some } of heard) await some((event) => event.kind === 'system.notice' && event.title === 'Hello');
    for (const socket of sockets) assertHas(await ask(socket, 'notifications_get', {}), { items: [], unread: 0 });
  });

  test('for nobody is dropped and does no harm', async (t) => {
    const socket = await enter(t, service, fresh('u'));
    const heard = listen(socket, 'notification', 'meeting_update');
    const { status } = await sibling.post('/updates', { id: fresh('event'), type: 'meeting.updated' });
    assert.ok([202, 400].includes(status), `${status}`);
    await settled(socket);
    assert.deepEqual(heard, []);
  });

  describe('twice', () => {
    test('by one id is told once, whatever else differs', async (t) => {
      const { meeting_id, user, heard } = await scene(t);
      const id = fresh('event');
      const body = { id, type: 'meeting.updated', meeting_id, recipients: [user], data: { n: 1 } };
      assert.deepEqual(await sibling.update(body), { id, duplicate: false });
      assert.deepEqual(await sibling.update(body), { id, duplicate: true });
      assert.deepEqual(await sibling.update({ ...body, data: { n: 2 } }), { id, duplicate: true });
      const { room, recipient } = await heard();
      assert.deepEqual([room.length, recipient.length], [1, 1]);
    });

    test('at once is told once', async (t) => {
      const { meeting_id, user, heard } = await scene(t);
      const body = { id: fresh('event'), type: 'meeting.updated', meeting_id, recipients: [user] };
      const answers = await Promise.all(Array.from({ length: 20 }, () => sibling.update(body)));
      assert.equal(answers.filter((answer) => !answer.duplicate).length, 1);
      const { room, recipient } = await heard();
      assert.deepEqual([room.length, recipient.length], [1, 1]);
    });

    test('without an id is told once for the same bytes, and twice for others', async (t) => {
      const { meeting_id, user, heard } = await scene(t);
      const body = { type: 'meeting.updated', meeting_id, recipients: [user], data: { n: 1 } };
      const first = await sibling.update(body);
      assert.equal(first.duplicate, false);
      assert.deepEqual(await sibling.update(body), { id: first.id, duplicate: true });
      const second = await sibling.update({ ...body, data: { n: 2 } });
      assert.equal(second.duplicate, false);
      assert.notEqual(second.id, first.id);
      const { room, recipient } = await heard();
      assert.deepEqual([room.length, recipient.length], [2, 2]);
    });
  });

  describe('leaves out', () => {
    const cases = [
      ['the actor', (me) => ({ actor_id: me }), false],
      ['nobody when another is the actor', () => ({ actor_id: 'boss' }), true],
      ['not the actor when exclude is empty', (me) => ({ actor_id: me, exclude: [] }), true],
      ['who is excluded', (me) => ({ exclude: [me] }), false],
      ['nobody when others are excluded', () => ({ exclude: ['somebody-else'] }), true],
    ];
    for (const [name, more, told] of cases) {
      test(name, async (t) => {
        const { meeting_id, user, recipient } = await scene(t);
        const heard = record(recipient, 'notification');
        await update({ type: 'meeting.updated', meeting_id, recipients: [user], ...more(user) });
        await update({ type: 'test.mark', recipients: [user] });
        await heard.some((event) => event.kind === 'test.mark');
        assert.deepEqual(
          heard.items.map((event) => event.kind),
          told ? ['meeting.updated', 'test.mark'] : ['test.mark'],
        );
      });
    }
  });

  describe('tolerates', () => {
    const plain = (meeting_id, user) => ({ type: 'meeting.updated', meeting_id, recipients: [user], data: { n: 1 } });
    const forms = [
      ['event for type', ({ type, ...rest }) => ({ event: type, ...rest })],
      ['event_type for type', ({ type, ...rest }) => ({ event_type: type, ...rest })],
      ['action for type', ({ type, ...rest }) => ({ action: type, ...rest })],
      ['no type at all', ({ type, ...rest }) => rest],
      ['meetingId', ({ meeting_id, ...rest }) => ({ meetingId: meeting_id, ...rest })],
      ['room', ({ meeting_id, ...rest }) => ({ room: meeting_id, ...rest })],
      ['user_ids', ({ recipients, ...rest }) => ({ user_ids: recipients, ...rest })],
      ['participants as ids', ({ recipients, ...rest }) => ({ participants: recipients, ...rest })],
      ['participants with id', ({ recipients: [id], ...rest }) => ({ participants: [{ id, name: 'N' }], ...rest })],
      ['participants with user_id', ({ recipients: [id], ...rest }) => ({ participants: [{ user_id: id }], ...rest })],
      ['user_id for one recipient', ({ recipients: [id], ...rest }) => ({ user_id: id, ...rest })],
      ['payload for data', ({ data, ...rest }) => ({ payload: data, ...rest })],
      ['meeting for data', ({ data, ...rest }) => ({ meeting: data, ...rest })],
      ['update for data', ({ data, ...rest }) => ({ update: data, ...rest })],
      ['unknown fields', (body) => ({ ...body, tenant: 'x', trace: { id: 1 } })],
      ['a timestamp in seconds', (body) => ({ ...body, timestamp: inSeconds(0) })],
      ['a timestamp in milliseconds', (body) => ({ ...body, timestamp: Date.now() })],
      ['a timestamp of RFC 3339', (body) => ({ ...body, timestamp: new Date().toISOString() })],
      ['a timestamp with an offset', (body) => ({ ...body, timestamp: '2026-01-31T23:59:59.5+02:00' })],
    ];
    for (const [name, form] of forms) {
      test(name, async (t) => {
        const { meeting_id, user, heard } = await scene(t);
        await update(form(plain(meeting_id, user)));
        const { room, recipient } = await heard();
        assert.deepEqual([room.length, recipient.length], [1, 1], JSON.stringify([room, recipient]));
        assertHas(room[0][1], { meeting_id, type: 'meeting.updated', data: { n: 1 } });
        assertHas(recipient[0][1], { meeting_id, kind: 'meeting.updated', data: { n: 1 } });
      });
    }

    test('the meeting inside of meeting', async (t) => {
      const { meeting_id, user, heard } = await scene(t);
      await update({ type: 'meeting.updated', meeting: { id: meeting_id, n: 1 }, recipients: [user] });
      const { room, recipient } = await heard();
      assertHas(room[0]?.[1], { meeting_id });
      assertHas(room[0][1].data, { n: 1 });
      assertHas(recipient[0]?.[1], { meeting_id });
    });

    test('the meeting inside of data', async (t) => {
      const { meeting_id, user, heard } = await scene(t);
      await update({ type: 'meeting.updated', data: { meeting_id, n: 1 }, recipients: [user] });
      const { room, recipient } = await heard();
      assertHas(room[0]?.[1], { meeting_id });
      assertHas(room[0][1].data, { n: 1 });
      assertHas(recipient[0]?.[1], { meeting_id });
    });

    test('integers as ids', async (t) => {
      const [meeting, user] = [900_000 + ++last, 800_000 + ++last];
      const room = await member(t, fresh('u'), String(meeting));
      const recipient = await enter(t, service, 'unused', { claims: { sub: user } });
      const heard = [once(room, 'meeting_update'), once(recipient, 'notification')];
      await update({ type: 'meeting.updated', meeting_id: meeting, recipients: [user] });
      assertHas((await heard[0])[0], { meeting_id: String(meeting) });
      assertHas((await heard[1])[0], { meeting_id: String(meeting) });
    });
  });

  describe('refuses', () => {
    const wrong = [
      ['a list', []],
      ['a string', '"x"'],
      ['broken JSON', '{"type":"x"'],
      ['a type with other characters', { type: 'Meeting Updated!', meeting_id: 'm' }],
      ['a type of 65 characters', { type: 'x'.repeat(65), meeting_id: 'm' }],
      ['a meeting id that is none', { type: 'x', meeting_id: 'a b' }],
      ['an id of 65 characters', { id: 'x'.repeat(65), type: 'x', meeting_id: 'm' }],
      ['1 001 recipients', { type: 'x', recipients: Array.from({ length: 1001 }, (_, n) => `u${n}`) }],
      ['a title of 201 characters', { type: 'x', recipients: ['u'], title: 'x'.repeat(201) }],
      ['a body of 1 001 characters', { type: 'x', recipients: ['u'], body: 'x'.repeat(1001) }],
      ['data that is no object', { type: 'x', recipients: ['u'], data: 5 }],
      ['another "to"', { type: 'x', recipients: ['u'], to: 'nobody' }],
      ['a time that is none', { type: 'meeting.created', meeting_id: 'm', starts_at: 'tomorrow' }],
    ];
    for (const [name, body] of wrong) {
      test(name, async () => {
        const { id = fresh('event') } = typeof body === 'object' ? body : {};
        const sent = typeof body === 'string' || Array.isArray(body) ? body : { id, ...body };
        assertError(await sibling.post('/updates', sent), 400, 'invalid_payload');
      });
    }

    test('more than 64 KiB', async () => {
      const body = { type: 'x', recipients: ['u'], data: { x: 'y'.repeat(66_000) } };
      assertError(await sibling.post('/updates', body), 413, 'too_large');
    });

    test('nothing that is just within its limits', async (t) => {
      const { meeting_id, user, heard } = await scene(t);
      const id = fresh('e').padEnd(64, 'x');
      const recipients = [...Array.from({ length: 999 }, (_, n) => `u${n}`), user];
      const body = {
        id,
        type: 'meeting.updated',
        meeting_id,
        recipients,
        title: 'é'.repeat(200),
        body: 'é'.repeat(1000),
      };
      assert.deepEqual(await sibling.update(body), { id, duplicate: false });
      const { recipient } = await heard();
      assertHas(recipient[0][1], { title: 'é'.repeat(200), body: 'é'.repeat(1000) });
    });
  });

  describe('of participants', () => {
    for (const type of ['participant.added', 'participant.invited']) {
      test(`${type} is told to the invited and to the recipients`, async (t) => {
        const { meeting_id, user, room, recipient } = await scene(t);
        const invited = fresh('invited');
        const guest = await enter(t, service, invited);
        const heard = [once(room, 'meeting_update'), once(recipient, 'notification'), once(guest, 'notification')];
        await update({ type, meeting_id, user_id: invited, recipients: [user] });
        assertHas((await heard[0])[0], { type });
        for (const event of heard.slice(1)) assertHas((await event)[0], { kind: type, meeting_id });
      });
    }

    test('participant.removed is told to the removed, who leaves the room', async (t) => {
      const meeting_id = fresh();
      const user = fresh('removed');
      const [removed, stays] = [await member(t, user, meeting_id), await member(t, fresh('stays'), meeting_id)];
      const heard = [once(removed, 'notification'), once(removed, 'room_left'), once(stays, 'meeting_update')];
      await update({ type: 'participant.removed', meeting_id, user_id: user });
      assertHas((await heard[0])[0], { kind: 'participant.removed', meeting_id });
      assert.deepEqual((await heard[1])[0], { meeting_id, reason: 'removed' });
      assertHas((await heard[2])[0], { type: 'participant.removed' });
      assertHas(await say(removed, meeting_id), { ok: false });
      assertHas(await say(stays, meeting_id), { ok: true });
    });

    test('participant.responded is told to the host who is its recipient', async (t) => {
      const { meeting_id, user, room, heard } = await scene(t);
      const guest = fresh('guest');
      await update({
        type: 'participant.responded',
        meeting_id,
        actor_id: guest,
        recipients: [user],
        data: { answer: 'yes' },
      });
      assertHas((await heard()).recipient[0][1], {
        kind: 'participant.responded',
        actor_id: guest,
        data: { answer: 'yes' },
      });
      assert.equal(room.connected, true);
    });
  });

  /** Writing is over, reading is not. */
  async function assertClosed(socket, meeting_id, user, id) {
    // Whether the members had to leave or not, they may come back to read.
    assertHas(await ask(socket, 'join_room', { meeting_id, limit: 10 }), { ok: true });
    for (const [event, payload] of [
      ['chat_message', { text: 'too late' }],
      ['react', { id, emoji: '+1' }],
    ]) {
      const ack = await ask(socket, event, { meeting_id, ...payload });
      assert.deepEqual([ack.ok, ack.error?.code], [false, 'room_closed'], `${event}: ${JSON.stringify(ack)}`);
    }
    assertError(await as(user).post(messages(meeting_id), { text: 'too late' }), 423, 'room_closed');
    const history = await ask(socket, 'get_history', { meeting_id });
    assertHas(history, { ok: true });
    assert.ok(history.items.some((item) => item.text === 'while it was open'));
    assertStatus(await as(user).get(messages(meeting_id)), 200);
    assertHas(await ask(socket, 'mark_read', { meeting_id, seq: 1 }), { ok: true });
  }

  for (const type of ['meeting.cancelled', 'meeting.deleted']) {
    test(`${type} closes the room: reading goes on, writing is room_closed`, async (t) => {
      const meeting_id = fresh();
      const user = fresh('ada');
      const socket = await member(t, user, meeting_id);
      const { id } = await say(socket, meeting_id, 'while it was open');
      const heard = once(socket, 'meeting_update');
      await update({ type, meeting_id });
      assertHas((await heard)[0], { type, seq: 2 });
      await assertClosed(socket, meeting_id, user, id);
      const late = await enter(t, service, fresh('late'));
      assertHas(await ask(late, 'join_room', { meeting_id }), { ok: true });
      assert.equal((await say(late, meeting_id)).error?.code, 'room_closed');
    });
  }

  test('meeting.ended leaves the room open for ROOM_CLOSE_AFTER, a day by default', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'ada', meeting_id);
    await update({ type: 'meeting.ended', meeting_id });
    assertHas(await say(socket, meeting_id, 'afterwards'), { ok: true });
  });

  test('meeting.ended closes the room when ROOM_CLOSE_AFTER is over', async (t) => {
    const quick = await startService({ ...SETTINGS, ROOM_CLOSE_AFTER: '1s' });
    t.after(() => quick.stop());
    const socket = await enter(t, quick, 'ada');
    assertHas(await ask(socket, 'join_room', 'm'), { ok: true });
    await Rest.sibling(quick).update({ id: 'e', type: 'meeting.ended', meeting_id: 'm' });
    await eventually(async () => assert.equal((await say(socket, 'm')).error?.code, 'room_closed'));
    assertHas(await ask(socket, 'get_history', { meeting_id: 'm' }), { ok: true });
  });

  test('POST meetings/{id}/close closes the room as well', async (t) => {
    const meeting_id = fresh();
    const user = fresh('ada');
    const socket = await member(t, user, meeting_id);
    const { id } = await say(socket, meeting_id, 'while it was open');
    const answer = assertStatus(await sibling.post(`/meetings/${meeting_id}/close`, {}), 200).json();
    assert.ok(Number.isInteger(answer.count), JSON.stringify(answer));
    await assertClosed(socket, meeting_id, user, id);
    assertStatus(await sibling.post(`/meetings/${meeting_id}/close`, {}), 200);
  });
});

describe('POST /disconnect', () => {
  /** Sockets that come back by themselves, each with the promises of its going and of its coming. */
  async function guests(t, user, list) {
    const all = [];
    for (const { transport, claims } of list) {
      const socket = await enter(t, service, user, { transport, claims, reconnection: true, reconnectionDelay: 10 });
      all.push({ socket, left: record(socket, 'disconnect'), back: record(socket, 'ready') });
    }
    return all;
  }

  async function assertCameBack({ left, back }, user) {
    await back.count(1);
    assert.equal([left.items[0]].flat()[0], 'transport close');
    assert.equal(back.items[0].user_id, user);
  }

  test('by user_id closes all transports of the user, who comes back', async (t) => {
    const user = fresh('thrown');
    const all = await guests(
      t,
      user,
      Object.keys(TRANSPORTS).map((transport) => ({ transport })),
    );
    const other = await enter(t, service, fresh('calm'));
    assert.deepEqual(assertStatus(await sibling.post('/disconnect', { user_id: user }), 200).json(), { count: 3 });
    for (const guest of all) await assertCameBack(guest, user);
    assert.equal(other.connected, true);
    await settled(other);
  });

  test('by jti closes the sockets of that token only', async (t) => {
    const user = fresh('thrown');
    const [phone, laptop] = await guests(t, user, [{ claims: { jti: `${user}-a` } }, { claims: { jti: `${user}-b` } }]);
    assert.deepEqual((await sibling.post('/disconnect', { jti: `${user}-a` })).json(), { count: 1 });
    await assertCameBack(phone, user);
    await settled(laptop.socket);
    assert.deepEqual(laptop.left.items, []);
  });

  test('by sid, the id of the socket, closes that one only', async (t) => {
    const user = fresh('thrown');
    const [phone, laptop] = await guests(t, user, [{ claims: { sid: 'login' } }, { claims: { sid: 'login' } }]);
    assert.deepEqual((await sibling.post('/disconnect', { sid: 'login' })).json(), { count: 0 });
    assert.deepEqual((await sibling.post('/disconnect', { sid: phone.socket.id })).json(), { count: 1 });
    await assertCameBack(phone, user);
    await settled(laptop.socket);
    assert.deepEqual(laptop.left.items, []);
  });

  test('of nobody counts none', async () => {
    for (const body of [{ user_id: fresh('nobody') }, { jti: fresh('none') }, { sid: fresh('none') }]) {
      assert.deepEqual(assertStatus(await sibling.post('/disconnect', body), 200).json(), { count: 0 });
    }
  });

  test('says whom, or is refused', async (t) => {
    const socket = await enter(t, service, fresh('u'));
    for (const body of [{}, { user_id: '' }, { user_id: ['u'] }, [], { user: 'u' }]) {
      assertError(await sibling.post('/disconnect', body), 400, 'invalid_payload');
    }
    await settled(socket);
    assert.equal(socket.connected, true);
  });
});

describe('erasing', () => {
  test('a meeting takes its history and begins a new epoch', async (t) => {
    const meeting_id = fresh();
    const socket = await member(t, 'ada', meeting_id);
    for (let n = 1; n <= 3; n++) assertHas(await say(socket, meeting_id, `secret ${n}`), { seq: n });
    const { epoch } = await ask(socket, 'get_history', { meeting_id });
    const answer = assertStatus(await sibling.delete(`/meetings/${meeting_id}`), 200).json();
    assert.ok(Number.isInteger(answer.count), JSON.stringify(answer));
    const late = await enter(t, service, 'bob');
    const joined = await ask(late, 'join_room', { meeting_id, since: { epoch, seq: 1 } });
    assertHas(joined, { ok: true, recovered: false, events: [], reason: 'epoch' });
    assert.notEqual(joined.epoch, epoch);
    const history = await ask(late, 'get_history', { meeting_id });
    assertHas(history, { ok: true, epoch: joined.epoch });
    assert.ok(!JSON.stringify(history.items).includes('secret'), JSON.stringify(history));
    assert.ok(!(await as('bob').get(messages(meeting_id))).text.includes('secret'));
    assertHas(await say(late, meeting_id, 'a new life'), { ok: true, epoch: joined.epoch });
  });

  test('a meeting leaves others alone', async (t) => {
    const [erased, kept] = [fresh(), fresh()];
    const socket = await member(t, 'ada', kept);
    const { epoch } = await say(socket, kept, 'stays');
    assertStatus(await sibling.delete(`/meetings/${erased}`), 200);
    assertHas(await ask(socket, 'get_history', { meeting_id: kept }), { ok: true, epoch, top_seq: 1 });
  });

  test('a user takes the inbox and the read marks', async (t) => {
    const [user, other] = [fresh('erased'), fresh('kept')];
    const meeting_id = fresh();
    await member(t, user, meeting_id);
    await as(other).post(messages(meeting_id), { text: 'x' });
    await update({ type: 'meeting.created', meeting_id: fresh(), recipients: [user, other] });
    assertHas((await as(user).get('/unread')).json(), { notifications: 1 });
    const answer = assertStatus(await sibling.delete(`/users/${encodeURIComponent(user)}`), 200).json();
    assert.ok(Number.isInteger(answer.count), JSON.stringify(answer));
    assertHas((await as(user).get('/unread')).json(), { notifications: 0, meetings: {} });
    assertHas((await as(user).get('/notifications')).json(), { items: [], unread: 0 });
    assertHas((await as(other).get('/unread')).json(), { notifications: 1 });
  });
});

test('GET /stats has what operators look at', async (t) => {
  const count = async () => assertStatus(await sibling.get('/stats'), 200).json();
  const before = await count();
  assert.match(before.version, /^\d+\.\d+\.\d+/);
  assert.ok(typeof before.instance === 'string' && before.instance.length > 0);
  assert.equal(before.redis, service.redis ? 'up' : 'disabled');
  for (const field of [
    'uptime_s',
    'connections',
    'sessions',
    'sockets',
    'rooms',
    'users',
    'outbox_bytes',
    'outbox_bytes_max',
    'pending_publishes',
  ]) {
    assert.ok(Number.isFinite(before[field]) && before[field] >= 0, `${field}: ${before[field]}`);
  }
  const other = await startService(SETTINGS);
  t.after(() => other.stop());
  const stats = async () => (await Rest.sibling(other).get('/stats')).json();
  assertHas(await stats(), { sessions: 0, sockets: 0, rooms: 0, users: 0 });
  const sockets = [];
  for (const user of ['ada', 'ada', 'bob']) sockets.push(await enter(t, other, user));
  assert.equal(sockets[0].ready.instance, (await stats()).instance);
  for (const socket of sockets) await ask(socket, 'join_room', 'one');
  await ask(sockets[0], 'join_room', 'two');
  assertHas(await stats(), { sessions: 3, sockets: 3, rooms: 2, users: 2 });
  for (const socket of sockets) socket.disconnect();
  await eventually(async () => assertHas(await stats(), { sessions: 0, sockets: 0, rooms: 0, users: 0 }));
});
