// Promise: what is said in a meeting can be answered, marked, corrected and taken back, by those who may; all members
// see the same in the same order, and whoever is meant hears of it.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import {
  LOGGED,
  NO_MESSAGE,
  ULID,
  accepted,
  as,
  fresh,
  history,
  log,
  member,
  range,
  refused,
  said,
  say,
  seqs,
  settled,
} from '../support/chat.mjs';
import { startService } from '../support/server.mjs';
import { WITH_USERS } from '../support/token.mjs';
import { ask, assertHas, once, record } from '../support/wait.mjs';

let service;
before(async () => (service = await startService(WITH_USERS)));
after(() => service.stop());

/** A meeting with these users in it, one socket each. */
async function meeting(t, ...users) {
  const meeting_id = fresh();
  const sockets = [];
  for (const user of users) sockets.push(await member(t, service, meeting_id, user));
  return [meeting_id, ...sockets];
}

describe('a message', () => {
  test('is acknowledged with its place, and reaches all members, the sender included', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, 'ann', 'bob');
    const heard = [ann, bob].map((socket) => once(socket, 'chat_message'));
    const meta = { lang: 'en', list: [1.5, null] };
    const ack = await said(ann, meeting_id, 'hello', { client_id: 'c-1', mentions: ['zoe', 7], meta });
    assert.deepEqual(Object.keys(ack).sort(), ['duplicate', 'epoch', 'id', 'ok', 'seq', 'ts']);
    assertHas(ack, { seq: 1, duplicate: false, epoch: ann.joined.epoch });
    assert.match(ack.id, ULID);
    assert.ok(Math.abs(ack.ts - Date.now()) < 60_000, `ts ${ack.ts}`);
    for (const [event] of await Promise.all(heard)) {
      assert.deepEqual(event, {
        id: ack.id,
        seq: 1,
        epoch: ack.epoch,
        meeting_id,
        text: 'hello',
        sender: 'ann',
        sender_name: 'Name of ann',
        ts: ack.ts,
        client_id: 'c-1',
        mentions: ['zoe', '7'],
        meta,
      });
    }
  });

  test('reaches all devices of its sender', async (t) => {
    const [meeting_id, one, two] = await meeting(t, 'ann', 'ann');
    const heard = [one, two].map((socket) => once(socket, 'chat_message'));
    const { id } = await said(one, meeting_id, 'x');
    for (const [event] of await Promise.all(heard)) assertHas(event, { id, sender: 'ann' });
  });

  test('of five who talk at once: all see one order, by seq, without holes', async (t) => {
    const users = range(1, 5).map((n) => `talker-${n}`);
    const [meeting_id, ...sockets] = await meeting(t, ...users);
    const each = 60;
    const heard = sockets.map(log);
    const acks = await Promise.all(
      sockets.flatMap((socket, who) => range(1, each).map((n) => said(socket, meeting_id, `${who}/${n}`))),
    );
    const all = range(1, users.length * each);
    assert.deepEqual(
      seqs(acks).toSorted((a, b) => a - b),
      all,
    );
    for (const { count, items } of heard) {
      await count(all.length);
      assert.deepEqual(seqs(items), all);
      assert.deepEqual(items, heard[0].items);
    }
    for (const who of users.keys()) {
      const own = heard[0].items.filter(({ sender }) => sender === users[who]).map(({ text }) => text);
      assert.deepEqual(
        own,
        range(1, each).map((n) => `${who}/${n}`),
        'each sender is heard in the order of sending',
      );
    }
  });

  test('shares its seq with edits, reactions and deletions: one order for all of them', async (t) => {
    const [meeting_id, ...sockets] = await meeting(t, 'ann', 'bob', 'cid');
    const heard = sockets.map(log);
    const acts = sockets.map(async (socket) => {
      for (let n = 0; n < 10; n++) {
        const { id } = await said(socket, meeting_id, `${n}`);
        await Promise.all([
          accepted(ask(socket, 'edit_message', { meeting_id, id, text: `${n}, better` })),
          accepted(ask(socket, 'react', { meeting_id, id, emoji: '👍' })),
        ]);
        await accepted(ask(socket, 'delete_message', { meeting_id, id }));
      }
    });
    await Promise.all(acts);
    const total = 3 * 10 * 4;
    for (const { count, items } of heard) {
      await count(total);
      assert.deepEqual(seqs(items), range(1, total));
      assert.deepEqual(items, heard[0].items);
    }
    assert.deepEqual(new Set(heard[0].items.map(({ event }) => event)), new Set(LOGGED.slice(0, 4)));
  });

  test('is refused without joining, and takes no seq', async (t) => {
    const [meeting_id, ann] = await meeting(t, 'ann');
    const outside = await as(t, service, 'outside');
    await refused(say(outside, meeting_id, 'x'), 'not_joined');
    assertHas(await said(ann, meeting_id, 'x'), { seq: 1 });
  });

  test('is refused to those who may only read; others may not even join', async (t) => {
    const [meeting_id, ann] = await meeting(t, 'ann');
    const reader = await member(t, service, meeting_id, 'reader', { meetings: { [meeting_id]: 'read' } });
    const heard = once(reader, 'chat_message');
    await refused(say(reader, meeting_id, 'x'), 'forbidden');
    const { id } = await said(ann, meeting_id, 'for all readers');
    assertHas((await heard)[0], { id });
    await refused(ask(reader, 'react', { meeting_id, id, emoji: '👍' }), 'forbidden');
    const stranger = await as(t, service, 'stranger', { meetings: [fresh('another')] });
    for (const event of ['join_room', 'get_history', 'get_presence']) {
      await refused(ask(stranger, event, { meeting_id }), 'forbidden');
    }
    await refused(ask(stranger, 'mark_read', { meeting_id, seq: 1 }), 'forbidden');
  });
});

