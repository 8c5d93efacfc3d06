// Promise: whoever comes back gets exactly what was missed, or is told that it cannot be had; nothing comes twice and
// nothing is left out.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import {
  LOGGED,
  accepted,
  as,
  fresh,
  history,
  log,
  member,
  range,
  refused,
  said,
  seqs,
  settled,
} from '../support/chat.mjs';
import { startService } from '../support/server.mjs';
import { WITH_USERS } from '../support/token.mjs';
import { ask, assertHas, within } from '../support/wait.mjs';

let service;
before(async () => (service = await startService(WITH_USERS)));
after(() => service.stop());

/** A meeting with a member who has said `count` things, and what that member heard of them. */
async function talked(t, count, where = service) {
  const meeting_id = fresh();
  const ann = await member(t, where, meeting_id);
  const heard = log(ann);
  await Promise.all(range(1, count).map((n) => said(ann, meeting_id, `${n}`)));
  await heard.count(count);
  return { meeting_id, ann, heard, epoch: ann.joined.epoch };
}

/** The ack of somebody new who joins. */
async function joining(t, meeting_id, more, where = service) {
  const socket = await as(t, where, fresh('late'));
  return accepted(ask(socket, 'join_room', { meeting_id, ...more }));
}

describe('a join', () => {
  test('without since or limit brings no events and says nothing of recovery', async (t) => {
    const { meeting_id, epoch } = await talked(t, 3);
    const ack = await joining(t, meeting_id);
    assertHas(ack, { meeting_id, epoch, seq: 3, first_seq: 1 });
    assert.deepEqual(ack.events ?? [], []);
    for (const absent of ['recovered', 'reason', 'presence']) assert.ok(!(absent in ack), JSON.stringify(ack));
  });

  test('with limit brings the last events, as they were when they were live', async (t) => {
    const { meeting_id, ann, heard } = await talked(t, 3);
    const { id } = heard.items[0];
    await accepted(ask(ann, 'react', { meeting_id, id, emoji: '👍' }));
    await accepted(ask(ann, 'edit_message', { meeting_id, id, text: 'one' }));
    await heard.count(5);
    const few = await joining(t, meeting_id, { limit: 3 });
    assert.deepEqual(few.events, heard.items.slice(-3));
    assertHas(few, { seq: 5, first_seq: 1 });
    assert.ok(!('recovered' in few), JSON.stringify(few));
    const all = await joining(t, meeting_id, { limit: 300 });
    assert.deepEqual(seqs(all.events), range(1, 5));
    assert.deepEqual((await joining(t, meeting_id, { limit: 0 })).events ?? [], []);
  });

  test('with a limit outside 0 to 300 takes the nearest', async (t) => {
    const { meeting_id } = await talked(t, 301);
    assert.deepEqual(seqs((await joining(t, meeting_id, { limit: 301 })).events), range(2, 301));
    assert.deepEqual((await joining(t, meeting_id, { limit: -1 })).events ?? [], []);
  });

  test('with since brings all that was missed, and nothing else', async (t) => {
    const { meeting_id, heard, epoch } = await talked(t, 6);
    for (const seq of [0, 1, 4, 5]) {
      const ack = await joining(t, meeting_id, { since: { epoch, seq } });
      assertHas(ack, { epoch, seq: 6, recovered: true, events: heard.items.slice(seq) });
      assert.ok(!('reason' in ack), JSON.stringify(ack));
    }
  });

  test('with since at the top has recovered with no events', async (t) => {
    const { meeting_id, epoch } = await talked(t, 2);
    assertHas(await joining(t, meeting_id, { since: { epoch, seq: 2 } }), { recovered: true, events: [], seq: 2 });
    const empty = await member(t, service, fresh());
    const { meeting_id: quiet, epoch: young } = empty.joined;
    const ack = await accepted(ask(empty, 'join_room', { meeting_id: quiet, since: { epoch: young, seq: 0 } }));
    assertHas(ack, { recovered: true, events: [], seq: 0 });
  });

  const strangers = [
    [
      'another epoch',
      (epoch) => ({ epoch: `x${epoch.slice(1)}` === epoch ? `y${epoch.slice(1)}` : `x${epoch.slice(1)}`, seq: 1 }),
    ],
    ['an epoch of another form', () => ({ epoch: 'other', seq: 1 })],
    ['a seq above the top', (epoch) => ({ epoch, seq: 4 })],
    ['a seq far above the top', (epoch) => ({ epoch, seq: Number.MAX_SAFE_INTEGER })],
  ];
  for (const [name, since] of strangers) {
    test(`with ${name} has not recovered: epoch; and the epoch stays what it is`, async (t) => {
      const { meeting_id, ann, epoch } = await talked(t, 3);
      const ack = await joining(t, meeting_id, { since: since(epoch) });
      assertHas(ack, { recovered: false, reason: 'epoch', events: [], epoch, seq: 3, first_seq: 1 });
      assertHas(await said(ann, meeting_id, 'next'), { seq: 4, epoch });
    });
  }

  test('with since recovers 300 events, and of 301 says too_many', async (t) => {
    const { meeting_id, epoch } = await talked(t, 301);
    const most = await joining(t, meeting_id, { since: { epoch, seq: 1 } });
    assertHas(most, { recovered: true, seq: 301 });
    assert.deepEqual(seqs(most.events), range(2, 301));
    const more = await joining(t, meeting_id, { since: { epoch, seq: 0 } });
    assertHas(more, { recovered: false, reason: 'too_many', events: [], seq: 301, epoch });
  });

  test('with since and a limit recovers all or nothing', async (t) => {
    const { meeting_id, epoch } = await talked(t, 6);
    const five = await joining(t, meeting_id, { since: { epoch, seq: 1 }, limit: 5 });
    assertHas(five, { recovered: true });
    assert.deepEqual(seqs(five.events), range(2, 6));
    const six = await joining(t, meeting_id, { since: { epoch, seq: 0 }, limit: 5 });
    assertHas(six, { recovered: false, reason: 'too_many', events: [] });
  });

  test('again, of a joined meeting, does the same', async (t) => {
    const { meeting_id, ann, heard, epoch } = await talked(t, 4);
    assertHas(await accepted(ask(ann, 'join_room', { meeting_id, limit: 2 })), {
      seq: 4,
      events: heard.items.slice(2),
    });
    const ack = await accepted(ask(ann, 'join_room', { meeting_id, since: { epoch, seq: 1 } }));
    assertHas(ack, { seq: 4, recovered: true, events: heard.items.slice(1), members: 1 });
    await said(ann, meeting_id, 'heard once');
    await settled(ann);
    assert.deepEqual(seqs(heard.items), range(1, 5));
  });

  test('after everybody had left finds the meeting as it was', async (t) => {
    const { meeting_id, ann, heard, epoch } = await talked(t, 3);
    const user = ann.ready.user_id;
    await accepted(ask(ann, 'leave_room', { meeting_id }));
    const left = await accepted(ask(ann, 'join_room', { meeting_id, since: { epoch, seq: 2 } }));
    assertHas(left, { epoch, seq: 3, recovered: true, events: heard.items.slice(2) });
    ann.disconnect();
    const back = await member(t, service, meeting_id, user);
    assertHas(back.joined, { epoch, seq: 3, first_seq: 1 });
    assertHas(await said(back, meeting_id, 'goes on'), { seq: 4, epoch });
  });
});

