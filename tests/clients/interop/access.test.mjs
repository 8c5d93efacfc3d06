// Promise: what the Auth Service and the Meeting Service say through Redis about tokens and participants holds on all
// instances, at once.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { accepted, as, fresh, member, refused, said, say, settled } from '../support/chat.mjs';
import { open } from '../support/clients.mjs';
import { startCluster } from '../support/interop/cluster.mjs';
import { PythonPeer } from '../support/interop/peers.mjs';
import { Rest } from '../support/rest.mjs';
import { token } from '../support/token.mjs';
import { ask, assertHas, eventually, once, within } from '../support/wait.mjs';

let cluster;
let a;
let b;
let redis;
before(async () => {
  cluster = await startCluster({ settings: { ROOM_POLICY: 'members' } });
  [a, b] = cluster.services;
  redis = await cluster.redis.client();
});
after(() => cluster.stop());

/** For what every instance looks at each 30 s, in ms. */
const LOOKED_MS = 90_000;

const update = (body) => redis.publish('meeting_updates', JSON.stringify({ id: fresh('update'), ...body }));
const join = (socket, meeting_id) => ask(socket, 'join_room', { meeting_id });
const participants = (meeting) => `meeting:${meeting}:participants`;

describe('the participants of a meeting', () => {
  test('in a set may write, on every instance; others may not come in', async (t) => {
    const [meeting, user] = [fresh(), fresh('user')];
    await redis.sAdd(participants(meeting), [user, 'somebody else']);
    const sockets = [await member(t, a, meeting, user), await member(t, b, meeting, user)];
    for (const socket of sockets) await said(socket, meeting, 'hello');
    for (const service of [a, b]) await refused(join(await as(t, service, fresh('stranger')), meeting), 'forbidden');
  });

  test('in a hash may do what it says', async (t) => {
    const meeting = fresh();
    const rights = { read: fresh('reader'), write: fresh('writer'), host: fresh('host') };
    for (const [right, user] of Object.entries(rights)) await redis.hSet(participants(meeting), user, right);
    const reader = await member(t, a, meeting, rights.read);
    const writer = await member(t, b, meeting, rights.write);
    const host = await member(t, a, meeting, rights.host);
    await refused(say(reader, meeting, 'may I?'), 'forbidden');
    const { id } = await said(writer, meeting, 'of the writer');
    const { id: other } = await said(host, meeting, 'of the host');
    await refused(ask(writer, 'delete_message', { meeting_id: meeting, id: other }), 'forbidden');
    await accepted(ask(host, 'delete_message', { meeting_id: meeting, id }));
    await refused(join(await as(t, b, fresh('stranger')), meeting), 'forbidden');
  });

  test('have no right if the hash says something else', async (t) => {
    const meeting = fresh();
    for (const right of ['', 'owner', 'READ', '1']) {
      const user = fresh('user');
      await redis.hSet(participants(meeting), user, right);
      await refused(join(await as(t, a, user), meeting), 'forbidden');
    }
  });

  test('are nobody if the key is something else', async (t) => {
    const writers = [
      (key, user) => redis.set(key, user),
      (key, user) => redis.rPush(key, user),
      (key, user) => redis.zAdd(key, { score: 1, value: user }),
    ];
    for (const write of writers) {
      const [meeting, user] = [fresh(), fresh('user')];
      await write(participants(meeting), user);
      const { error } = await join(await as(t, b, user), meeting);
      assert.ok(['forbidden', 'unavailable'].includes(error?.code), JSON.stringify(error));
    }
  });

  test('who are added may come in as soon as it is said, although they were turned away', async (t) => {
    const [meeting, user] = [fresh(), fresh('user')];
    const sockets = [await as(t, a, user), await as(t, b, user)];
    for (const socket of sockets) await refused(join(socket, meeting), 'forbidden');
    const heard = sockets.map((socket) => once(socket, 'notification'));
    await redis.sAdd(participants(meeting), user);
    await update({ type: 'participant.added', meeting_id: meeting, user_id: user });
    for (const event of heard) assertHas((await event)[0], { kind: 'participant.added' });
    for (const socket of sockets) await eventually(() => accepted(join(socket, meeting)));
  });

  test('whose right grows may use it as soon as it is said', async (t) => {
    const [meeting, user] = [fresh(), fresh('user')];
    await redis.hSet(participants(meeting), user, 'read');
    const sockets = [await member(t, a, meeting, user), await member(t, b, meeting, user)];
    for (const socket of sockets) await refused(say(socket, meeting, 'may I?'), 'forbidden');
    await redis.hSet(participants(meeting), user, 'write');
    await update({ type: 'participant.added', meeting_id: meeting, user_id: user });
    for (const socket of sockets) await eventually(() => said(socket, meeting, 'I may'));
  });

  test('who are removed are out at once, on all instances, and stay out', async (t) => {
    const [meeting, user, stays] = [fresh(), fresh('user'), fresh('stays')];
    await redis.sAdd(participants(meeting), [user, stays]);
    const sockets = [await member(t, a, meeting, user), await member(t, b, meeting, user)];
    const other = await member(t, b, meeting, stays);
    for (const socket of sockets) await said(socket, meeting, 'hello');
    const left = sockets.map((socket) => once(socket, 'room_left'));
    await redis.sRem(participants(meeting), user);
    await update({ type: 'participant.removed', meeting_id: meeting, user_id: user });
    for (const event of left) assert.deepEqual(await event, [{ meeting_id: meeting, reason: 'removed' }]);
    for (const socket of sockets) {
      await refused(say(socket, meeting, 'still here'), 'not_joined');
      await refused(join(socket, meeting), 'forbidden');
    }
    await said(other, meeting, 'gone');
  });
});

