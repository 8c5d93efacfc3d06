// Promise: every field of every event is checked; whoever sends a wrong one is told which, and nothing else happens.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { NO_MESSAGE, accepted, as, fresh, log, member, refused, said, settled } from '../support/chat.mjs';
import { startService } from '../support/server.mjs';
import { WITH_USERS, token } from '../support/token.mjs';
import { ask, record } from '../support/wait.mjs';

let service;
before(async () => (service = await startService(WITH_USERS)));
after(() => service.stop());

const OBJECTS = [{}, { a: 1 }, [], ['x']];
const NO_STRINGS = [5, 1.5, true, ...OBJECTS];
const NO_BOOLEANS = [0, 1, 'true', 'yes', ...OBJECTS];
const NO_INTEGERS = ['1', '', 1.5, true, ...OBJECTS];
/** A position: not negative. */
const NO_SEQS = [-1, ...NO_INTEGERS];
const CONTROLS = ['\0', '\x01', '\b', '\x1b', '\x1f', 'a\0b'];

const nested = (depth) => (depth === 1 ? {} : { a: nested(depth - 1) });
const sized = (bytes) => ({ a: 'x'.repeat(bytes - '{"a":""}'.length) });
const times = (count, value) => Array(count).fill(value);

/** Values of a field: those that are wrong, and those that are fine and are at the limit. */
const MEETING_ID = {
  wrong: [
    ...['', 'x'.repeat(129), 'a b', 'a/b', 'a#b', 'é', '😀', 'a\n', 'a\0', '\ud800', -1, 1.5, 2 ** 53, true],
    ...OBJECTS,
  ],
};
const TEXT = {
  wrong: ['', 'x'.repeat(4001), '😀'.repeat(4001), 'a\rb', 'a\ud800', ...CONTROLS, ...NO_STRINGS],
  fine: ['x', 'x'.repeat(4000), '😀'.repeat(4000), 'a\n\tb', '\x7f', ' ', '<b>&amp;'],
};
const MESSAGE_ID = {
  wrong: [
    '',
    NO_MESSAGE.slice(1),
    `${NO_MESSAGE}0`,
    `${NO_MESSAGE.slice(1)} `,
    `${NO_MESSAGE.slice(1)}\0`,
    ...NO_STRINGS,
  ],
  fine: [NO_MESSAGE],
};
const BOOLEAN = { wrong: NO_BOOLEANS, fine: [true, false] };
/** Out of its range a limit is clamped. */
const LIMIT = { wrong: NO_INTEGERS, fine: [-1, 0, 1, 100, 101, 300, 301, 1000, 1_000_000] };
const SEQ = { wrong: NO_SEQS, fine: [0, 1, Number.MAX_SAFE_INTEGER] };
const CLIENT_ID = {
  wrong: ['', 'x'.repeat(65), 'a b', 'a.b', 'é', 'a\n', ...CONTROLS, ...NO_STRINGS],
  fine: ['x', 'x'.repeat(64), 'AZaz09_-'],
};
const IN_MEETING = { meeting_id: MEETING_ID };

/**
 * For each event: a payload that is fine in a meeting with one message, the fields that must be there, and the values
 * of each field.
 */
