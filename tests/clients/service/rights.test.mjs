// Promise: nobody reads, writes or moderates a meeting without the right to, whoever has to be asked for it.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { AuthService, SILENCE } from '../support/auth_service.mjs';
import { join } from '../support/clients.mjs';
import { WITH_TOKENS, enter, entry, tokenOf } from '../support/jwt.mjs';
import { Rest, WITH_KEY, assertError, assertStatus, messages } from '../support/rest.mjs';
import { startService } from '../support/server.mjs';
import { ask, assertHas, eventually, once, record, time } from '../support/wait.mjs';

const SETTINGS = { ...WITH_TOKENS, ...WITH_KEY };
const NO_MESSAGE = '01ARZ3NDEKTSV4RRFFQ69G5FAV';

let last = 0;
const fresh = (name = 'meeting') => `${name}-${++last}`;
const say = (socket, meeting_id, text = 'hi', more) => ask(socket, 'chat_message', { meeting_id, text, ...more });
const settled = (socket) => ask(socket, 'message', 'settled');

async function granted(answer, expected = {}) {
  const ack = await answer;
  assertHas(ack, { ok: true, ...expected });
  return ack;
}

async function refused(answer, code = 'forbidden') {
  const ack = await answer;
  assert.deepEqual([ack.ok, ack.error?.code], [false, code], JSON.stringify(ack));
  return ack.error;
}

