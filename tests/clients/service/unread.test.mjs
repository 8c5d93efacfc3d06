// Promise: a user knows on every device what is still unread, messages and notifications alike.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { accepted, as, fresh, member, range, said, settled } from '../support/chat.mjs';
import { startService } from '../support/server.mjs';
import { WITH_USERS } from '../support/token.mjs';
import { ask, assertHas, once, record } from '../support/wait.mjs';

let service;
before(async () => (service = await startService(WITH_USERS)));
after(() => service.stop());

/** What a new device of the user is told when it connects. */
async function unread(t, user) {
  const socket = await as(t, service, user);
  socket.disconnect();
  return socket.ready.unread;
}

/** A meeting with somebody who talks, and a user who has joined it. */
async function visited(t) {
  const meeting_id = fresh();
  const talker = await member(t, service, meeting_id, fresh('talker'));
  const bob = await member(t, service, meeting_id, fresh('bob'));
  const talk = (count) => Promise.all(range(1, count).map((n) => said(talker, meeting_id, `${n}`)));
  return { meeting_id, talker, bob, user: bob.ready.user_id, talk };
}

const mark = (socket, meeting_id, seq) => accepted(ask(socket, 'mark_read', { meeting_id, seq }));

describe('unread messages', () => {
  test('are those of others since the first join', async (t) => {
    const meeting_id = fresh();
    const talker = await member(t, service, meeting_id);
    await said(talker, meeting_id, 'before');
    const user = fresh('bob');
    assert.deepEqual(await unread(t, user), { notifications: 0, meetings: {} });
    const bob = await member(t, service, meeting_id, user);
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 0 });
    await said(talker, meeting_id, 'one');
    await said(bob, meeting_id, 'my own');
    await said(talker, meeting_id, 'two');
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 2 });
    assert.deepEqual((await unread(t, talker.ready.user_id)).meetings, { [meeting_id]: 1 });
  });

  test('go on counting for those who left or went offline, and a second join does not reset them', async (t) => {
    const { meeting_id, bob, user, talk } = await visited(t);
    await accepted(ask(bob, 'leave_room', { meeting_id }));
    await talk(2);
    bob.disconnect();
    await talk(1);
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 3 });
    const back = await member(t, service, meeting_id, user);
    assert.deepEqual(back.ready.unread.meetings, { [meeting_id]: 3 });
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 3 });
  });

  test('do not include edits, reactions and deletions', async (t) => {
    const { meeting_id, talker, user } = await visited(t);
    const { id } = await said(talker, meeting_id, 'kept');
    await accepted(ask(talker, 'edit_message', { meeting_id, id, text: 'better' }));
    await accepted(ask(talker, 'react', { meeting_id, id, emoji: '👍' }));
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 1 });
  });

  test('are those above the mark', async (t) => {
    const { meeting_id, bob, user, talk } = await visited(t);
    await talk(5);
    for (const [seq, left] of [
      [2, 3],
      [1, 3],
      [4, 1],
      [99, 0],
    ]) {
      await mark(bob, meeting_id, seq);
      assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: left }, `after ${seq}`);
    }
    await talk(1);
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 1 });
  });

  test('are counted to 999', async (t) => {
    const { meeting_id, bob, user, talk } = await visited(t);
    await talk(998);
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 998 });
    await talk(1);
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 999 });
    await talk(1);
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 999 });
    await mark(bob, meeting_id, 10);
    assert.deepEqual((await unread(t, user)).meetings, { [meeting_id]: 990 });
  });

  test('are told for each meeting, for 50 of them at most', async (t) => {
    const talker = await as(t, service, fresh('talker'));
    const user = fresh('bob');
    const bob = await as(t, service, user);
    const meetings = range(1, 50).map(() => fresh());
    for (const meeting_id of meetings) {
      for (const socket of [bob, talker]) await accepted(ask(socket, 'join_room', { meeting_id }));
    }
    await said(talker, meetings[7], 'x');
    const all = await unread(t, user);
    const expected = Object.fromEntries(meetings.map((meeting_id, n) => [meeting_id, n === 7 ? 1 : 0]));
    assert.deepEqual(all.meetings, expected);
    assert.ok(!all.meetings_truncated, 'not truncated');
    await accepted(ask(bob, 'join_room', { meeting_id: fresh() }));
    const most = await unread(t, user);
    assert.equal(Object.keys(most.meetings).length, 50);
    assert.equal(most.meetings_truncated, true);
  });
});