/** What becomes of a CONNECT: `ready`, or the code of the refusal. */
async function outcome(t, service, claims) {
  const socket = open(t, service.url, { auth: { token: token(claims) } });
  const end = new Promise((resolve) => {
    socket.once('ready', () => resolve('ready'));
    socket.once('connect_error', ({ data, message }) => resolve(data?.code ?? message));
  });
  const result = await within(end, 'the answer to a CONNECT');
  socket.disconnect();
  return result;
}

// Side by side, as some are waited for.
describe('a token that is revoked', { concurrency: true }, () => {
  const SECOND = 1000;
  const seconds = (ago) => Math.floor(Date.now() / SECOND) - ago;
  const revoke = (event) => redis.publish('auth_events', JSON.stringify({ type: 'revoke', ...event }));

  /** Sockets that are to be closed and sockets that are not, each on both instances. */
  async function scene(t, covered, spared) {
    const enter = (list) =>
      Promise.all(list.flatMap((claims) => [a, b].map((service) => as(t, service, claims.sub, claims))));
    const [closed, open] = [await enter(covered), await enter(spared)];
    const heard = closed.map((socket) => Promise.all([once(socket, 'auth_expired'), once(socket, 'disconnect')]));
    return async () => {
      for (const events of heard) {
        const [[expired], [reason]] = await events;
        assert.deepEqual([expired, reason], [{}, 'transport close']);
      }
      for (const socket of open) await settled(socket);
      for (const service of [a, b]) {
        for (const claims of covered) assert.equal(await outcome(t, service, claims), 'token_invalid');
        for (const claims of spared) assert.equal(await outcome(t, service, claims), 'ready');
        for (const claims of covered)
          assert.equal((await Rest.bearer(service, token(claims)).get('/unread')).status, 401);
      }
    };
  }

  const cases = [
    [
      'by its user',
      (u) => ({ user_id: u }),
      (u) => [
        { sub: u, iat: seconds(5) },
        { sub: u, iat: seconds(5), jti: u },
      ],
      (u) => [{ sub: `${u}-x` }],
    ],
    [
      'by its jti',
      (u) => ({ jti: `${u}-j` }),
      (u) => [{ sub: u, jti: `${u}-j` }],
      (u) => [{ sub: u, jti: u }, { sub: u }],
    ],
    [
      'by its sid',
      (u) => ({ sid: `${u}-s` }),
      (u) => [{ sub: u, sid: `${u}-s` }],
      (u) => [{ sub: u, sid: u }, { sub: u }],
    ],
    [
      'by its user and when it was issued',
      (u) => ({ user_id: u, before: Date.now() - 30 * SECOND }),
      (u) => [{ sub: u, iat: seconds(60) }],
      (u) => [{ sub: u, iat: seconds(10) }],
    ],
  ];
  for (const [name, event, covered, spared] of cases) {
    test(`${name} is closed and refused on all instances, and no other is`, async (t) => {
      const user = fresh('user');
      const assertRevoked = await scene(t, covered(user), spared(user));
      await revoke(event(user));
      await assertRevoked();
    });
  }

  test('by a program in Python is as well', async (t) => {
    const python = await PythonPeer.start('socketio-newest', 'emitter', 'manager', cluster.redis.url);
    t.after(() => python.stop());
    const user = fresh('user');
    const assertRevoked = await scene(t, [{ sub: user, iat: seconds(5) }], []);
    const message = JSON.stringify({ type: 'revoke', user_id: user });
    await python.run('publish', { channel: 'auth_events', message });
    await assertRevoked();
  });

  test('by POST /revoke on one instance is as well', async (t) => {
    const user = fresh('user');
    const assertRevoked = await scene(t, [{ sub: user, jti: `${user}-j` }], [{ sub: user }]);
    assert.equal((await Rest.sibling(b).post('/revoke', { jti: `${user}-j` })).status, 200);
    await assertRevoked();
  });

  test('is refused by instances that start later', async (t) => {
    const user = fresh('user');
    const claims = { sub: user, iat: seconds(60) };
    await revoke({ user_id: user });
    await eventually(async () => assert.equal(await outcome(t, a, claims), 'token_invalid'));
    const later = await cluster.add();
    assert.equal(await outcome(t, later, claims), 'token_invalid');
    assert.equal(await outcome(t, later, { sub: `${user}-x` }), 'ready');
  });

  test('by its key is refused on all instances', async (t) => {
    const user = fresh('user');
    await redis.set(`auth:revoked:${user}-j`, '1', { EX: 3600 });
    for (const service of [a, b]) {
      assert.equal(await outcome(t, service, { sub: user, jti: `${user}-j` }), 'token_invalid');
      assert.equal(await outcome(t, service, { sub: user, jti: `${user}-k` }), 'ready');
      assert.equal((await Rest.bearer(service, token({ sub: user, jti: `${user}-j` })).get('/unread')).status, 401);
    }
  });

  test('by its key while its socket is connected is closed before long, and no other is', async (t) => {
    const user = fresh('user');
    const claims = [{ sub: user, jti: `${user}-j` }, { sub: user, jti: `${user}-k` }, { sub: user }];
    const [covered, ...spared] = await Promise.all(
      claims.map((own) => Promise.all([a, b].map((service) => as(t, service, user, own)))),
    );
    const heard = covered.map((socket) =>
      Promise.all([once(socket, 'auth_expired', LOOKED_MS), once(socket, 'disconnect', LOOKED_MS)]),
    );
    await redis.set(`auth:revoked:${user}-j`, '1', { EX: 3600 });
    for (const [[expired], [reason]] of await Promise.all(heard)) {
      assert.deepEqual([expired, reason], [{}, 'transport close']);
    }
    for (const socket of spared.flat()) await settled(socket);
  });

  test('by its key cannot be used to refresh', async (t) => {
    const user = fresh('user');
    const socket = await as(t, a, user);
    await redis.set(`auth:revoked:${user}-j`, '');
    await refused(ask(socket, 'auth_refresh', { token: token({ sub: user, jti: `${user}-j` }) }), 'token_invalid');
    await accepted(ask(socket, 'auth_refresh', { token: token({ sub: user, jti: `${user}-k` }) }));
  });
});

describe('POST /disconnect on one instance', () => {
  for (const field of ['user_id', 'jti', 'sid']) {
    test(`by ${field} closes transports on the other, and bans nobody`, async (t) => {
      const user = fresh('user');
      const claims = { sub: user, jti: `${user}-j` };
      const socket = await as(t, b, user, claims);
      const left = once(socket, 'disconnect');
      const subject = { user_id: user, jti: claims.jti, sid: socket.id }[field];
      assert.equal((await Rest.sibling(a).post('/disconnect', { [field]: subject })).status, 200);
      assert.equal((await left)[0], 'transport close');
      assert.equal(await outcome(t, b, claims), 'ready');
    });
  }
});