describe('a log of which only the last 10 events are kept', () => {
  let small;
  before(async () => (small = await startService({ ...WITH_USERS, HISTORY_SIZE: '10' })));
  after(() => small.stop());

  test('says where it begins', async (t) => {
    const { meeting_id, ann } = await talked(t, 10, small);
    assertHas(await joining(t, meeting_id, { limit: 300 }, small), { seq: 10, first_seq: 1 });
    await said(ann, meeting_id, '11');
    const ack = await joining(t, meeting_id, { limit: 300 }, small);
    assertHas(ack, { seq: 11, first_seq: 2 });
    assert.deepEqual(seqs(ack.events), range(2, 11));
    assert.deepEqual(seqs(await history(ann, meeting_id, 3)), range(2, 11));
  });

  test('recovers from the event before its first one; from before that it says window', async (t) => {
    const { meeting_id, epoch } = await talked(t, 15, small);
    const all = await joining(t, meeting_id, { since: { epoch, seq: 5 } }, small);
    assertHas(all, { recovered: true, seq: 15, first_seq: 6 });
    assert.deepEqual(seqs(all.events), range(6, 15));
    for (const seq of [4, 0]) {
      const ack = await joining(t, meeting_id, { since: { epoch, seq } }, small);
      assertHas(ack, { recovered: false, reason: 'window', events: [], seq: 15, first_seq: 6 });
    }
  });

  test('does not know the messages any more that it has dropped', async (t) => {
    const { meeting_id, ann, heard } = await talked(t, 15, small);
    const gone = { meeting_id, id: heard.items[0].id };
    await refused(ask(ann, 'edit_message', { ...gone, text: 'x' }), 'not_found');
    await refused(ask(ann, 'delete_message', gone), 'not_found');
    await refused(ask(ann, 'react', { ...gone, emoji: '👍' }), 'not_found');
    await refused(ask(ann, 'chat_message', { meeting_id, text: 'x', reply_to: gone.id }), 'not_found');
  });
});