describe('the event unread', () => {
  test('tells the other devices what was read on one, joined or not', async (t) => {
    const { meeting_id, bob, user, talk } = await visited(t);
    await talk(5);
    const devices = [await as(t, service, user), await member(t, service, meeting_id, user)];
    const stranger = record(await member(t, service, meeting_id), 'unread');
    const heard = devices.map((socket) => record(socket, 'unread'));
    for (const [seq, left] of [
      [2, 3],
      [4, 1],
      [5, 0],
    ]) {
      await mark(bob, meeting_id, seq);
      for (const { some, items } of heard) {
        await some(({ meetings }) => meetings?.[meeting_id] === left);
        assert.equal(items.at(-1).notifications, 0);
      }
    }
    assert.deepEqual(stranger.items, [], 'it is nobody else’s business');
  });

  test('comes once a second at most', async (t) => {
    const { meeting_id, bob, user, talk } = await visited(t);
    const top = 30;
    await talk(top);
    const { items, some } = record(await as(t, service, user), 'unread');
    const start = performance.now();
    for (const seq of range(1, top)) await mark(bob, meeting_id, seq);
    await some(({ meetings }) => meetings?.[meeting_id] === 0);
    const seconds = (performance.now() - start) / 1000;
    assert.ok(items.length <= seconds + 2, `${items.length} in ${seconds} s`);
  });

  test('tells the other devices that notifications were read', async (t) => {
    const { user, bob } = await notified(t, 3);
    const other = record(await as(t, service, user), 'unread');
    await accepted(ask(bob, 'notifications_read', { up_to: 2 }));
    await other.some(({ notifications }) => notifications === 1);
    await accepted(ask(bob, 'notifications_read', { up_to: 3 }));
    await other.some(({ notifications }) => notifications === 0);
  });
});

/** A user with so many notifications, all unread. */
async function notified(t, count) {
  const user = fresh('bob');
  const bob = await as(t, service, user);
  const heard = record(bob, 'notification');
  const talker = await member(t, service, fresh());
  const { meeting_id } = talker.joined;
  await Promise.all(range(1, count).map((n) => said(talker, meeting_id, `${n}`, { mentions: [user] })));
  await heard.count(count);
  return { user, bob, heard, talker };
}

const inbox = (socket, query = {}) => accepted(ask(socket, 'notifications_get', query));
const numbers = ({ items }) => items.map(({ nseq }) => nseq);
const byNumber = (items) => items.toSorted((a, b) => a.nseq - b.nseq);

