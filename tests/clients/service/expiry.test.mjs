// Promise: nobody stays longer than their token lasts, and nobody whose token is renewed has to go.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { TRANSPORTS, join, open } from '../support/clients.mjs';
import { SECRET, WITH_TOKENS, claimsOf, enter, inSeconds, sign, tokenOf } from '../support/jwt.mjs';
import { startService } from '../support/server.mjs';
import { ask, assertHas, once, record } from '../support/wait.mjs';

/** What a token is still good for after its `exp`, in s. */
const LEEWAY_S = 30;

let service;
let last = 0;
const fresh = (name = 'user') => `${name}-${++last}`;
before(async () => (service = await startService(WITH_TOKENS)));
after(() => service.stop());

/** A client whose token is past already and ends, with its leeway, in about five seconds. */
const dying = (t, user, options) => enter(t, service, user, { claims: { exp: inSeconds(5 - LEEWAY_S) }, ...options });

/** What a client is told of the end of its token, heard from before it is connected: it may come with the greeting. */
function warned(t, user, exp) {
  const socket = open(t, service.url, { auth: { token: tokenOf(user, { exp }) } });
  return { socket, ...record(socket, 'auth_expiring') };
}

async function refused(answer, codes) {
  const ack = await answer;
  assert.equal(ack.ok, false, JSON.stringify(ack));
  assert.ok([codes].flat().includes(ack.error?.code), `expected ${codes}: ${JSON.stringify(ack)}`);
}

// At once, as each of them is mostly waiting.
describe('auth_expiring', { concurrency: true }, () => {
  test('comes at once to a token that lasts less than a minute', async (t) => {
    const exp = inSeconds(50);
    const heard = warned(t, fresh(), exp);
    const [event] = await heard.count(1);
    assert.deepEqual(Object.keys(event).sort(), ['exp', 'in_ms']);
    assert.equal(event.exp, exp * 1000);
    assert.ok(Number.isInteger(event.in_ms) && event.in_ms > 0 && event.in_ms <= 50_000, `in_ms ${event.in_ms}`);
  });

  test('comes a minute before the end and not earlier', async (t) => {
    const exp = inSeconds(63);
    const heard = warned(t, fresh(), exp);
    const [event] = await heard.count(1);
    // One machine, one clock; 50 ms for its rounding.
    assert.ok(Date.now() >= exp * 1000 - 60_050, `${exp * 1000 - Date.now()} ms before the end`);
    assert.equal(event.exp, exp * 1000);
    assert.ok(event.in_ms > 0 && event.in_ms <= 60_050, `in_ms ${event.in_ms}`);
  });

  test('does not come to tokens that last', async (t) => {
    const long = await enter(t, service, fresh());
    const { items } = record(long, 'auth_expiring');
    // The end of another is the clock of this test.
    await once(await dying(t, fresh()), 'auth_expired');
    await ask(long, 'message', 'settled');
    assert.deepEqual(items, []);
  });

  test('comes once, and again for the token of a refresh', async (t) => {
    const user = fresh();
    const heard = warned(t, user, inSeconds(50));
    await heard.count(1);
    const exp = inSeconds(55);
    const ack = await ask(heard.socket, 'auth_refresh', { token: tokenOf(user, { exp }) });
    assert.deepEqual(ack, { ok: true, exp: exp * 1000 });
    await heard.count(2);
    assert.equal(heard.items[1].exp, exp * 1000);
    await once(await dying(t, fresh()), 'auth_expired');
    await ask(heard.socket, 'message', 'settled');
    assert.equal(heard.items.length, 2);
  });
});