describe('an edit', () => {
  test('reaches all members, and every next one has the next version', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, 'ann', 'bob');
    const { id, epoch } = await said(ann, meeting_id, 'helo');
    const heard = record(bob, 'message_edited');
    const first = await accepted(ask(ann, 'edit_message', { meeting_id, id, text: 'hello' }));
    assertHas(first, { seq: 2 });
    const second = await accepted(ask(ann, 'edit_message', { meeting_id, id, text: 'hello!' }));
    assertHas(second, { seq: 3, version: first.version + 1 });
    await heard.count(2);
    const [{ ts, ...event }] = heard.items;
    assert.ok(Math.abs(ts - Date.now()) < 60_000, `ts ${ts}`);
    assert.deepEqual(event, { id, seq: 2, epoch, meeting_id, text: 'hello', version: first.version, editor: 'ann' });
    assertHas(heard.items[1], { id, seq: 3, text: 'hello!', version: second.version, editor: 'ann' });
  });

  test('works from another device of the author', async (t) => {
    const [meeting_id, one, two] = await meeting(t, 'ann', 'ann');
    const { id } = await said(one, meeting_id, 'x');
    assertHas(await accepted(ask(two, 'edit_message', { meeting_id, id, text: 'y' })), { seq: 2 });
  });

  test('of what somebody else wrote is forbidden, but not to moderators', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, 'ann', 'bob');
    const { id } = await said(ann, meeting_id, 'x');
    await refused(ask(bob, 'edit_message', { meeting_id, id, text: 'y' }), 'forbidden');
    const moderators = [
      ['host', { meetings: { [meeting_id]: 'host' } }],
      ['admin', { role: 'admin' }],
    ];
    for (const [user, claims] of moderators) {
      const moderator = await member(t, service, meeting_id, user, claims);
      const heard = once(bob, 'message_edited');
      await accepted(ask(moderator, 'edit_message', { meeting_id, id, text: `as ${user} says` }));
      assertHas((await heard)[0], { id, text: `as ${user} says`, editor: user });
    }
  });

  test('of an unknown or another meeting’s message is not_found, of a deleted one conflict', async (t) => {
    const [meeting_id, ann] = await meeting(t, 'ann');
    const elsewhere = fresh();
    await accepted(ask(ann, 'join_room', { meeting_id: elsewhere }));
    const { id } = await said(ann, meeting_id, 'x');
    await refused(ask(ann, 'edit_message', { meeting_id, id: NO_MESSAGE, text: 'y' }), 'not_found');
    await refused(ask(ann, 'edit_message', { meeting_id: elsewhere, id, text: 'y' }), 'not_found');
    await accepted(ask(ann, 'delete_message', { meeting_id, id }));
    await refused(ask(ann, 'edit_message', { meeting_id, id, text: 'y' }), 'conflict');
    assertHas(await said(ann, meeting_id, 'next'), { seq: 3 });
  });
});