describe('with ROOM_POLICY=members', () => {
  let service;
  before(async () => (service = await startService({ ...SETTINGS, ROOM_POLICY: 'members' })));
  after(() => service.stop());
  const user = (t, name, claims) => enter(t, service, name, { claims });

  test('a meeting is closed to those whom nobody lets in, for reading too', async (t) => {
    const ada = await user(t, 'ada');
    const meeting_id = fresh();
    await refused(ask(ada, 'join_room', { meeting_id }));
    await refused(ask(ada, 'join_room', meeting_id));
    await refused(ask(ada, 'get_history', { meeting_id }));
    await refused(ask(ada, 'get_presence', { meeting_id }));
    await refused(ask(ada, 'mark_read', { meeting_id, seq: 0 }));
    const rest = Rest.user(service, 'ada');
    assertError(await rest.get(messages(meeting_id)), 403, 'forbidden');
    assertError(await rest.post(messages(meeting_id), { text: 'x' }), 403, 'forbidden');
    assertError(await rest.get(`/meetings/${meeting_id}/presence`), 403, 'forbidden');
    assertError(await rest.put(`/meetings/${meeting_id}/read`, { seq: 0 }), 403, 'forbidden');
    // Not joined, so neither of the two codes tells anything new.
    const ack = await say(ada, meeting_id);
    assert.ok(['forbidden', 'not_joined'].includes(ack.error?.code), JSON.stringify(ack));
  });

  test('a refused join hears nothing', async (t) => {
    const meeting_id = fresh();
    const member = await user(t, 'member', { meetings: [meeting_id] });
    const spy = await user(t, 'spy', { meetings: [] });
    await granted(ask(member, 'join_room', { meeting_id }), { members: 1 });
    await refused(ask(spy, 'join_room', { meeting_id }));
    const heard = [];
    spy.onAny((event) => heard.push(event));
    await granted(say(member, meeting_id));
    await settled(spy);
    assert.deepEqual(heard, ['response']);
    await granted(ask(member, 'join_room', { meeting_id }), { members: 1 });
  });

  const meeting_id = 'the-meeting';
  /** What each right allows. */
  const RIGHTS = {
    none: { read: false, write: false, moderate: false },
    read: { read: true, write: false, moderate: false },
    write: { read: true, write: true, moderate: false },
    host: { read: true, write: true, moderate: true },
  };
  const claims = [
    ['no claim', {}, 'none'],
    ['an empty list', { meetings: [] }, 'none'],
    ['a list of others', { meetings: ['the-meeting-2', 'the', 'The-Meeting'] }, 'none'],
    ['an empty map', { meetings: {} }, 'none'],
    ['a map of others', { meetings: { other: 'host' } }, 'none'],
    ['a list', { meetings: ['other', meeting_id] }, 'write'],
    ['"*"', { meetings: '*' }, 'write'],
    ['a map to read', { meetings: { [meeting_id]: 'read' } }, 'read'],
    ['a map to write', { meetings: { [meeting_id]: 'write' } }, 'write'],
    ['a map to host', { meetings: { [meeting_id]: 'host' } }, 'host'],
    ['role admin', { role: 'admin' }, 'host'],
    ['roles with admin', { roles: ['user', 'admin'] }, 'host'],
    ['role admin over a claim to read', { role: 'admin', meetings: { [meeting_id]: 'read' } }, 'host'],
    ['another role', { role: 'administrator', roles: ['Admin', 'superuser'] }, 'none'],
  ];
  for (const [name, given, right] of claims) {
    test(`${name} gives ${right}`, async (t) => {
      const { read, write, moderate } = RIGHTS[right];
      const author = await user(t, 'author', { meetings: [meeting_id] });
      await granted(ask(author, 'join_room', { meeting_id }));
      const { id, seq } = await granted(say(author, meeting_id, 'of the author'));
      const socket = await user(t, 'somebody', given);
      const rest = Rest.user(service, 'somebody', given);
      const expect = (allowed, answer, other = 'forbidden') => (allowed ? granted(answer) : refused(answer, other));
      const status = (allowed, good) => (allowed ? good : 403);

      await expect(read, ask(socket, 'get_history', { meeting_id }));
      await expect(read, ask(socket, 'join_room', { meeting_id }));
      await expect(read, ask(socket, 'get_history', { meeting_id }));
      await expect(read, ask(socket, 'get_presence', { meeting_id }));
      await expect(read, ask(socket, 'mark_read', { meeting_id, seq }));
      assertStatus(await rest.get(messages(meeting_id)), status(read, 200));
      assertStatus(await rest.get(`/meetings/${meeting_id}/presence`), status(read, 200));
      assertStatus(await rest.put(`/meetings/${meeting_id}/read`, { seq }), status(read, 200));
      if (read) {
        await expect(write, say(socket, meeting_id));
        await expect(write, ask(socket, 'typing', { meeting_id }));
        await expect(write, ask(socket, 'react', { meeting_id, id, emoji: '+1' }));
        await expect(moderate, ask(socket, 'edit_message', { meeting_id, id, text: 'of a moderator' }));
        await expect(moderate, ask(socket, 'delete_message', { meeting_id, id }));
      }
      assertStatus(await rest.post(messages(meeting_id), { text: 'over HTTP' }), status(write, 201));
      const second = await granted(say(author, meeting_id, 'the second of the author'));
      assertStatus(await rest.patch(messages(meeting_id, second.id), { text: 'new' }), status(moderate, 200));
      assertStatus(await rest.delete(messages(meeting_id, second.id)), status(moderate, 204));
    });
  }

  test('a reader changes nothing in what others see', async (t) => {
    const meeting_id = fresh();
    const [author, reader] = [
      await user(t, 'author', { meetings: [meeting_id] }),
      await user(t, 'reader', { meetings: { [meeting_id]: 'read' } }),
    ];
    for (const socket of [author, reader]) await granted(ask(socket, 'join_room', { meeting_id }));
    const { id } = await granted(say(author, meeting_id, 'first'));
    const heard = [];
    author.onAny((event) => heard.push(event));
    await refused(say(reader, meeting_id));
    await refused(ask(reader, 'typing', { meeting_id }));
    await refused(ask(reader, 'react', { meeting_id, id, emoji: '+1' }));
    await refused(ask(reader, 'edit_message', { meeting_id, id, text: 'x' }));
    await refused(ask(reader, 'delete_message', { meeting_id, id }));
    await settled(author);
    assert.deepEqual(
      heard.filter((event) => !['response', 'presence_update'].includes(event)),
      [],
    );
    await granted(say(author, meeting_id, 'second'), { seq: 2 });
  });

  test('a host deletes the message of somebody else, before everybody, and is named for it', async (t) => {
    const meeting_id = fresh();
    const [author, host] = [
      await user(t, 'author', { meetings: [meeting_id] }),
      await user(t, 'host', { meetings: { [meeting_id]: 'host' } }),
    ];
    for (const socket of [author, host]) await granted(ask(socket, 'join_room', { meeting_id }));
    const { id } = await granted(say(author, meeting_id, 'to be deleted'));
    const heard = once(author, 'message_deleted');
    const { seq } = await granted(ask(host, 'delete_message', { meeting_id, id }), { seq: 2 });
    assertHas((await heard)[0], { id, seq, meeting_id, deleted_by: 'host' });
    const { items } = await granted(ask(author, 'get_history', { meeting_id }));
    assert.ok(!JSON.stringify(items).includes('to be deleted'), 'the text is erased');
  });

  test('integers in a claim are ids too', async (t) => {
    const socket = await user(t, 'ada', { meetings: [4711] });
    await granted(ask(socket, 'join_room', { meeting_id: '4711' }));
    await granted(ask(socket, 'join_room', 4711));
    await refused(ask(socket, 'join_room', 4712));
  });

  for (const [name, meetings] of [
    ['a number', 5],
    ['a string that is not "*"', 'bent'],
    ['true', true],
    ['a map to a right that is none', { bent: 'owner' }],
    ['a map to a boolean', { bent: true }],
    ['a list of lists', [['bent']]],
    ['a list with "*"', ['*']],
  ]) {
    test(`a claim that is ${name} grants nothing`, async (t) => {
      const { socket, error } = await entry(t, service, { auth: { token: tokenOf('ada', { meetings }) } });
      // To refuse the whole token is as good.
      if (error) return assert.equal(error.data?.code, 'token_invalid');
      const ack = await ask(socket, 'join_room', { meeting_id: 'bent' });
      assert.deepEqual([ack.ok, ack.error?.code], [false, 'forbidden'], JSON.stringify(ack));
    });
  }

  test('rights are those of the token that came, not of another socket of the same user', async (t) => {
    const meeting_id = fresh();
    const [may, mayNot] = [await user(t, 'ada', { meetings: [meeting_id] }), await user(t, 'ada', { meetings: [] })];
    await granted(ask(may, 'join_room', { meeting_id }));
    await refused(ask(mayNot, 'join_room', { meeting_id }));
  });
});