describe('at the end of its token', { concurrency: true }, () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`a client over ${transport} is told, and its transport is closed`, async (t) => {
      const exp = inSeconds(5 - LEEWAY_S);
      const socket = await enter(t, service, fresh(), { transport, claims: { exp } });
      assert.equal(socket.ready.exp, exp * 1000);
      const heard = [];
      const told = once(socket, 'auth_expired').then(([event]) => heard.push(['auth_expired', event]));
      const left = once(socket, 'disconnect').then(([reason]) => heard.push(['disconnect', reason]));
      assert.deepEqual(await ask(socket, 'message', 'still here'), { ok: true });
      await Promise.all([told, left]);
      // Not "io server disconnect": after that stock clients stay away.
      assert.deepEqual(heard, [
        ['auth_expired', {}],
        ['disconnect', 'transport close'],
      ]);
      assert.ok(Date.now() >= (exp + LEEWAY_S) * 1000 - 50, 'closed within the leeway');
    });

    test(`a client over ${transport} comes back by itself with a new token`, async (t) => {
      const user = fresh();
      const tokens = [tokenOf(user, { exp: inSeconds(5 - LEEWAY_S) }), tokenOf(user)];
      const given = [];
      const auth = (done) => {
        given.push(tokens[Math.min(given.length, 1)]);
        done({ token: given.at(-1) });
      };
      const socket = await join(t, service.url, { transport, auth, reconnection: true, reconnectionDelay: 10 });
      const first = socket.id;
      const expired = once(socket, 'auth_expired');
      const back = once(socket, 'ready');
      await expired;
      const [ready] = await back;
      assert.equal(ready.user_id, user);
      assert.ok(ready.exp > Date.now() + 60_000, `exp ${ready.exp}`);
      assert.notEqual(ready.sid, first);
      assert.equal(given.length, 2);
      assert.deepEqual(await ask(socket, 'message', 'again'), { ok: true });
    });
  }

  test('every one of 60 clients is let go, however they came', async (t) => {
    const gone = [];
    const come = async (n) => {
      const transport = Object.keys(TRANSPORTS)[n % 3];
      // Heard from before it is connected: on a slow machine the end may come soon after.
      const auth = { token: tokenOf(fresh(), { exp: inSeconds(8 - LEEWAY_S) }) };
      const socket = open(t, service.url, { transport, auth });
      gone.push(once(socket, 'auth_expired'));
      await once(socket, 'ready');
      // Some are busy with something when they have come, and some with nothing.
      if (n % 2) await ask(socket, 'join_room', { meeting_id: 'crowd' });
    };
    await Promise.all(Array.from({ length: 30 }, (_, n) => come(n)));
    for (let n = 0; n < 30; n++) await come(n);
    await Promise.all(gone);
  });

  test('a client hears nothing more of its rooms, and the others do', async (t) => {
    const meeting_id = fresh('meeting');
    const [gone, stays] = [await dying(t, fresh()), await enter(t, service, fresh())];
    for (const socket of [gone, stays]) assertHas(await ask(socket, 'join_room', { meeting_id }), { ok: true });
    await once(gone, 'disconnect');
    const heard = record(gone, 'chat_message');
    assertHas(await ask(stays, 'chat_message', { meeting_id, text: 'x' }), { ok: true });
    assertHas(await ask(stays, 'join_room', { meeting_id }), { members: 1 });
    assert.deepEqual(heard.items, []);
  });
});