describe('a deletion', () => {
  test('reaches all members; again it is answered the same, without another event', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, 'ann', 'bob');
    const { id, epoch } = await said(ann, meeting_id, 'x');
    const heard = record(bob, 'message_deleted');
    const ack = await accepted(ask(ann, 'delete_message', { meeting_id, id }));
    assertHas(ack, { seq: 2 });
    assert.deepEqual(await ask(ann, 'delete_message', { meeting_id, id }), ack);
    await settled(bob);
    assert.equal(heard.items.length, 1);
    const [{ ts, ...event }] = heard.items;
    assert.ok(Math.abs(ts - Date.now()) < 60_000, `ts ${ts}`);
    assert.deepEqual(event, { id, seq: 2, epoch, meeting_id, deleted_by: 'ann' });
  });

  test('erases the text and all its edits from what is kept', async (t) => {
    const [meeting_id, ann] = await meeting(t, 'ann');
    const { id } = await said(ann, meeting_id, 'secret-1');
    await accepted(ask(ann, 'edit_message', { meeting_id, id, text: 'secret-2' }));
    await said(ann, meeting_id, 'what stays');
    await accepted(ask(ann, 'delete_message', { meeting_id, id }));
    const late = await as(t, service, 'late');
    const { events } = await accepted(ask(late, 'join_room', { meeting_id, limit: 100 }));
    for (const kept of [await history(ann, meeting_id), events]) {
      assert.deepEqual(seqs(kept), [1, 2, 3, 4], 'the order has no hole');
      assert.doesNotMatch(JSON.stringify(kept), /secret/);
      assert.equal(kept[2].text, 'what stays');
    }
  });

  test('is for the author and for moderators', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, 'ann', 'bob');
    const { id } = await said(ann, meeting_id, 'x');
    await refused(ask(bob, 'delete_message', { meeting_id, id }), 'forbidden');
    const host = await member(t, service, meeting_id, 'host', { meetings: { [meeting_id]: 'host' } });
    const heard = once(ann, 'message_deleted');
    await accepted(ask(host, 'delete_message', { meeting_id, id }));
    assertHas((await heard)[0], { id, deleted_by: 'host' });
  });

  test('of an unknown message is not_found', async (t) => {
    const [meeting_id, ann] = await meeting(t, 'ann');
    await refused(ask(ann, 'delete_message', { meeting_id, id: NO_MESSAGE }), 'not_found');
  });
});