describe('the inbox', () => {
  test('holds what was told, numbered per user from 1', async (t) => {
    const { bob, heard } = await notified(t, 3);
    assert.deepEqual(numbers({ items: byNumber(heard.items) }), [1, 2, 3]);
    const { items, ...rest } = await inbox(bob);
    assert.deepEqual(items, byNumber(heard.items));
    assert.deepEqual(rest, { ok: true, has_more: false, unread: 3 });
    assert.equal(new Set(items.map(({ id }) => id)).size, 3);
    assert.deepEqual(await inbox(await as(t, service, fresh('another'))), {
      ok: true,
      items: [],
      has_more: false,
      unread: 0,
    });
  });

  test('is paged forwards and backwards', async (t) => {
    const { bob } = await notified(t, 5);
    const pages = [
      [{ after: 0, limit: 2 }, [1, 2], true],
      [{ after: 2, limit: 2 }, [3, 4], true],
      [{ after: 3, limit: 2 }, [4, 5], false],
      [{ after: 5 }, [], false],
      [{ after: 99 }, [], false],
      [{ before: 6, limit: 2 }, [4, 5], true],
      [{ before: 4, limit: 2 }, [2, 3], true],
      [{ before: 3, limit: 2 }, [1, 2], false],
      [{ before: 1 }, [], false],
      [{ after: 0, limit: 0 }, [1], true],
      [{ after: 0, limit: 1000 }, [1, 2, 3, 4, 5], false],
    ];
    for (const [query, expected, has_more] of pages) {
      const page = await inbox(bob, query);
      assert.deepEqual([numbers(page), page.has_more, page.unread], [expected, has_more, 5], JSON.stringify(query));
    }
  });

  test('gives 50 at once, and at most 100', async (t) => {
    const { bob } = await notified(t, 110);
    const page = await inbox(bob, { after: 0 });
    assert.deepEqual([numbers(page), page.has_more, page.unread], [range(1, 50), true, 110]);
    assert.equal((await inbox(bob)).items.length, 50);
    assert.deepEqual(numbers(await inbox(bob, { after: 0, limit: 1000 })), range(1, 100));
  });

  test('tells what is read: by id', async (t) => {
    const { bob, heard, user } = await notified(t, 4);
    const [, second, , fourth] = byNumber(heard.items);
    const read = (...ids) => ask(bob, 'notifications_read', { ids });
    assert.deepEqual(await read(second.id, fourth.id), { ok: true, unread: 2 });
    assert.deepEqual(await read(second.id, 'no-such-notification'), { ok: true, unread: 2 });
    assert.deepEqual(
      (await inbox(bob)).items.map(({ nseq, read }) => [nseq, read]),
      [
        [1, false],
        [2, true],
        [3, false],
        [4, true],
      ],
    );
    assert.equal((await unread(t, user)).notifications, 2);
  });

  test('tells what is read: all up to one', async (t) => {
    const { bob, user } = await notified(t, 4);
    for (const [up_to, left] of [
      [0, 4],
      [3, 1],
      [2, 1],
      [99, 0],
    ]) {
      assert.deepEqual(await ask(bob, 'notifications_read', { up_to }), { ok: true, unread: left }, `up to ${up_to}`);
      assert.equal((await unread(t, user)).notifications, left);
    }
    const talker = await member(t, service, fresh());
    const next = once(bob, 'notification');
    await said(talker, talker.joined.meeting_id, 'new', { mentions: [user] });
    assertHas((await next)[0], { nseq: 5, read: false });
    assertHas(await inbox(bob), { unread: 1 });
  });

  test('gives only what is unread, if asked', async (t) => {
    const { bob } = await notified(t, 6);
    await accepted(ask(bob, 'notifications_read', { up_to: 2 }));
    const pages = [
      [{ unread_only: true }, [3, 4, 5, 6], false],
      [{ unread_only: true, after: 0, limit: 2 }, [3, 4], true],
      [{ unread_only: true, after: 4, limit: 2 }, [5, 6], false],
      [{ unread_only: true, before: 5, limit: 2 }, [3, 4], false],
      [{ unread_only: false }, [1, 2, 3, 4, 5, 6], false],
    ];
    for (const [query, expected, has_more] of pages) {
      const page = await inbox(bob, query);
      assert.deepEqual([numbers(page), page.has_more, page.unread], [expected, has_more, 4], JSON.stringify(query));
    }
  });

  test('is the same on every device, and nobody else’s', async (t) => {
    const { user, bob, heard } = await notified(t, 2);
    const phone = await as(t, service, user);
    assert.equal(phone.ready.unread.notifications, 2);
    const stranger = await as(t, service, fresh('stranger'));
    assertHas(await accepted(ask(stranger, 'notifications_read', { ids: [heard.items[0].id] })), { unread: 0 });
    await accepted(ask(phone, 'notifications_read', { up_to: 1 }));
    assertHas(await inbox(bob), { unread: 1 });
    await settled(phone);
  });

  test('keeps the last 200', async (t) => {
    const { bob } = await notified(t, 205);
    const first = await inbox(bob, { after: 0, limit: 100 });
    const second = await inbox(bob, { after: 105, limit: 100 });
    assert.deepEqual([numbers(first), first.has_more, first.unread], [range(6, 105), true, 200]);
    assert.deepEqual([numbers(second), second.has_more], [range(106, 205), false]);
  });
});