describe('the default of ROOM_POLICY', () => {
  test('is members in production', async (t) => {
    const service = await startService({ ...SETTINGS, ENV: 'production', HOST: '127.0.0.1' });
    t.after(() => service.stop());
    await refused(ask(await enter(t, service, 'ada'), 'join_room', 'm'));
    await granted(ask(await enter(t, service, 'ada', { claims: { meetings: ['m'] } }), 'join_room', 'm'));
  });

  test('is authenticated in development, except for tokens that list meetings', async (t) => {
    const service = await startService(SETTINGS);
    t.after(() => service.stop());
    const free = await enter(t, service, 'free');
    await granted(ask(free, 'join_room', 'm'));
    await granted(say(free, 'm'));
    const other = await granted(say(free, 'm', 'second'));
    const bob = await enter(t, service, 'bob');
    await granted(ask(bob, 'join_room', 'm'));
    await refused(ask(bob, 'delete_message', { meeting_id: 'm', id: other.id }));
    for (const meetings of [['listed'], [], { listed: 'host' }]) {
      const bound = await enter(t, service, 'bound', { claims: { meetings } });
      await refused(ask(bound, 'join_room', 'm'));
    }
  });
});

describe('with AUTHZ_URL', () => {
  let auth;
  let service;
  before(async () => {
    auth = await AuthService.start();
    service = await startService({ ...SETTINGS, ROOM_POLICY: 'members', AUTHZ_URL: auth.authzUrl });
  });
  after(async () => {
    await service.stop();
    await auth.down();
  });
  const user = (t, name, claims) => enter(t, service, name, { claims });
  /** From now on the Auth Service answers so. */
  const answers = (body, status = 200) => (auth.decide = () => ({ status, body }));

  test('it is asked who wants into which meeting, and nothing of the token goes there', async (t) => {
    answers({ allow: true, right: 'write' });
    const meeting_id = fresh('asked');
    await granted(ask(await user(t, 'ada'), 'join_room', { meeting_id }));
    const [question] = auth.about(meeting_id);
    const { action, ...rest } = question;
    assert.deepEqual(rest, { user_id: 'ada', meeting_id });
    assert.ok(typeof action === 'string' && action.length > 0, `action ${action}`);
    assert.match(question.headers['content-type'], /^application\/json/);
    assert.equal(question.headers.authorization, undefined);
  });

  const rights = [
    ['allow to read', { allow: true, right: 'read' }, [true, false, false]],
    ['allow to write', { allow: true, right: 'write' }, [true, true, false]],
    ['allow to host', { allow: true, right: 'host' }, [true, true, true]],
    ['allow without a right', { allow: true }, [true, true, false]],
    ['allow with more fields than needed', { allow: true, right: 'write', ttl: 5, why: {} }, [true, true, false]],
  ];
  for (const [name, body, [read, write, moderate]] of rights) {
    test(`${name} gives just that`, async (t) => {
      const meeting_id = fresh('rights');
      answers({ allow: true, right: 'write' });
      const author = await user(t, 'author');
      await granted(ask(author, 'join_room', { meeting_id }));
      const { id } = await granted(say(author, meeting_id));
      answers(body);
      const socket = await user(t, 'somebody');
      const expect = (allowed, answer) => (allowed ? granted(answer) : refused(answer));
      await expect(read, ask(socket, 'join_room', { meeting_id }));
      await expect(read, ask(socket, 'get_history', { meeting_id }));
      await expect(write, say(socket, meeting_id));
      await expect(moderate, ask(socket, 'delete_message', { meeting_id, id }));
    });
  }

  const denials = [
    ['deny', { allow: false }, 200, 'forbidden'],
    ['deny with a right', { allow: false, right: 'host' }, 200, 'forbidden'],
    ['404', { error: 'no such meeting' }, 404, 'not_found'],
    ['404 without JSON', 'nope', 404, 'not_found'],
  ];
  for (const [name, body, status, code] of denials) {
    test(`${name} is ${code}, by event and by HTTP`, async (t) => {
      answers(body, status);
      const meeting_id = fresh('denied');
      const socket = await user(t, 'ada');
      await refused(ask(socket, 'join_room', { meeting_id }), code);
      await refused(ask(socket, 'get_history', { meeting_id }), code);
      const http = { forbidden: 403, not_found: 404 }[code];
      assertError(await Rest.user(service, 'ada').get(messages(meeting_id)), http, code);
    });
  }

  const failures = [
    ['it answers 500', () => ({ status: 500, body: { allow: true } })],
    ['it answers 503', () => ({ status: 503, body: { allow: true } })],
    ['it answers no JSON', () => ({ status: 200, body: 'allow: true' })],
    ['it answers an empty body', () => ({ status: 200, body: '' })],
    ['it answers without allow', () => ({ status: 200, body: { right: 'host' } })],
    ['it answers "true" in quotes', () => ({ status: 200, body: { allow: 'true' } })],
    ['it answers 1 for true', () => ({ status: 200, body: { allow: 1 } })],
    ['it answers a list', () => ({ status: 200, body: [{ allow: true }] })],
    ['it sends elsewhere', () => ({ status: 302, body: { allow: true }, headers: { Location: '/elsewhere' } })],
    ['it does not answer', () => SILENCE],
  ];
  for (const [name, decide] of failures) {
    test(`nobody gets in when ${name}`, async (t) => {
      auth.decide = decide;
      const meeting_id = fresh('failing');
      const socket = await user(t, 'ada');
      const ack = await ask(socket, 'join_room', { meeting_id });
      assert.equal(ack.ok, false, JSON.stringify(ack));
      assert.ok(['unavailable', 'forbidden'].includes(ack.error.code), JSON.stringify(ack));
      const unread = await ask(socket, 'get_history', { meeting_id });
      assert.equal(unread.ok, false, JSON.stringify(unread));
      assert.equal((await Rest.user(service, 'ada').get(messages(meeting_id))).status >= 400, true);
      assert.deepEqual(auth.strays, []);
    });
  }

  for (const [name, decide] of failures.filter(([name]) => /500|not answer/.test(name))) {
    test(`when ${name}, it says when to try again, and then it works`, async (t) => {
      auth.decide = decide;
      const meeting_id = fresh('again');
      const socket = await user(t, 'ada');
      const error = await refused(ask(socket, 'join_room', { meeting_id }), 'unavailable');
      const { retry_after_ms } = error;
      assert.ok(
        Number.isInteger(retry_after_ms) && retry_after_ms > 0 && retry_after_ms <= 30_000,
        `${retry_after_ms}`,
      );
      assertError(await Rest.user(service, 'bob').get(messages(meeting_id)), 503, 'unavailable');
      answers({ allow: true });
      await time(retry_after_ms);
      await granted(ask(socket, 'join_room', { meeting_id }));
    });
  }

  test('nobody gets in when it is not there, and somebody when it is there again', async (t) => {
    const away = await AuthService.start(t);
    away.decide = () => ({ status: 200, body: { allow: true } });
    const other = await startService({ ...SETTINGS, ROOM_POLICY: 'authenticated', AUTHZ_URL: away.authzUrl });
    t.after(() => other.stop());
    await away.down();
    const socket = await enter(t, other, 'ada');
    const { retry_after_ms } = await refused(ask(socket, 'join_room', 'm'), 'unavailable');
    assert.ok(retry_after_ms > 0 && retry_after_ms <= 30_000, `${retry_after_ms}`);
    await away.up();
    await time(retry_after_ms);
    await granted(ask(socket, 'join_room', 'm'));
  });

  test('an answer is kept: one question for all that a user does in a meeting', async (t) => {
    answers({ allow: true, right: 'write' });
    const meeting_id = fresh('kept');
    const [one, two] = [await user(t, 'ada'), await user(t, 'ada')];
    for (const socket of [one, two, one]) await granted(ask(socket, 'join_room', { meeting_id }));
    for (let n = 0; n < 20; n++) await granted(say(one, meeting_id));
    await granted(ask(two, 'get_history', { meeting_id }));
    assertStatus(await Rest.user(service, 'ada').post(messages(meeting_id), { text: 'x' }), 201);
    assert.equal(auth.about(meeting_id).length, 1);
  });

  test('a denial is kept too', async (t) => {
    answers({ allow: false });
    const meeting_id = fresh('kept');
    const socket = await user(t, 'ada');
    for (let n = 0; n < 10; n++) await refused(ask(socket, 'join_room', { meeting_id }));
    assert.equal(auth.about(meeting_id).length, 1);
  });

  test('an answer is kept for one user and one meeting', async (t) => {
    const meeting_id = fresh('whose');
    auth.decide = ({ user_id }) => ({ status: 200, body: { allow: user_id === 'ada' } });
    await granted(ask(await user(t, 'ada'), 'join_room', { meeting_id }));
    await refused(ask(await user(t, 'bob'), 'join_room', { meeting_id }));
    assert.deepEqual(
      auth.about(meeting_id).map((question) => question.user_id),
      ['ada', 'bob'],
    );
    const second = fresh('whose');
    await granted(ask(await user(t, 'ada'), 'join_room', { meeting_id: second }));
    assert.equal(auth.about(second).length, 1);
  });

  test('it is not asked when the token or the role answers', async (t) => {
    answers({ allow: false });
    const meeting_id = fresh('claimed');
    await granted(ask(await user(t, 'ada', { meetings: [meeting_id] }), 'join_room', { meeting_id }));
    await granted(ask(await user(t, 'bob', { meetings: '*' }), 'join_room', { meeting_id }));
    await granted(ask(await user(t, 'eve', { role: 'admin' }), 'join_room', { meeting_id }));
    assert.deepEqual(auth.about(meeting_id), []);
  });

  test('it is asked for a meeting that the token does not list', async (t) => {
    answers({ allow: true, right: 'read' });
    const meeting_id = fresh('unlisted');
    const socket = await user(t, 'ada', { meetings: ['another'] });
    await granted(ask(socket, 'join_room', { meeting_id }));
    await refused(say(socket, meeting_id));
    assert.equal(auth.about(meeting_id).length, 1);
  });

  test('what is sent right behind a join waits for its answer, and all of it is done in order', async (t) => {
    for (const transport of ['websocket', 'polling']) {
      const meeting_id = fresh('order');
      auth.decide = async () => {
        // Of the second that the service waits.
        await time(100);
        return { status: 200, body: { allow: true, right: 'write' } };
      };
      const socket = await enter(t, service, 'ada', { transport });
      const heard = record(socket, 'chat_message');
      const answered = [];
      const asked = (event, payload) =>
        ask(socket, event, payload).then((ack) => {
          answered.push(event === 'chat_message' ? payload.text : event);
          return ack;
        });
      const acks = [
        asked('join_room', { meeting_id }),
        asked('chat_message', { meeting_id, text: 'first' }),
        asked('chat_message', { meeting_id, text: 'second' }),
        asked('get_history', { meeting_id }),
        asked('leave_room', { meeting_id }),
        asked('chat_message', { meeting_id, text: 'too late' }),
      ];
      const [joined, first, second, history, left, late] = await Promise.all(acks);
      for (const ack of [joined, first, second, history, left]) assertHas(ack, { ok: true });
      assert.deepEqual([first.seq, second.seq], [1, 2]);
      assert.deepEqual(
        history.items.map((item) => item.text),
        ['first', 'second'],
      );
      assert.equal(late.error?.code, 'not_joined', JSON.stringify(late));
      assert.deepEqual(answered, ['join_room', 'first', 'second', 'get_history', 'leave_room', 'too late']);
      assert.deepEqual(
        heard.items.map((item) => item.text),
        ['first', 'second'],
      );
    }
  });

  test('a question that is open holds up nobody else', async (t) => {
    const meeting_id = fresh('open');
    let release;
    auth.decide = () => new Promise((resolve) => (release = () => resolve({ status: 200, body: { allow: true } })));
    const [slow, quick] = [await user(t, 'slow'), await user(t, 'quick', { meetings: [meeting_id] })];
    const waits = ask(slow, 'join_room', { meeting_id });
    await auth.questions.some((question) => question.meeting_id === meeting_id);
    await granted(ask(quick, 'join_room', { meeting_id }), { members: 1 });
    await granted(say(quick, meeting_id));
    release();
    // Within its second, or else it is told to try again: never anything in between.
    const ack = await waits;
    if (ack.ok) assertHas(ack, { seq: 1, members: 2 });
    else assert.equal(ack.error.code, 'unavailable');
  });

  test('a client that goes while its question is open leaves nothing', async (t) => {
    const meeting_id = fresh('gone');
    let release;
    auth.decide = () => new Promise((resolve) => (release = () => resolve({ status: 200, body: { allow: true } })));
    const [gone, stays] = [await user(t, 'gone'), await user(t, 'stays', { meetings: [meeting_id] })];
    gone.emit('join_room', { meeting_id });
    gone.emit('chat_message', { meeting_id, text: 'from beyond' });
    await auth.questions.some((question) => question.meeting_id === meeting_id);
    gone.disconnect();
    await eventually(async () => assert.equal((await service.metrics()).sessions(), 1));
    release();
    await settled(stays);
    await granted(ask(stays, 'join_room', { meeting_id }), { members: 1 });
  });

  test('participant.added makes it ask again at once', async (t) => {
    const meeting_id = fresh('added');
    answers({ allow: false });
    const socket = await user(t, 'ada');
    await refused(ask(socket, 'join_room', { meeting_id }));
    answers({ allow: true });
    await refused(ask(socket, 'join_room', { meeting_id }));
    await Rest.sibling(service).update({ type: 'participant.added', meeting_id, user_id: 'ada', id: fresh('e') });
    await granted(ask(socket, 'join_room', { meeting_id }));
  });

  test('participant.removed takes the right at once, though an answer was kept', async (t) => {
    const meeting_id = fresh('removed');
    answers({ allow: true, right: 'write' });
    const socket = await user(t, 'ada');
    await granted(ask(socket, 'join_room', { meeting_id }));
    answers({ allow: false });
    const left = once(socket, 'room_left');
    await Rest.sibling(service).update({ type: 'participant.removed', meeting_id, user_id: 'ada', id: fresh('e') });
    assert.deepEqual((await left)[0], { meeting_id, reason: 'removed' });
    await refused(ask(socket, 'join_room', { meeting_id }));
    const ack = await say(socket, meeting_id);
    assert.ok(['forbidden', 'not_joined'].includes(ack.error?.code), JSON.stringify(ack));
  });
});