describe('get_history', () => {
  const get = async (socket, meeting_id, more) => accepted(ask(socket, 'get_history', { meeting_id, ...more }));

  test('gives the last 50 events, as they were live', async (t) => {
    const { meeting_id, ann, heard, epoch } = await talked(t, 60);
    const page = await get(ann, meeting_id);
    assert.deepEqual(page, {
      ok: true,
      epoch,
      top_seq: 60,
      first_seq: 1,
      items: heard.items.slice(10),
      has_more: true,
    });
  });

  test('pages backwards and forwards over every event once', async (t) => {
    const { meeting_id, ann } = await talked(t, 25);
    const back = [];
    for (let before_seq = 26, more = true; more; before_seq = back[0].seq) {
      const page = await get(ann, meeting_id, { before_seq, limit: 10 });
      back.unshift(...page.items);
      more = page.has_more;
    }
    assert.deepEqual(seqs(back), range(1, 25));
    assert.deepEqual(await history(ann, meeting_id, 10), back);
  });

  const pages = [
    ['before_seq is not included', { before_seq: 5, limit: 2 }, [3, 4], true],
    ['before_seq, to the very first', { before_seq: 3, limit: 2 }, [1, 2], false],
    ['before the first', { before_seq: 1 }, [], false],
    ['before_seq above the top', { before_seq: 100, limit: 2 }, [9, 10], true],
    ['after_seq is not included', { after_seq: 5, limit: 2 }, [6, 7], true],
    ['after_seq, to the very last', { after_seq: 8, limit: 2 }, [9, 10], false],
    ['after the last', { after_seq: 10 }, [], false],
    ['after_seq above the top', { after_seq: 100 }, [], false],
    ['limit 0 is 1', { limit: 0 }, [10], true],
    ['limit -5 is 1', { after_seq: 0, limit: -5 }, [1], true],
    ['limit 101 is 100', { limit: 101 }, range(1, 10), false],
    ['limit 10 of 10', { limit: 10 }, range(1, 10), false],
    ['limit 9 of 10', { limit: 9 }, range(2, 10), true],
  ];
  test('takes from where it is told', async (t) => {
    const { meeting_id, ann } = await talked(t, 10);
    for (const [name, query, expected, has_more] of pages) {
      const page = await get(ann, meeting_id, query);
      assert.deepEqual([seqs(page.items), page.has_more], [expected, has_more], name);
    }
  });

  test('gives at most 100', async (t) => {
    const { meeting_id, ann } = await talked(t, 120);
    const page = await get(ann, meeting_id, { limit: 1000 });
    assert.deepEqual([seqs(page.items), page.has_more], [range(21, 120), true]);
  });

  test('gives only the kinds that are asked for', async (t) => {
    const { meeting_id, ann, heard } = await talked(t, 3);
    const [first, , third] = heard.items;
    await accepted(ask(ann, 'react', { meeting_id, id: first.id, emoji: '👍' }));
    await accepted(ask(ann, 'edit_message', { meeting_id, id: first.id, text: 'one' }));
    await accepted(ask(ann, 'delete_message', { meeting_id, id: third.id }));
    await said(ann, meeting_id, 'four');
    const cases = [
      [['chat_message'], [1, 2, 3, 7]],
      [['message_reaction'], [4]],
      [
        ['message_edited', 'message_deleted'],
        [5, 6],
      ],
      [['meeting_update'], []],
    ];
    for (const [kinds, expected] of cases) {
      const page = await get(ann, meeting_id, { kinds });
      assert.deepEqual([seqs(page.items), page.has_more], [expected, false], kinds.join());
      assert.equal(page.top_seq, 7);
    }
    const page = await get(ann, meeting_id, { kinds: ['chat_message'], limit: 2 });
    assert.deepEqual([seqs(page.items), page.has_more], [[3, 7], true]);
    const rest = await get(ann, meeting_id, { kinds: ['chat_message'], limit: 2, before_seq: 3 });
    assert.deepEqual([seqs(rest.items), rest.has_more], [[1, 2], false]);
  });

  test('works without joining; with another epoch it is a conflict', async (t) => {
    const { meeting_id, epoch } = await talked(t, 3);
    const reader = await as(t, service, fresh('reader'));
    assert.deepEqual(seqs((await get(reader, meeting_id, { epoch })).items), [1, 2, 3]);
    await refused(ask(reader, 'get_history', { meeting_id, epoch: 'somethingelse' }), 'conflict');
    const empty = await get(reader, fresh('nobody-was-here'));
    assertHas(empty, { top_seq: 0, items: [], has_more: false });
  });
});

// A client as the contract wants it: applies what the ack of a join brings and then what comes live; if that did not
// recover, it reads pages up to the seq of the join. Fails if an event comes twice, in another order, or not at all.
class Follower {
  recoveries = 0;

  /** `seen` is the last event that this client has; undefined if it begins with whatever the first join brings. */
  constructor(meeting_id, seen) {
    Object.assign(this, { meeting_id, seen });
  }