describe('a reaction', () => {
  test('is counted over users, and can be taken back', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, 'ann', 'bob');
    const { id, epoch } = await said(ann, meeting_id, 'x');
    const heard = record(ann, 'message_reaction');
    const react = (socket, more) => accepted(ask(socket, 'react', { meeting_id, id, emoji: '👍', ...more }));
    assertHas(await react(ann), { seq: 2 });
    assertHas(await react(bob), { seq: 3 });
    assertHas(await react(ann, { remove: true }), { seq: 4 });
    assertHas(await react(bob, { remove: true }), { seq: 5 });
    await heard.count(4);
    const common = { id, epoch, meeting_id, emoji: '👍' };
    assert.deepEqual(
      heard.items.map(({ ts, ...event }) => event),
      [
        { ...common, seq: 2, user_id: 'ann', removed: false, count: 1 },
        { ...common, seq: 3, user_id: 'bob', removed: false, count: 2 },
        { ...common, seq: 4, user_id: 'ann', removed: true, count: 1 },
        { ...common, seq: 5, user_id: 'bob', removed: true, count: 0 },
      ],
    );
  });

  test('twice is once, from another device too; taking back what is not there changes nothing', async (t) => {
    const [meeting_id, one, two] = await meeting(t, 'ann', 'ann');
    const { id } = await said(one, meeting_id, 'x');
    const heard = record(two, 'message_reaction');
    await accepted(ask(one, 'react', { meeting_id, id, emoji: '🎉', remove: true }));
    const { seq } = await accepted(ask(one, 'react', { meeting_id, id, emoji: '🎉' }));
    assert.equal(seq, 2);
    for (const socket of [one, two])
      assertHas(await ask(socket, 'react', { meeting_id, id, emoji: '🎉' }), { ok: true, seq });
    await accepted(ask(two, 'react', { meeting_id, id, emoji: '🎈', remove: true }));
    await settled(two);
    assert.deepEqual(seqs(heard.items), [2]);
    assertHas(await said(one, meeting_id, 'next'), { seq: 3 });
  });

  test('may be one of 20 different on a message; a 21st is limit_reached until one is gone', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, 'ann', 'bob');
    const { id } = await said(ann, meeting_id, 'x');
    const react = (socket, emoji, more) => ask(socket, 'react', { meeting_id, id, emoji, ...more });
    const emoji = range(0, 20).map((n) => String.fromCodePoint(0x1f600 + n));
    for (const [n, one] of emoji.slice(0, 20).entries()) await accepted(react(n % 2 ? ann : bob, one));
    await refused(react(ann, emoji[20]), 'limit_reached');
    await accepted(react(ann, emoji[0])); // Bob's, so it is not another one.
    await accepted(react(bob, emoji[0], { remove: true }));
    await refused(react(bob, emoji[20]), 'limit_reached');
    await accepted(react(ann, emoji[0], { remove: true }));
    await accepted(react(bob, emoji[20]));
    const other = await said(ann, meeting_id, 'each message has its own');
    await accepted(ask(ann, 'react', { meeting_id, id: other.id, emoji: emoji[0] }));
  });

  test('needs a joined meeting and a message in it', async (t) => {
    const [meeting_id, ann] = await meeting(t, 'ann');
    const { id } = await said(ann, meeting_id, 'x');
    await refused(ask(ann, 'react', { meeting_id, id: NO_MESSAGE, emoji: '👍' }), 'not_found');
    const outside = await as(t, service, 'outside');
    await refused(ask(outside, 'react', { meeting_id, id, emoji: '👍' }), 'not_joined');
  });
});