describe('auth_refresh', { concurrency: true }, () => {
  test('with a new token of the same user keeps the connection beyond the old one', async (t) => {
    const user = fresh();
    const [renewed, clock] = [await dying(t, user), await dying(t, fresh())];
    const gone = record(renewed, 'disconnect');
    const expired = record(renewed, 'auth_expired');
    const exp = inSeconds(3600);
    const ack = await ask(renewed, 'auth_refresh', { token: tokenOf(user, { exp }) });
    assert.deepEqual(ack, { ok: true, exp: exp * 1000 });
    await once(clock, 'disconnect');
    assert.deepEqual(await ask(renewed, 'message', 'still here'), { ok: true });
    assert.deepEqual([expired.items, gone.items], [[], []]);
  });

  test('tolerates the prefix Bearer', async (t) => {
    const user = fresh();
    const socket = await enter(t, service, user);
    assertHas(await ask(socket, 'auth_refresh', { token: `Bearer ${tokenOf(user)}` }), { ok: true });
  });

  test('may also shorten', async (t) => {
    const user = fresh();
    const socket = await enter(t, service, user);
    const expired = once(socket, 'auth_expired');
    const exp = inSeconds(3 - LEEWAY_S);
    assertHas(await ask(socket, 'auth_refresh', { token: tokenOf(user, { exp }) }), { ok: true, exp: exp * 1000 });
    await expired;
    assert.equal((await once(socket, 'disconnect'))[0], 'transport close');
  });

  const bad = [
    ['of another user', () => tokenOf('somebody-else'), 'forbidden'],
    ['that is none', () => 'nonsense', 'token_invalid'],
    ['that is old', (user) => tokenOf(user, { exp: inSeconds(-3600) }), 'token_expired'],
    ['of another key', (user) => tokenOf(user, {}, { key: `not ${SECRET}` }), 'token_invalid'],
    ['without exp', (user) => sign({ sub: user }), 'token_invalid'],
    ['for refreshing at the Auth Service', (user) => sign(claimsOf(user, { type: 'refresh' })), 'token_invalid'],
    ['that is empty', () => '', ['token_invalid', 'unauthorized', 'invalid_payload']],
    ['that is a number', () => 5, ['token_invalid', 'unauthorized', 'invalid_payload']],
    ['that is left out', () => undefined, ['token_invalid', 'unauthorized', 'invalid_payload']],
  ];
  for (const [name, token, codes] of bad) {
    test(`with a token ${name} is refused and changes nothing`, async (t) => {
      const user = fresh();
      const socket = await enter(t, service, user);
      const gone = record(socket, 'disconnect');
      await refused(ask(socket, 'auth_refresh', { token: token(user) }), codes);
      const meeting_id = fresh('meeting');
      assertHas(await ask(socket, 'join_room', { meeting_id }), { ok: true });
      const heard = once(socket, 'chat_message');
      assertHas(await ask(socket, 'chat_message', { meeting_id, text: 'x' }), { ok: true });
      assert.equal((await heard)[0].sender, user);
      assert.deepEqual(gone.items, []);
    });
  }

  test('that failed does not lengthen anything', async (t) => {
    const user = fresh();
    const socket = await dying(t, user);
    const expired = once(socket, 'auth_expired');
    await refused(ask(socket, 'auth_refresh', { token: tokenOf('somebody-else') }), 'forbidden');
    await refused(ask(socket, 'auth_refresh', { token: 'nonsense' }), 'token_invalid');
    await expired;
  });

  test('without arguments is refused', async (t) => {
    const socket = await enter(t, service, fresh());
    await refused(ask(socket, 'auth_refresh'), 'invalid_payload');
    await refused(ask(socket, 'auth_refresh', 'token'), 'invalid_payload');
  });

  test('gives an end to a connection that had none', async (t) => {
    const endless = await startService({ ...WITH_TOKENS, JWT_REQUIRE_EXP: '0' });
    t.after(() => endless.stop());
    const socket = await join(t, endless.url, { auth: { token: sign({ sub: 'ada' }) } });
    assert.equal(socket.ready.exp, null);
    const exp = inSeconds(3 - LEEWAY_S);
    const expired = once(socket, 'auth_expired');
    assertHas(await ask(socket, 'auth_refresh', { token: tokenOf('ada', { exp }) }), { ok: true, exp: exp * 1000 });
    await expired;
  });

  test('with AUTH_MODE=none is fine and means nothing', async (t) => {
    const lax = await startService();
    t.after(() => lax.stop());
    const socket = await join(t, lax.url);
    assert.deepEqual(await ask(socket, 'auth_refresh', { token: tokenOf('ada') }), { ok: true, exp: null });
    assert.deepEqual(await ask(socket, 'message', 'x'), { ok: true });
  });
});