describe('somebody who is removed', () => {
  let service;
  before(async () => (service = await startService(SETTINGS)));
  after(() => service.stop());

  test('leaves with all devices, hears nothing more, and the others stay', async (t) => {
    const meeting_id = fresh('removed');
    const phone = await enter(t, service, 'ada');
    const laptop = await enter(t, service, 'ada', { transport: 'polling' });
    const bob = await enter(t, service, 'bob');
    for (const socket of [phone, laptop, bob]) await granted(ask(socket, 'join_room', { meeting_id }));
    await granted(ask(phone, 'join_room', 'another'));
    const left = [once(phone, 'room_left'), once(laptop, 'room_left')];
    const unhurt = record(bob, 'room_left');
    await Rest.sibling(service).update({ type: 'participant.removed', meeting_id, user_id: 'ada', id: fresh('e') });
    for (const event of left) assert.deepEqual((await event)[0], { meeting_id, reason: 'removed' });

    const heard = [phone, laptop].map((socket) => record(socket, 'chat_message'));
    await granted(say(bob, meeting_id, 'now without her'));
    for (const socket of [phone, laptop]) await refused(say(socket, meeting_id), 'not_joined');
    for (const socket of [phone, laptop]) await settled(socket);
    for (const { items } of heard) assert.deepEqual(items, []);
    await granted(say(phone, 'another'));
    await settled(bob);
    assert.deepEqual(unhurt.items, []);
  });
});