describe('a reply', () => {
  test('names the message, and its author is notified, on all devices and outside the meeting too', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, fresh('ann'), fresh('bob'));
    const away = await as(t, service, ann.ready.user_id);
    const { id: reply_to } = await said(ann, meeting_id, 'anybody there?');
    const heard = once(ann, 'chat_message');
    const told = [ann, away].map((socket) => once(socket, 'notification'));
    const { id } = await said(bob, meeting_id, 'here', { reply_to });
    assertHas((await heard)[0], { id, reply_to });
    const [[first], [second]] = await Promise.all(told);
    assert.deepEqual(first, second);
    assertHas(first, { kind: 'chat.reply', meeting_id, actor_id: bob.ready.user_id, nseq: 1, read: false });
    assert.ok(typeof first.id === 'string' && first.id.length > 0 && first.id.length <= 64, `id ${first.id}`);
    assert.ok(Math.abs(first.ts - Date.now()) < 60_000, `ts ${first.ts}`);
  });

  test('to an unknown message is not_found, and takes no seq', async (t) => {
    const [meeting_id, ann] = await meeting(t, 'ann');
    await refused(say(ann, meeting_id, 'x', { reply_to: NO_MESSAGE }), 'not_found');
    assertHas(await said(ann, meeting_id, 'x'), { seq: 1 });
  });

  test('to oneself notifies nobody', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, fresh('ann'), fresh('bob'));
    const { items, count } = record(ann, 'notification');
    const { id: reply_to } = await said(ann, meeting_id, 'x');
    await said(ann, meeting_id, 'y', { reply_to, mentions: [ann.ready.user_id] });
    await said(bob, meeting_id, 'z', { reply_to });
    await count(1);
    assert.deepEqual(
      items.map(({ kind, actor_id }) => [kind, actor_id]),
      [['chat.reply', bob.ready.user_id]],
    );
  });
});

describe('a mention', () => {
  test('notifies each user that is meant once, wherever they are connected', async (t) => {
    const [bob, cid] = [fresh('bob'), fresh('cid')];
    const [meeting_id, ann, bobHere] = await meeting(t, fresh('ann'), bob);
    const sockets = [bobHere, await as(t, service, bob), await as(t, service, cid)];
    const told = sockets.map((socket) => record(socket, 'notification'));
    await said(ann, meeting_id, 'look', { mentions: [bob, cid, bob] });
    for (const { count, items } of told) {
      await count(1);
      assertHas(items[0], { kind: 'chat.mention', meeting_id, actor_id: ann.ready.user_id, nseq: 1, read: false });
    }
    await said(ann, meeting_id, 'and again', { mentions: [bob, cid] });
    for (const { count, items } of told) {
      await count(2);
      assert.deepEqual(
        items.map(({ nseq }) => nseq),
        [1, 2],
      );
    }
  });

  test('and a reply wait for those who are offline', async (t) => {
    const [meeting_id, ann, bob] = await meeting(t, fresh('ann'), fresh('bob'));
    const { id: reply_to } = await said(bob, meeting_id, 'going offline');
    bob.disconnect();
    const cid = fresh('cid'); // has never been here
    const witness = await as(t, service, fresh('witness'));
    const seen = once(witness, 'notification');
    await said(ann, meeting_id, 'too late', { reply_to });
    await said(ann, meeting_id, 'hello both', { mentions: [bob.ready.user_id, cid, witness.ready.user_id] });
    await seen;
    const expected = [
      [bob.ready.user_id, ['chat.reply', 'chat.mention']],
      [cid, ['chat.mention']],
    ];
    for (const [user, kinds] of expected) {
      const back = await as(t, service, user);
      assert.equal(back.ready.unread.notifications, kinds.length);
      const { items, unread } = await accepted(ask(back, 'notifications_get', {}));
      assert.equal(unread, kinds.length);
      assert.deepEqual(
        items.map(({ kind, meeting_id, actor_id, nseq, read }) => [kind, meeting_id, actor_id, nseq, read]),
        kinds.map((kind, n) => [kind, meeting_id, ann.ready.user_id, n + 1, false]),
      );
    }
  });

  test('tells nobody who may not read the meeting', async (t) => {
    const [meeting_id, ann, member] = await meeting(t, fresh('ann'), fresh('member'));
    const stranger = await as(t, service, fresh('stranger'), { meetings: [fresh('another')] });
    const { items } = record(stranger, 'notification');
    const seen = once(member, 'notification');
    await said(ann, meeting_id, 'psst', { mentions: [stranger.ready.user_id, member.ready.user_id] });
    await seen;
    await settled(stranger);
    assert.deepEqual(items, []);
    assertHas(await accepted(ask(stranger, 'notifications_get', {})), { items: [], unread: 0 });
  });
});