const EVENTS = {
  join_room: {
    base: ({ meeting_id }) => ({ meeting_id }),
    required: ['meeting_id'],
    fields: {
      ...IN_MEETING,
      since: {
        wrong: [
          ...['x', 5, true, [], {}, { epoch: 'abcdefghijkl' }, { seq: 1 }, { epoch: 5, seq: 1 }, { epoch: {}, seq: 1 }],
          ...[-1, 1.5, '1', {}].map((seq) => ({ epoch: 'abcdefghijkl', seq })),
        ],
        fine: [0, 1, Number.MAX_SAFE_INTEGER].map((seq) => ({ epoch: 'abcdefghijkl', seq })),
      },
      limit: LIMIT,
      presence: BOOLEAN,
    },
  },
  leave_room: {
    base: ({ meeting_id }) => ({ meeting_id }),
    required: ['meeting_id'],
    fields: IN_MEETING,
  },
  chat_message: {
    base: ({ meeting_id }) => ({ meeting_id, text: 'x' }),
    required: ['meeting_id', 'text'],
    fields: {
      ...IN_MEETING,
      text: TEXT,
      client_id: CLIENT_ID,
      reply_to: MESSAGE_ID,
      mentions: {
        wrong: [
          ...['u', 5, true, {}, times(51, 'u'), [''], ['x'.repeat(129)], [true], [{}], [[]], [-1], [1.5], [2 ** 53]],
          ...CONTROLS.map((text) => [text]),
        ],
        fine: [[], ['u'], [7], times(50, 'u'), ['x'.repeat(128)], ['ü b@c.d']],
      },
      meta: {
        wrong: ['x', 5, true, [], [1], sized(2049), nested(5), { a: [[[[]]]] }],
        fine: [{}, sized(2048), nested(4), { a: [[[]]] }, { '': null }],
      },
    },
  },
  edit_message: {
    base: ({ meeting_id, id }) => ({ meeting_id, id, text: 'better' }),
    required: ['meeting_id', 'id', 'text'],
    fields: { ...IN_MEETING, id: MESSAGE_ID, text: TEXT },
  },
  delete_message: {
    base: ({ meeting_id, id }) => ({ meeting_id, id }),
    required: ['meeting_id', 'id'],
    fields: { ...IN_MEETING, id: MESSAGE_ID },
  },
  react: {
    base: ({ meeting_id, id }) => ({ meeting_id, id, emoji: '👍' }),
    required: ['meeting_id', 'id', 'emoji'],
    fields: {
      ...IN_MEETING,
      id: MESSAGE_ID,
      emoji: {
        wrong: ['', 'x'.repeat(17), '😀'.repeat(17), '\ud83d', ...CONTROLS, ...NO_STRINGS],
        fine: ['x', '👍', 'x'.repeat(16), '😀'.repeat(16), '👩‍👩‍👧‍👦'],
      },
      remove: BOOLEAN,
    },
  },
  typing: {
    base: ({ meeting_id }) => ({ meeting_id }),
    required: ['meeting_id'],
    fields: { ...IN_MEETING, active: BOOLEAN },
  },
  mark_read: {
    base: ({ meeting_id }) => ({ meeting_id, seq: 1 }),
    required: ['meeting_id', 'seq'],
    fields: { ...IN_MEETING, seq: SEQ },
  },
  get_history: {
    base: ({ meeting_id }) => ({ meeting_id }),
    required: ['meeting_id'],
    fields: {
      ...IN_MEETING,
      before_seq: SEQ,
      after_seq: SEQ,
      epoch: { wrong: NO_STRINGS, fine: ['abcdefghijkl'] },
      limit: LIMIT,
      kinds: {
        wrong: ['chat_message', 5, true, {}, [5], [{}], [['chat_message']]],
        fine: [
          ['chat_message'],
          ['chat_message', 'message_edited', 'message_deleted', 'message_reaction', 'meeting_update'],
        ],
      },
    },
  },
  get_presence: {
    base: ({ meeting_id }) => ({ meeting_id }),
    required: ['meeting_id'],
    fields: { ...IN_MEETING, limit: LIMIT },
  },
  notifications_get: {
    base: () => ({}),
    required: [],
    fields: { after: SEQ, before: SEQ, limit: LIMIT, unread_only: BOOLEAN },
  },
  notifications_read: {
    base: () => ({ up_to: 1 }),
    required: [],
    fields: {
      up_to: SEQ,
      ids: {
        only: true,
        wrong: ['x', true, {}, times(101, 'x'), [true], [{}], [['x']]],
        fine: [[], ['x'], times(100, 'x')],
      },
    },
  },
  auth_refresh: {
    base: ({ sub }) => ({ token: token({ sub }) }),
    required: ['token'],
    fields: { token: { wrong: NO_STRINGS, fine: [] } },
  },
};