describe('rooms that are none', () => {
  let service;
  before(async () => (service = await startService(SETTINGS)));
  after(() => service.stop());

  test('no name of a meeting leads to what is meant for a user or a socket', async (t) => {
    const victim = await enter(t, service, 'victim');
    const names = [
      'user:victim',
      'users:victim',
      'u:victim',
      'victim',
      victim.id,
      `sid:${victim.id}`,
      victim.io.engine.id,
      'chat:user:victim',
      'broadcast',
      'all',
    ].filter((name) => /^[\w.:-]+$/.test(name));
    const spy = await enter(t, service, 'spy');
    // Refused or not: if it is a meeting, it is one like any other, with nothing private in it.
    for (const meeting_id of names) await ask(spy, 'join_room', { meeting_id });
    const heard = [];
    spy.onAny((event, payload) => heard.push([event, payload]));
    const strayed = record(victim, 'chat_message');

    const told = once(victim, 'notification');
    const sibling = Rest.sibling(service);
    await sibling.update({ type: 'private.thing', recipients: ['victim'], data: { secret: 1 }, id: fresh('e') });
    assertHas((await told)[0], { kind: 'private.thing' });
    assertStatus(await sibling.post('/publish', { user_ids: ['victim'], event: 'whisper', data: { secret: 2 } }), 202);
    await settled(victim);
    await ask(victim, 'join_room', { meeting_id: fresh('own') });
    for (const meeting_id of names) await say(spy, meeting_id, 'do you hear me?');
    for (const socket of [victim, spy]) await settled(socket);
    assert.deepEqual(strayed.items, [], 'the victim hears what is said in rooms it never joined');
    for (const [event, payload] of heard) {
      assert.ok(!['notification', 'whisper', 'unread', 'ready'].includes(event), `${event} ${JSON.stringify(payload)}`);
      assert.ok(!JSON.stringify(payload ?? null).includes('secret'), JSON.stringify(payload));
    }
  });

  test('what is published to a meeting with the name of a user reaches no user', async (t) => {
    const victim = await enter(t, service, 'target');
    const whispers = record(victim, 'whisper');
    for (const meeting_id of ['user:target', 'target', victim.id].filter((name) => /^[\w.:-]+$/.test(name))) {
      await Rest.sibling(service).post('/publish', { meeting_id, event: 'whisper', data: {} });
    }
    await settled(victim);
    assert.deepEqual(whispers.items, []);
  });

  const bad = [
    '',
    ' ',
    'a b',
    'a/b',
    '../up',
    'a#b',
    'a?b',
    'a%20b',
    'a,b',
    'a*',
    '*',
    'é',
    'a\0b',
    'a\nb',
    '{a}',
    'x'.repeat(129),
  ];
  const events = [
    ['join_room', {}],
    ['leave_room', {}],
    ['chat_message', { text: 'x' }],
    ['edit_message', { text: 'x', id: NO_MESSAGE }],
    ['delete_message', { id: NO_MESSAGE }],
    ['react', { id: NO_MESSAGE, emoji: '+1' }],
    ['typing', {}],
    ['mark_read', { seq: 1 }],
    ['get_history', {}],
    ['get_presence', {}],
  ];
  for (const [event, payload] of events) {
    test(`${event} refuses every id with characters that no id has`, async (t) => {
      const socket = await join(t, service.url, { auth: { token: tokenOf('ada', { role: 'admin' }) } });
      for (const meeting_id of bad) {
        const error = await refused(ask(socket, event, { meeting_id, ...payload }), 'invalid_payload');
        assert.equal(error.details?.field, 'meeting_id', `${JSON.stringify(meeting_id)}: ${JSON.stringify(error)}`);
      }
    });
  }

  test('neither does HTTP take such an id', async () => {
    const rest = Rest.user(service, 'ada', { role: 'admin' });
    for (const meeting_id of bad.filter((id) => id !== '')) {
      const id = encodeURIComponent(meeting_id);
      for (const answer of [
        await rest.get(`/meetings/${id}/messages`),
        await rest.post(`/meetings/${id}/messages`, { text: 'x' }),
        await rest.get(`/meetings/${id}/presence`),
        await rest.put(`/meetings/${id}/read`, { seq: 0 }),
      ]) {
        // 404 for a slash, which no route has.
        assertError(answer, [400, 404], ['invalid_payload', 'not_found']);
      }
    }
  });
});