  apply(events, where) {
    for (const { seq } of events) {
      if (this.seen !== undefined) assert.equal(seq, this.seen + 1, `the next seq ${where}`);
      this.seen = seq;
    }
  }

  /** Joins by a socket that has not joined, follows until `count` events came live, and leaves. */
  async follow(socket, request, count) {
    const { meeting_id } = this;
    const heard = log(socket);
    const [ack, early] = await answerOf(socket, 'join_room', { meeting_id, ...request }, heard);
    assert.equal(early, 0, 'live events come after the ack');
    if (ack.recovered) this.recoveries++;
    this.apply(ack.events ?? [], 'in the ack');
    this.seen ??= ack.seq;
    while (this.seen < ack.seq) {
      const page = await accepted(ask(socket, 'get_history', { meeting_id, after_seq: this.seen, limit: 100 }));
      const missed = page.items.filter(({ seq }) => seq <= ack.seq);
      assert.ok(missed.length > 0, `no events from ${this.seen} to ${ack.seq}`);
      this.apply(missed, 'in a page');
    }
    assert.equal(this.seen, ack.seq, 'the events of the ack end at its seq');
    await heard.count(count);
    await accepted(ask(socket, 'leave_room', { meeting_id }));
    this.apply(heard.items, 'live');
    for (const event of LOGGED) socket.off(event);
  }
}

/** The ack, a success, and how many events had come before it. */
async function answerOf(socket, event, payload, { items }) {
  let early;
  const answer = new Promise((resolve) => {
    socket.emit(event, payload, (ack) => {
      early = items.length;
      resolve(ack);
    });
  });
  return [await accepted(within(answer, `the ack of "${event}"`)), early];
}

describe('join and cut are one step', () => {
  /** Somebody who talks as fast as answers come, eight messages ahead, until `stop`. */
  async function talker(t) {
    const meeting_id = fresh();
    const socket = await member(t, service, meeting_id);
    let on = true;
    let sent = 0;
    const lane = async () => {
      while (on) await said(socket, meeting_id, `${++sent}`);
    };
    const lanes = range(1, 8).map(() => lane().catch((error) => assert.ok(!on, error)));
    t.after(() => (on = false));
    const stop = () => {
      on = false;
      return Promise.all(lanes);
    };
    return { meeting_id, stop, epoch: socket.joined.epoch };
  }

  test('with since, by one socket that leaves and joins again', async (t) => {
    const { meeting_id, epoch, stop } = await talker(t);
    const follower = new Follower(meeting_id, 0);
    const socket = await as(t, service, fresh('follower'));
    const rounds = 100;
    for (let n = 0; n < rounds; n++) {
      await follower.follow(socket, { since: { epoch, seq: follower.seen } }, n % 4);
    }
    await stop();
    assert.ok(follower.seen > rounds, `only ${follower.seen} events went by`);
    assert.ok(follower.recoveries > 0, 'no join has recovered');
  });

  test('with since, by sockets that are cut and connect again', async (t) => {
    const { meeting_id, epoch, stop } = await talker(t);
    const followers = await Promise.all(
      range(1, 4).map(async () => {
        const follower = new Follower(meeting_id, 0);
        const user = fresh('follower');
        for (let n = 0; n < 10; n++) {
          const socket = await as(t, service, user);
          await follower.follow(socket, { since: { epoch, seq: follower.seen } }, n);
          socket.disconnect();
        }
        return follower;
      }),
    );
    await stop();
    assert.ok(
      followers.every(({ recoveries }) => recoveries > 0),
      'no join has recovered',
    );
  });

  test('with limit, by somebody new each time', async (t) => {
    const { meeting_id, stop } = await talker(t);
    for (let n = 0; n < 40; n++) {
      const follower = new Follower(meeting_id);
      const socket = await as(t, service, fresh('follower'));
      await follower.follow(socket, { limit: [0, 1, 20, 300][n % 4] }, 5);
      socket.disconnect();
    }
    await stop();
  });

  test('again, of a joined meeting: all up to its seq had come live before the ack, and nothing above', async (t) => {
    const { meeting_id, epoch, stop } = await talker(t);
    const socket = await as(t, service, fresh('follower'));
    const heard = log(socket);
    const { seq: base } = await accepted(ask(socket, 'join_room', { meeting_id }));
    for (let n = 0; n < 100; n++) {
      const since = { epoch, seq: base + heard.items.length };
      const [ack, before] = await answerOf(socket, 'join_room', { meeting_id, since }, heard);
      assertHas(ack, { recovered: true });
      assert.deepEqual(seqs(ack.events), range(since.seq + 1, ack.seq));
      assert.equal(base + before, ack.seq);
      await heard.count(heard.items.length + 3);
    }
    await stop();
    await settled(socket);
    assert.deepEqual(seqs(heard.items), range(base + 1, base + heard.items.length));
  });
});