const shown = (value) => {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 40)}… (${text.length} bytes)` : text;
};

/** Somebody in a meeting with one message of theirs. */
async function setting(t) {
  const meeting_id = fresh();
  const socket = await member(t, service, meeting_id);
  const { id } = await said(socket, meeting_id, 'there is one message');
  await settled(socket);
  return { socket, known: { meeting_id, id, sub: socket.ready.user_id } };
}

/** Asserts `invalid_payload`, and that it names the field, or a part of it. */
async function refusedFor(answer, field, what) {
  const { details } = await refused(answer, 'invalid_payload').catch((error) => {
    throw new Error(`${what}: ${error.message}`, { cause: error });
  });
  assert.ok(details?.field === field || details?.field?.startsWith(`${field}.`), `${what}: ${JSON.stringify(details)}`);
  assert.equal(typeof details.expected, 'string', what);
}

for (const [event, { base, required, fields }] of Object.entries(EVENTS)) {
  describe(event, () => {
    test('is fine as these tests send it', async (t) => {
      const { socket, known } = await setting(t);
      await accepted(ask(socket, event, base(known)));
      await accepted(ask(socket, event, { ...base(known), unknown_field: { a: [1] } }));
    });

    for (const [field, { wrong, fine = [], only }] of Object.entries(fields)) {
      const payload = (known, value) => ({ ...(only ? {} : base(known)), [field]: value });

      test(`refuses ${wrong.length} wrong values of ${field}, and nothing happens`, async (t) => {
        const { socket, known } = await setting(t);
        const heard = log(socket);
        for (const value of wrong) {
          await refusedFor(ask(socket, event, payload(known, value)), field, `${field}: ${shown(value)}`);
        }
        await settled(socket);
        assert.deepEqual(heard.items, []);
      });

      if (fine.length > 0) {
        test(`takes ${fine.length} values of ${field} that are just right`, async (t) => {
          const { socket, known } = await setting(t);
          for (const value of fine) {
            const ack = await ask(socket, event, payload(known, value));
            // Such as a message that is not there, or a position of another life of the log.
            const isFine = ack.ok || ['not_found', 'conflict'].includes(ack.error.code);
            assert.ok(isFine, `${field}: ${shown(value)}: ${JSON.stringify(ack)}`);
          }
        });
      }
    }

    test('refuses a payload that lacks a field, or has null for it', async (t) => {
      const { socket, known } = await setting(t);
      for (const field of required) {
        const { [field]: _, ...rest } = base(known);
        await refusedFor(ask(socket, event, rest), field, `without ${field}`);
        await refusedFor(ask(socket, event, { ...rest, [field]: null }), field, `${field}: null`);
      }
      const optional = Object.keys(fields).filter((field) => !required.includes(field) && !(field in base(known)));
      for (const field of optional) await accepted(ask(socket, event, { ...base(known), [field]: null }));
    });

    test('refuses a payload that is no object', async (t) => {
      const { socket } = await setting(t);
      const takesBareIds = ['join_room', 'leave_room'].includes(event);
      const takesNothing = required.length === 0;
      const payloads = [['x'], [], 5.5, true, ...(takesBareIds ? ['a b', ''] : ['x', 5])];
      for (const payload of payloads) await refused(ask(socket, event, payload), 'invalid_payload');
      if (!takesNothing) {
        await refused(ask(socket, event), 'invalid_payload');
        await refused(ask(socket, event, null), 'invalid_payload');
      }
    });

    test('tells by chat_error what is wrong if no ack was asked for', async (t) => {
      const { socket } = await setting(t);
      const errors = record(socket, 'chat_error');
      socket.emit(event, [1]);
      await errors.count(1);
      const { error, ...rest } = errors.items[0];
      assert.deepEqual(rest, { event, ref: null });
      assert.equal(error.code, 'invalid_payload');
      await settled(socket);
      assert.equal(errors.items.length, 1);
    });
  });
}

test('notifications_read needs ids or up_to', async (t) => {
  await refused(ask(await as(t, service, fresh('ann')), 'notifications_read', {}), 'invalid_payload');
});

test('auth_refresh takes a good token of the same user only', async (t) => {
  const user = fresh('ann');
  const socket = await as(t, service, user);
  const exp = Math.floor(Date.now() / 1000) + 7200;
  assert.deepEqual(await ask(socket, 'auth_refresh', { token: token({ sub: user, exp }) }), {
    ok: true,
    exp: exp * 1000,
  });
  await refused(ask(socket, 'auth_refresh', { token: token({ sub: fresh('bob') }) }), 'forbidden');
  await refused(ask(socket, 'auth_refresh', { token: 'no token' }), 'token_invalid');
  await refused(
    ask(socket, 'auth_refresh', { token: token({ sub: user }, 'another-secret-0123456789abcdef') }),
    'token_invalid',
  );
  await refused(ask(socket, 'auth_refresh', { token: token({ sub: user, exp: 1_000_000_000 }) }), 'token_expired');
  await settled(socket);
});

test('chat_error names the client_id of the message that was refused', async (t) => {
  const { socket, known } = await setting(t);
  const errors = record(socket, 'chat_error');
  const { meeting_id } = known;
  socket.emit('chat_message', { meeting_id, text: '', client_id: 'empty' });
  socket.emit('chat_message', { meeting_id: fresh(), text: 'x', client_id: 'elsewhere' });
  socket.emit('chat_message', { meeting_id, text: 'x', client_id: 'not an id' });
  socket.emit('edit_message', { meeting_id, id: NO_MESSAGE, text: 'x' });
  await errors.count(4);
  assert.deepEqual(
    errors.items.map(({ event, ref, error }) => [event, ref, error.code, error.details?.field]),
    [
      ['chat_message', 'empty', 'invalid_payload', 'text'],
      ['chat_message', 'elsewhere', 'not_joined', undefined],
      ['chat_message', null, 'invalid_payload', 'client_id'],
      ['edit_message', null, 'not_found', undefined],
    ],
  );
});

test('message takes anything, and nothing', async (t) => {
  const socket = await as(t, service, fresh('ann'));
  const { items } = record(socket, 'response');
  const values = [null, 0, -1.5, '', 'x', false, [], [1, [2]], {}, { a: { b: null } }];
  for (const value of values) await accepted(ask(socket, 'message', value));
  await accepted(ask(socket, 'message'));
  assert.deepEqual(
    items.map(({ data }) => data),
    [...values, null],
  );
});

test('events that nobody knows are answered if asked, else ignored', async (t) => {
  const socket = await as(t, service, fresh('ann'));
  const heard = [];
  socket.onAny((event) => heard.push(event));
  const names = ['nothing', 'CHAT_MESSAGE', 'Join_Room', 'chat-message', '', 'x'.repeat(64), 'notification', 'unread'];
  // Also what only the server says, and names that a table of events might stumble over.
  names.push('ready', 'chat_error', 'presence_update', '__proto__', 'constructor', 'toString');
  for (const name of names) {
    await refused(ask(socket, name, { meeting_id: 'm', text: 'x' }), 'unknown_event');
    socket.emit(name, { meeting_id: 'm' });
  }
  await settled(socket);
  assert.deepEqual(heard, ['response']);
  assert.ok(socket.connected);
});
